//! Arrivals: hidden states that wait for a step, by session. Pure.
//!
//! No session has more here than its window lets out of the head: what is over that is refused, and so this never grows beyond what the
//! segment has declared.

use std::collections::{HashMap, VecDeque};

use polyphony_protocol::SessionId;

use super::reason::Reason;
use super::shape::StageShape;
use crate::serve::batch::Job;

pub(super) struct Arrivals {
    waiting: HashMap<SessionId, VecDeque<Job>>,
    /// The sessions with jobs, in turn.
    turns: VecDeque<SessionId>,
    /// Whether a prompt's chunk goes before single rows, since one waited in the last step.
    is_chunks_turn: bool,
    /// Chunks of a session that its head may have on their way.
    window: usize,
    /// Rows of a step.
    max_rows: usize,
}

// === impl Arrivals ===

impl Arrivals {
    pub(super) fn new(shape: &StageShape) -> Self {
        let (waiting, turns) = Default::default();
        let (window, max_rows) = (shape.window(), shape.capacity.max_rows);
        Self { waiting, turns, is_chunks_turn: false, window, max_rows }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.waiting.values().flatten().map(Job::n_rows).sum()
    }

    /// Takes a job, behind those of its session.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Reason> {
        let id = job.key.session;
        let jobs = self.waiting.entry(id).or_default();
        if jobs.len() >= self.window {
            return Err(Reason::Overrun { limit: self.window });
        }
        if jobs.is_empty() {
            self.turns.push_back(id);
        }
        jobs.push_back(job);
        Ok(())
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        if self.waiting.remove(&id).is_some() {
            self.turns.retain(|turn| *turn != id);
        }
    }

    pub(super) fn has_work(&self, may_decode: &dyn Fn(SessionId) -> bool) -> bool {
        self.turns.iter().any(|id| may_decode(*id))
    }

    /// The jobs of the next step. Single rows, which decode, and chunks of prompts go first in turn, so that neither waits for more than one
    /// step of the other; what goes second fills the step up. Sessions take turns, too, so that a short prompt waits for no more than a chunk
    /// of each other one; the jobs of one session stay in order.
    pub(super) fn next_jobs(&mut self, may_decode: &dyn Fn(SessionId) -> bool) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut room = self.max_rows;
        for takes_chunks in [self.is_chunks_turn, !self.is_chunks_turn] {
            let mut is_full = false;
            let mut passed_over = VecDeque::with_capacity(self.turns.len());
            let mut served = VecDeque::new();
            while let Some(id) = self.turns.pop_front() {
                let Some(waiting) = self.waiting.get_mut(&id) else { continue };
                let before = jobs.len();
                while !is_full && may_decode(id) {
                    let Some(job) = waiting.front().filter(|job| is_chunk(job) == takes_chunks) else { break };
                    is_full = job.n_rows() > room;
                    if !is_full && let Some(job) = waiting.pop_front() {
                        room -= job.n_rows();
                        jobs.push(job);
                    }
                }
                match (waiting.is_empty(), jobs.len() > before) {
                    (true, _) => drop(self.waiting.remove(&id)),
                    (false, true) => served.push_back(id),
                    (false, false) => passed_over.push_back(id),
                }
            }
            passed_over.append(&mut served);
            self.turns = passed_over;
        }
        self.is_chunks_turn = !jobs.iter().any(is_chunk) && self.waiting.values().flatten().any(is_chunk);
        jobs
    }
}

fn is_chunk(job: &Job) -> bool {
    job.n_rows() > 1
}
