//! The choice of a step's rows: whose turn it is, and how much of each fits in. Pure.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use super::{Batch, Job, JobRows, Session, Stage, Work};

impl Stage {
    /// The next step; `None` when nothing is ready. Prompts that are encoded and rows that are decoded go first in turn.
    pub fn next_work(&mut self, now: Instant) -> Option<Work> {
        if self.is_encoders_turn
            && let Some(job) = self.encoder_jobs.pop_front()
        {
            self.is_encoders_turn = false;
            return Some(Work::Encoder(job));
        }
        if let Some(batch) = self.next_batch(now) {
            self.is_encoders_turn = !self.encoder_jobs.is_empty();
            return Some(Work::Batch(batch));
        }
        self.encoder_jobs.pop_front().map(Work::Encoder)
    }

    /// The next step's rows of decoding; `None` when none are ready.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        let jobs = if self.shape.leads() { self.jobs_of_turns(now) } else { self.jobs_of_arrivals() };
        (!jobs.is_empty()).then(|| Batch::new(jobs, self.shape.is_tail, self.shape.hidden_size, now))
    }

    /// Whether a step can be run now.
    pub fn has_work(&self) -> bool {
        let may_decode = |job: &Job| self.sessions.get(&job.key.session).is_some_and(Session::may_decode);
        !self.encoder_jobs.is_empty()
            || self.arrived.iter().any(may_decode)
            || self.turns.iter().any(|id| self.sessions.get(id).is_some_and(Session::is_runnable))
    }

    /// A step samples for no more than a group of the sessions that decode: a batch of all of them would keep one stage busy
    /// and every other idle, and once together they come back together.
    fn jobs_of_turns(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut passed_over = VecDeque::new();
        let mut room = self.shape.capacity.max_rows;
        let n_active = self.sessions.values().filter(|session| session.is_active()).count();
        let mut samples = n_active.div_ceil(self.shape.n_decoding_groups());
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { break };
            let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_runnable()) else { continue };
            let n_rows = room.min(session.pending.len());
            let sample = n_rows == session.pending.len();
            if n_rows == 0 || (sample && samples == 0) {
                passed_over.push_back(id);
                continue;
            }
            let tokens: Vec<u32> = session.pending.drain(..n_rows).collect();
            room -= n_rows;
            let position = session.next_position;
            session.next_position += n_rows as u32;
            if sample {
                samples -= 1;
                session.credit -= 1;
                session.awaiting = Some(now);
            } else {
                self.turns.push_back(id);
            }
            let (key, slot, n_encoded) = (session.key, session.slot, session.n_encoded);
            jobs.push(Job { key, slot, position, n_encoded, rows: JobRows::Tokens(tokens), sample });
        }
        // Who was passed over comes before who had a turn.
        while let Some(id) = passed_over.pop_back() {
            self.turns.push_front(id);
        }
        jobs
    }

    /// Single rows, which decode, and chunks of prompts go first in turn, so that neither waits for more than one step of the
    /// other; what goes second fills the step up. The jobs of one session stay in order, and wait for the encoder's output where there is
    /// one.
    fn jobs_of_arrivals(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut room = self.shape.capacity.max_rows;
        let is_chunk = |job: &Job| job.n_rows() > 1;
        let sessions = &self.sessions;
        let may_decode = |job: &Job| sessions.get(&job.key.session).is_some_and(Session::may_decode);
        for takes_chunks in [self.is_chunks_turn, !self.is_chunks_turn] {
            let mut left = VecDeque::with_capacity(self.arrived.len());
            let mut waiting = HashSet::new();
            let mut is_full = false;
            for job in self.arrived.drain(..) {
                let is_next = is_chunk(&job) == takes_chunks && !waiting.contains(&job.key.session) && may_decode(&job);
                is_full |= is_next && job.n_rows() > room;
                if is_next && !is_full {
                    room -= job.n_rows();
                    jobs.push(job);
                } else {
                    waiting.insert(job.key.session);
                    left.push_back(job);
                }
            }
            self.arrived = left;
        }
        self.is_chunks_turn = !jobs.iter().any(is_chunk) && self.arrived.iter().any(is_chunk);
        jobs
    }
}
