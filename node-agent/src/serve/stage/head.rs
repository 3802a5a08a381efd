//! The head of decoding: what the gateway sends of a session, and the tokens that the tail draws, become rows to compute. Pure.
//!
//! That is the ring's first stage, or the first with layers of the decoder where the model has an encoder; stages before it pass on.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use polyphony_protocol::SessionId;
use polyphony_protocol::frame::{Prompt, Token};

use super::Session;
use super::reason::Reason;
use super::shape::StageShape;
use super::window::Window;
use crate::serve::batch::{Job, JobRows};

pub(super) struct Head {
    asked: HashMap<SessionId, Asked>,
    /// Sessions that may have tokens to run, in turn.
    turns: VecDeque<SessionId>,
    /// Groups in which sessions decode.
    n_groups: usize,
    /// Chunks of a session that may be on their way.
    window: usize,
    /// Rows of a step.
    max_rows: usize,
    vocab_size: u32,
}

/// What the head knows of a session besides.
struct Asked {
    /// Tokens that are not computed yet.
    pending: VecDeque<u32>,
    /// Tokens that may still be sampled.
    credit: u32,
    window: Window,
    /// Where the last prompt ends; a pause waits until it is computed.
    prompt_end: u32,
    pause: Pause,
}

/// Whether a session is to stop at the next token boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    /// When what is on its way is done.
    Wanted,
    /// It has stopped, and the gateway knows.
    Told,
}

// === impl Head ===

impl Head {
    pub(super) fn new(shape: &StageShape) -> Self {
        Self {
            asked: HashMap::new(),
            turns: VecDeque::new(),
            n_groups: shape.n_decoding_groups(),
            window: shape.window(),
            max_rows: shape.capacity.max_rows,
            vocab_size: shape.vocab_size,
        }
    }

    pub(super) fn begin(&mut self, id: SessionId) {
        let asked = Asked {
            pending: VecDeque::new(),
            credit: 0,
            window: Window::new(self.window),
            prompt_end: 0,
            pause: Pause::No,
        };
        self.asked.insert(id, asked);
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        self.asked.remove(&id);
        self.turns.retain(|turn| *turn != id);
    }

    pub(super) fn n_pending(&self) -> usize {
        self.asked.values().map(|asked| asked.pending.len()).sum()
    }

    /// Since when the ring has owed an answer to a session.
    pub(super) fn awaits_since(&self, id: SessionId) -> Option<Instant> {
        self.asked.get(&id).and_then(|asked| asked.window.since())
    }

    pub(super) fn prompt(&mut self, session: &Session, prompt: Prompt) -> Result<(), Reason> {
        let Some(asked) = self.asked.get_mut(&session.key.session) else { return Ok(()) };
        let expected = session.next_position as usize + asked.pending.len();
        let (n_tokens, position) = (prompt.tokens.len(), prompt.position);
        let end = position as usize + n_tokens;
        if position as usize != expected
            || session.lacks_kv
            || prompt.tokens.is_empty()
            || end >= session.end_position as usize
        {
            return Err(Reason::Prompt { n_tokens, position, expected, end_position: session.end_position });
        }
        known(&prompt.tokens, self.vocab_size)?;
        asked.pending.extend(prompt.tokens);
        asked.prompt_end = end as u32;
        asked.credit = asked.credit.saturating_add(prompt.credit);
        self.take_turn(session.key.session);
        Ok(())
    }

    pub(super) fn credit(&mut self, id: SessionId, steps: u32) {
        if let Some(asked) = self.asked.get_mut(&id) {
            asked.credit = asked.credit.saturating_add(steps);
            self.take_turn(id);
        }
    }

    /// The tail has computed all positions below `position`.
    pub(super) fn acknowledge(&mut self, id: SessionId, position: u32, now: Instant) {
        if let Some(asked) = self.asked.get_mut(&id) {
            asked.window.acknowledge(position, now);
            self.take_turn(id);
        }
    }

    /// The tail has drawn a token.
    pub(super) fn token(&mut self, session: &Session, token: &Token, now: Instant) -> Result<(), Reason> {
        let id = session.key.session;
        let Some(asked) = self.asked.get_mut(&id) else { return Ok(()) };
        let expected = session.next_position + asked.pending.len() as u32;
        if token.position != expected {
            return Err(Reason::TokenPosition { position: token.position, expected });
        }
        asked.window.acknowledge(token.position, now);
        if token.finish.is_none() {
            known(&[token.token], self.vocab_size)?;
            asked.pending.push_back(token.token);
            self.take_turn(id);
        }
        Ok(())
    }

