//! The planner with a memory: a problem that was solved before is not solved again. The answers are those of the planner.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use polyphony_placement::{Infeasible, Plan, Problem};

use crate::metrics::Metrics;

/// Problems that are remembered: those of the deployments that find no plan are asked again in every round.
const REMEMBERED: usize = 32;

pub(super) struct RememberingPlanner {
    metrics: Arc<Metrics>,
    answers: Mutex<VecDeque<(Problem, Result<Plan, Infeasible>)>>,
}

impl RememberingPlanner {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, answers: Mutex::default() }
    }

    pub(super) fn plan(&self, problem: &Problem) -> Result<Plan, Infeasible> {
        let known = {
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.iter().find(|(asked, _)| asked == problem).map(|(_, answer)| answer.clone())
        };
        known.unwrap_or_else(|| {
            let began = Instant::now();
            let answer = polyphony_placement::plan(problem);
            self.metrics.note_plan(answer.is_ok(), began.elapsed());
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.len() == REMEMBERED {
                answers.pop_front();
            }
            answers.push_back((problem.clone(), answer.clone()));
            answer
        })
    }
}
