//! The planner's memory: problems of late and their answers, those included that it is at. Pure.
//!
//! It is as large as what is asked: problems of this round and the last stay, and as many older ones as there are of these, for what
//! swings back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use polyphony_placement::{Infeasible, Plan, Problem, Strategy};

use super::near::{asks_the_same_phones, is_akin, stand_in};
use crate::reconcile::problem::Question;

/// Problems that are remembered in any case.
const LEAST_REMEMBERED: usize = 64;

#[derive(Default)]
pub(super) struct Memory {
    round: u64,
    /// By what tells most problems apart.
    asked: HashMap<u64, Vec<Asked>>,
    /// Of the last problem that was put in.
    last_id: u64,
}

/// What was asked, how far that is, and the round in which it was asked last.
struct Asked {
    id: u64,
    /// Who asked first.
    deployment: String,
    strategy: Strategy,
    problem: Problem,
    said: Said,
    asked_in: u64,
}

/// How far the planner is with a problem.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Nothing,
    Answer(Result<Plan, Infeasible>),
    /// It broke down, with these words.
    Broke(String),
}

// === impl Memory ===

impl Memory {
    pub(super) fn begin_round(&mut self) {
        let mut rounds: Vec<u64> = self.asked.values().flatten().map(|asked| asked.asked_in).collect();
        rounds.sort_unstable_by(|a, b| b.cmp(a));
        let n_lately = rounds.iter().filter(|round| **round + 1 >= self.round).count();
        let most = LEAST_REMEMBERED.max(2 * n_lately);
        if let Some(&oldest) = rounds.get(most) {
            self.asked.retain(|_, asked| {
                asked.retain(|one| one.asked_in > oldest);
                !asked.is_empty()
            });
        }
        self.round += 1;
    }

    /// How far it is with a problem, and its number; `None` of one that is new.
    pub(super) fn recall(&mut self, key: u64, question: Question<'_>) -> Option<(u64, Said)> {
        let Question { rule: strategy, problem, .. } = question;
        let is_it = |asked: &&mut Asked| asked.strategy == strategy && asked.problem == *problem;
        let asked = self.asked.get_mut(&key)?.iter_mut().find(is_it)?;
        asked.asked_in = self.round;
        // Equal links of many problems are held once: those of the round that asked last.
        asked.problem.links.measured = problem.links.measured.clone();
        Some((asked.id, asked.said.clone()))
    }

    /// A new problem; gives its number.
    pub(super) fn put(&mut self, key: u64, question: Question<'_>) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let asked = Asked {
            id,
            deployment: question.deployment.to_owned(),
            strategy: question.rule,
            problem: question.problem.clone(),
            said: Said::Nothing,
            asked_in: self.round,
        };
        self.asked.entry(key).or_default().push(asked);
        id
    }

    /// How far it is with the problem of that key and number; `None` where it is forgotten.
    pub(super) fn said(&mut self, key: u64, id: u64) -> Option<&mut Said> {
        self.asked.get_mut(&key)?.iter_mut().find(|asked| asked.id == id).map(|asked| &mut asked.said)
    }

    /// What the problem of that key and number says to a newer question of whoever asked for it, where it says anything.
    pub(super) fn stand_in(&self, key: u64, id: u64, question: Question<'_>) -> Option<Said> {
        let older = self.find(key, id).filter(|older| older.is_akin_to(question))?;
        match &older.said {
            Said::Answer(answer) => stand_in(&older.problem, answer, question.problem).map(Said::Answer),
            // It is told once, like an answer.
            Said::Broke(_) if asks_the_same_phones(&older.problem, question.problem) => Some(older.said.clone()),
            Said::Nothing | Said::Broke(_) => None,
        }
    }

    /// Whether the problem of that key and number is the same question, asked with other figures.
    pub(super) fn is_of_the_same(&self, key: u64, id: u64, question: Question<'_>) -> bool {
        let is_it =
            |older: &Asked| older.is_akin_to(question) && asks_the_same_phones(&older.problem, question.problem);
        self.find(key, id).is_some_and(is_it)
    }

    fn find(&self, key: u64, id: u64) -> Option<&Asked> {
        self.asked.get(&key)?.iter().find(|asked| asked.id == id)
    }

    pub(super) fn forget(&mut self, key: u64, id: u64) {
        if let Some(asked) = self.asked.get_mut(&key) {
            asked.retain(|one| one.id != id);
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Whether the same deployment asks for the same, by other figures perhaps.
    fn is_akin_to(&self, question: Question<'_>) -> bool {
        self.deployment == question.deployment
            && self.strategy == question.rule
            && is_akin(&self.problem, question.problem)
    }
}

/// Equal problems have equal keys; unequal ones nearly always others.
pub(super) fn key(question: Question<'_>) -> u64 {
    let Question { rule: strategy, problem, .. } = question;
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
pub(super) mod tests {
    use polyphony_placement::{Demand, Energy, Link, Links, ModelCosts, Objective, PhoneCosts};

    use super::*;

    pub(in crate::reconcile::planner) fn problem(layer_bytes: u64) -> Problem {
        Problem {
            model: ModelCosts { layer_bytes: vec![layer_bytes], ..ModelCosts::default() },
            phones: Vec::new(),
            links: Links::uniform(Link { latency_seconds: 0.0, bytes_per_second: 1.0 }),
            demand: Demand {
                context_length: 1,
                max_sessions: 1,
                generations_in_memory: 1.0,
                objective: Objective::Latency,
                min_tokens_per_second: None,
                min_phones: 1,
                max_phones: 1,
                memory_fraction: 1.0,
                overlap: false,
                prompt: None,
            },
            previous: None,
        }
    }

    /// With phones, their bytes, and the seconds of a layer on each.
    pub(in crate::reconcile::planner) fn measured(phones: &[(&str, u64, f64)]) -> Problem {
        let phone = |&(name, allocatable_bytes, seconds_per_layer): &(&str, u64, f64)| PhoneCosts {
            name: name.to_owned(),
            is_trusted: true,
            allocatable_bytes,
            seconds_per_layer,
            seconds_per_layer_per_further_row: None,
            seconds_per_step: 0.0,
            seconds_embedding: 0.0,
            seconds_head: 0.0,
            seconds_head_per_further_row: None,
            prefill_seconds_per_layer_per_token: 0.0,
            energy: Energy::default(),
        };
        let model = ModelCosts { layer_bytes: vec![100; 4], ..ModelCosts::default() };
        let mut problem = Problem { model, phones: phones.iter().map(phone).collect(), ..problem(100) };
        problem.demand.max_phones = 4;
        problem
    }

    #[test]
    fn as_many_problems_are_remembered_as_are_asked_and_what_is_not_asked_any_more_is_forgotten() {
        let mut memory = Memory::default();
        let ask = |memory: &mut Memory, n: u64| {
            let problem = problem(n);
            let question = Question { deployment: "default/d", rule: Strategy::Optimal, problem: &problem };
            let key = key(question);
            let is_known = memory.recall(key, question).is_some();
            if !is_known {
                memory.put(key, question);
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
        let n_left: usize = memory.asked.values().map(Vec::len).sum();
        assert!(n_left <= LEAST_REMEMBERED, "{n_left} are still remembered");
        assert!(!ask(&mut memory, 499), "that one was long ago");
    }
}
