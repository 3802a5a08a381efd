//! The planner with a memory: a problem that was solved before is not solved again. The answers are those of the planner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use polyphony_placement::{Infeasible, Plan, Problem, Strategy};

use crate::metrics::Metrics;

/// Problems that are remembered: those of the deployments that find no plan are asked again in every round.
const REMEMBERED: usize = 64;

/// What was asked, and what was said.
type Answer = (Strategy, Problem, Result<Plan, Infeasible>);

pub(super) struct RememberingPlanner {
    metrics: Arc<Metrics>,
    answers: Mutex<VecDeque<Answer>>,
}

impl RememberingPlanner {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, answers: Mutex::default() }
    }

    pub(super) fn plan(&self, strategy: Strategy, problem: &Problem) -> Result<Plan, Infeasible> {
        let known = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let is_asked = |answer: &&Answer| answer.0 == strategy && answer.1 == *problem;
            answers.iter().find(is_asked).map(|(.., answer)| answer.clone())
        };
        known.unwrap_or_else(|| {
            let began = Instant::now();
            let answer = polyphony_placement::plan_by(strategy, problem);
            self.metrics.note_plan(answer.is_ok(), began.elapsed());
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() == REMEMBERED {
                answers.pop_front();
            }
            answers.push_back((strategy, problem.clone(), answer.clone()));
            answer
        })
    }
}