    pub(super) fn take_turn(&mut self, id: SessionId) {
        if !self.turns.contains(&id) {
            self.turns.push_back(id);
        }
    }

    /// The session is to stop at the next token boundary.
    pub(super) fn pause(&mut self, id: SessionId) {
        if let Some(asked) = self.asked.get_mut(&id) {
            asked.pause = Pause::Wanted;
        }
    }

    /// Whether a session that is to stop has nothing more on its way; said once.
    pub(super) fn has_stopped(&mut self, session: &Session) -> bool {
        let Some(asked) = self.asked.get_mut(&session.key.session) else { return false };
        let has_stopped = asked.pause == Pause::Wanted && asked.window.is_empty() && !asked.is_runnable(session);
        if has_stopped {
            asked.pause = Pause::Told;
        }
        has_stopped
    }

    /// Whether a step could be run.
    pub(super) fn has_work(
        &self,
        sessions: &HashMap<SessionId, Session>,
        may_decode: &dyn Fn(SessionId) -> bool,
    ) -> bool {
        self.turns.iter().any(|id| self.is_runnable(*id, sessions) && may_decode(*id))
    }

    /// The jobs of the next step. It samples for no more than a group of the sessions that decode: a batch of all of them would keep one stage
    /// busy and every other idle, and once together they come back together.
    pub(super) fn next_jobs(
        &mut self,
        sessions: &mut HashMap<SessionId, Session>,
        may_decode: &dyn Fn(SessionId) -> bool,
        now: Instant,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut passed_over = VecDeque::new();
        let mut room = self.max_rows;
        let is_active = |(id, asked): (&SessionId, &Asked)| {
            !asked.window.is_empty() || (self.is_runnable(*id, sessions) && may_decode(*id))
        };
        let n_active = self.asked.iter().filter(|it| is_active(*it)).count();
        let mut samples = n_active.div_ceil(self.n_groups.max(1));
        for _ in 0..self.turns.len() {
            let Some(id) = self.turns.pop_front() else { break };
            let (Some(session), Some(asked)) = (sessions.get_mut(&id), self.asked.get_mut(&id)) else { continue };
            if !asked.is_runnable(session) || !may_decode(id) {
                continue;
            }
            let n_rows = room.min(asked.pending.len());
            let sample = n_rows == asked.pending.len();
            if n_rows == 0 || (sample && samples == 0) {
                passed_over.push_back(id);
                continue;
            }
            let tokens: Vec<u32> = asked.pending.drain(..n_rows).collect();
            room -= n_rows;
            let position = session.next_position;
            session.next_position += n_rows as u32;
            asked.window.hand_over(session.next_position, now);
            if sample {
                samples -= 1;
                asked.credit -= 1;
            } else {
                self.turns.push_back(id);
            }
            let (key, slot) = (session.key, session.slot);
            jobs.push(Job { key, slot, position, rows: JobRows::Tokens(tokens), sample });
        }
        // Who was passed over comes before who had a turn.
        while let Some(id) = passed_over.pop_back() {
            self.turns.push_front(id);
        }
        jobs
    }

    fn is_runnable(&self, id: SessionId, sessions: &HashMap<SessionId, Session>) -> bool {
        let both = self.asked.get(&id).zip(sessions.get(&id));
        both.is_some_and(|(asked, session)| asked.is_runnable(session))
    }
}

/// Whether the embedding has a row for each of the tokens.
fn known(tokens: &[u32], n_rows: u32) -> Result<(), Reason> {
    let unknown = tokens.iter().find(|token| **token >= n_rows);
    unknown.map_or(Ok(()), |token| Err(Reason::UnknownToken { token: *token, n_rows }))
}

// === impl Asked ===

impl Asked {
    fn is_runnable(&self, session: &Session) -> bool {
        let may_go_on = self.pause == Pause::No || session.next_position < self.prompt_end;
        !self.pending.is_empty() && self.credit > 0 && may_go_on && self.window.is_open()
    }
}
