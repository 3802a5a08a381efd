//! Solves the programme and reads its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use good_lp::{SolverModel, solvers::microlp::microlp};
use microlp::{Error, SolutionStatus, SolveOptions, SolveOutcome};

use super::{Answer, Column, Programme};

// === impl Programme ===

impl Programme<'_, '_> {
    /// Solves; takes the nodes it used from `nodes_left`.
    pub(in crate::exact) fn solve(mut self, nodes_left: &mut u64) -> Answer {
        if self.phones.is_empty() {
            return Answer::Nothing;
        }
        let variables = std::mem::take(&mut self.variables);
        let mut problem = variables.minimise(&self.objective).using(microlp);
        for row in self.rows.drain(..) {
            problem.add_constraint(row);
        }
        // good_lp has a clock for a limit; the solver below it counts nodes, which is the same everywhere.
        let mut options = SolveOptions::default();
        options.node_limit = Some(*nodes_left);
        // microlp asserts what rounding can break; that must cost the proof of this plan, not the controller.
        let solve = AssertUnwindSafe(|| problem.as_inner().solve_with(options));
        let outcome = match catch_unwind(solve) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Error::Infeasible)) => return Answer::Nothing,
            Ok(Err(_)) | Err(_) => return Answer::GaveUp,
        };
        *nodes_left = nodes_left.saturating_sub(outcome.stats().nodes_solved);
        match outcome {
            SolveOutcome::Solution(solution) if solution.status() == SolutionStatus::Optimal => {
                let values: Vec<f64> = solution.iter().map(|(_, value)| value).collect();
                let objective = solution.objective() * self.unit_seconds;
                match self.order(&values) {
                    Some(phones) => Answer::Order { phones, objective },
                    None => Answer::GaveUp,
                }
            }
            _ => Answer::GaveUp,
        }
    }

    /// Reads the ring's order from the solver's values, None when they describe none.
    fn order(&self, values: &[f64]) -> Option<Vec<usize>> {
        let on = |column: Column| values.get(column.index).is_some_and(|value| value.round() == 1.0);
        let head = self.positions().find(|&at| on(self.head[at]))?;
        let tail = self.positions().find(|&at| on(self.tail[at]))?;
        let mut order = vec![head];
        if self.orderless {
            order.extend(self.positions().filter(|&at| on(self.used[at]) && at != head && at != tail));
            order.extend((tail != head).then_some(tail));
        } else {
            let mut at = head;
            while at != tail {
                at = self.arcs.iter().find(|(from, _, arc)| *from == at && on(*arc))?.1;
                if order.contains(&at) {
                    return None;
                }
                order.push(at);
            }
        }
        Some(order.into_iter().map(|at| self.phones[at]).collect())
    }
}
