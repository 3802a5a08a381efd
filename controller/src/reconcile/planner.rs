//! The planner with a memory: a problem that was solved before is not solved again. The answers are those of the planner.
//!
//! The memory is as large as what is asked: problems of this round and the last stay, and as many older ones as there are of
//! these, for what swings back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use polyphony_placement::{Infeasible, Plan, Problem, Strategy};

use crate::metrics::Metrics;

/// Problems that are remembered in any case.
const LEAST_REMEMBERED: usize = 64;

pub struct RememberingPlanner {
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    round: u64,
    /// By what tells most problems apart.
    answers: HashMap<u64, Vec<Answer>>,
}

/// What was asked, what was said, and the round in which it was asked last.
struct Answer {
    strategy: Strategy,
    problem: Problem,
    said: Result<Plan, Infeasible>,
    asked_in: u64,
}

// === impl RememberingPlanner ===

impl RememberingPlanner {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, memory: Mutex::default() }
    }

    /// A round begins: what has not been asked for long is forgotten.
    pub fn begin_round(&self) {
        self.memory().begin_round();
    }

    pub fn plan(&self, strategy: Strategy, problem: &Problem) -> Result<Plan, Infeasible> {
        let key = key(strategy, problem);
        if let Some(said) = self.memory().recall(key, strategy, problem) {
            return said;
        }
        let began = Instant::now();
        let said = polyphony_placement::plan_by(strategy, problem);
        self.metrics.note_plan(said.is_ok(), began.elapsed());
        if let Err(fault @ Infeasible::Rejected { .. }) = &said {
            tracing::error!(%strategy, "{fault}");
        }
        self.memory().keep(key, strategy, problem, &said);
        said
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No holder of the lock leaves an answer half-written.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Memory ===

impl Memory {
    fn begin_round(&mut self) {
        let mut rounds: Vec<u64> = self.answers.values().flatten().map(|answer| answer.asked_in).collect();
        rounds.sort_unstable_by(|a, b| b.cmp(a));
        let n_lately = rounds.iter().filter(|round| **round + 1 >= self.round).count();
        let most = LEAST_REMEMBERED.max(2 * n_lately);
        if let Some(&oldest) = rounds.get(most) {
            self.answers.retain(|_, answers| {
                answers.retain(|answer| answer.asked_in > oldest);
                !answers.is_empty()
            });
        }
        self.round += 1;
    }

    fn recall(&mut self, key: u64, strategy: Strategy, problem: &Problem) -> Option<Result<Plan, Infeasible>> {
        let is_asked = |answer: &&mut Answer| answer.strategy == strategy && answer.problem == *problem;
        let answer = self.answers.get_mut(&key)?.iter_mut().find(is_asked)?;
        answer.asked_in = self.round;
        Some(answer.said.clone())
    }

    fn keep(&mut self, key: u64, strategy: Strategy, problem: &Problem, said: &Result<Plan, Infeasible>) {
        let answer = Answer { strategy, problem: problem.clone(), said: said.clone(), asked_in: self.round };
        self.answers.entry(key).or_default().push(answer);
    }
}

/// Equal problems have equal keys; unequal ones nearly always others.
fn key(strategy: Strategy, problem: &Problem) -> u64 {
    let mut hasher = DefaultHasher::new();
    strategy.hash(&mut hasher);
    for phone in &problem.phones {
        phone.name.hash(&mut hasher);
        phone.allocatable_bytes.hash(&mut hasher);
        phone.seconds_per_layer.to_bits().hash(&mut hasher);
    }
    problem.model.layer_bytes.hash(&mut hasher);
    problem.demand.kv_tokens().hash(&mut hasher);
    problem.links.measured.len().hash(&mut hasher);
    for stage in problem.previous.iter().flat_map(|plan| &plan.stages) {
        stage.phone.hash(&mut hasher);
        stage.holds.layers_to.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use polyphony_placement::{Demand, Link, Links, ModelCosts, Objective};

    use super::*;

    fn problem(layer_bytes: u64) -> Problem {
        Problem {
            model: ModelCosts { layer_bytes: vec![layer_bytes], ..ModelCosts::default() },
            phones: Vec::new(),
            links: Links::uniform(Link { latency_seconds: 0.0, bytes_per_second: 1.0 }),
            demand: Demand {
                context_length: 1,
                max_sessions: 1,
                generations_in_memory: 1.0,
                objective: Objective::Latency,
                min_phones: 1,
                max_phones: 1,
                memory_fraction: 1.0,
                overlap: false,
            },
            previous: None,
        }
    }

    #[test]
    fn as_many_problems_are_remembered_as_are_asked_and_what_is_not_asked_any_more_is_forgotten() {
        let mut memory = Memory::default();
        let ask = |memory: &mut Memory, n: u64| {
            let (problem, strategy) = (problem(n), Strategy::Optimal);
            let key = key(strategy, &problem);
            let is_known = memory.recall(key, strategy, &problem).is_some();
            if !is_known {
                memory.keep(key, strategy, &problem, &Err(Infeasible::NoPhones));
            }
            is_known
        };
        // Far more than the least, in the same order each round: a queue of a fixed length would know none of them.
        for round in 0..3 {
            memory.begin_round();
            let n_known = (0..500).filter(|n| ask(&mut memory, *n)).count();
            assert_eq!(n_known, if round == 0 { 0 } else { 500 });
        }
        for _ in 0..3 {
            memory.begin_round();
            assert!(ask(&mut memory, 7));
        }
        let n_left: usize = memory.answers.values().map(Vec::len).sum();
        assert!(n_left <= LEAST_REMEMBERED, "{n_left} are still remembered");
        assert!(!ask(&mut memory, 499), "that one was long ago");
    }
}
