//! The planner, asked once for each problem: the answers are those of the product's, which are the same for the same question.

use std::cell::RefCell;

use polyphony_controller::reconcile::decide::{Question, at_once};
use polyphony_controller::reconcile::problem::Unplanned;
use polyphony_placement::{Plan, Problem, Strategy};

/// Problems that are remembered, the last one last.
const MOST: usize = 64;

#[derive(Default)]
pub struct Planner {
    known: RefCell<Vec<Known>>,
}

struct Known {
    rule: Strategy,
    problem: Problem,
    answer: Result<Plan, Unplanned>,
}

// === impl Planner ===

impl Planner {
    pub fn plan(&self, question: Question<'_>) -> Result<Plan, Unplanned> {
        let mut known = self.known.borrow_mut();
        let is_it = |known: &Known| known.rule == question.rule && known.problem == *question.problem;
        let found = match known.iter().rposition(is_it) {
            Some(at) => known.remove(at),
            None => Known { rule: question.rule, problem: question.problem.clone(), answer: at_once(question) },
        };
        let answer = found.answer.clone();
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push(found);
        answer
    }
}
