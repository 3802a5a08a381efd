//! Session: one prompt and its answer as the gateway owns them, and the credit that a ring has for it. Pure.
//!
//! Wherever the session runs, this is the only copy that counts: each new ring gets every token so far as its prompt.

use polyphony_protocol::frame::{Finish, Prompt, Resume, Token};
use polyphony_protocol::session::{History, SessionOptions};
use polyphony_protocol::{Epoch, Frame, PlanGeneration, RingId, RouteKey, SessionId};

/// One prompt and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    id: SessionId,
    epoch: Epoch,
    /// Prompt and answer: the authoritative copy.
    tokens: Vec<u32>,
    /// So many of them are the prompt's.
    n_prompt: usize,
    /// Without a history: `tokens` has it.
    options: SessionOptions,
    /// Steps that the head may run ahead of the reader.
    window: u32,
    /// The ring may sample positions below this.
    granted_until: u32,
    /// Placements in a row that brought no token.
    n_fruitless: u32,
    finish: Option<Finish>,
}

/// What a token is to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The next token of the answer; with the reason if it is the last one.
    Next(Option<Finish>),
    /// Repeated, or after the end: nothing happens.
    Ignored,
    /// The ring and the gateway no longer agree: the session has to be replayed.
    Wrong(String),
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Place it again; `n_fruitless` placements in a row brought nothing.
    Replay {
        n_fruitless: u32,
    },
    GiveUp {
        n_fruitless: u32,
    },
}

// === impl Session ===

impl Session {
    /// `options.end_position` is above the number of prompt tokens; `window` is at least 1.
    pub(crate) fn new(id: SessionId, prompt: Vec<u32>, options: SessionOptions, window: u32) -> Self {
        Self {
            id,
            epoch: Epoch(0),
            n_prompt: prompt.len(),
            tokens: prompt,
            options,
            window: window.max(1),
            granted_until: 0,
            n_fruitless: 0,
            finish: None,
        }
    }

    /// The position that the next token takes.
    pub(crate) fn position(&self) -> u32 {
        u32::try_from(self.tokens.len()).unwrap_or(u32::MAX)
    }

    /// Ends the answer where a ring's context does, which may have room for less than the one before; whether there is any.
    pub(crate) fn fit(&mut self, context_length: u32) -> bool {
        self.options.end_position = self.options.end_position.min(context_length);
        self.position() < self.options.end_position
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether a ring may sample the next token.
    pub(crate) fn has_credit(&self) -> bool {
        self.finish.is_none() && self.position() < self.granted_until
    }

    /// The ring may sample positions below this.
    pub(crate) fn granted_until(&self) -> u32 {
        self.granted_until
    }

    /// A key for the next ring: what an older epoch still says is not heard.
    pub(crate) fn next_key(&mut self, ring: RingId, generation: PlanGeneration) -> RouteKey {
        self.epoch = Epoch(self.epoch.0 + 1);
        RouteKey { ring, generation, session: self.id, epoch: self.epoch }
    }

    /// Puts the session on a ring. The frames go to its head in this order.
    pub(crate) fn open(&mut self, key: RouteKey, n_unread: u32) -> [Frame; 2] {
        let prompt = self.prompt(key, 0, n_unread);
        [Frame::Open { key, options: self.options_so_far() }, prompt]
    }

    /// The tokens from `position` on, with the first credit: at least one step, however much the client has not read.
    pub(crate) fn prompt(&mut self, key: RouteKey, position: u32, n_unread: u32) -> Frame {
        let window = self.window.saturating_sub(n_unread).max(1);
        let credit = window.min(self.options.end_position.saturating_sub(self.position()));
        self.granted_until = self.position() + credit;
        let tokens = self.tokens.get(position as usize..).unwrap_or_default().to_vec();
        Frame::Prompt(Prompt { key, position, tokens, credit })
    }

    /// Asks a ring to take over what `old` has of the positions below this one.
    pub(crate) fn resume(&self, key: RouteKey, old: RouteKey, position: u32) -> Frame {
        let (from, from_epoch) = (old.generation, old.epoch);
        Frame::Resume(Resume { key, position, options: self.options_so_far(), from, from_epoch })
    }

    /// To a ring all tokens are a prompt; penalties tell what was asked from what was answered.
    fn options_so_far(&self) -> SessionOptions {
        let (asked, answered) = self.tokens.split_at(self.n_prompt);
        let history = History::new(&self.options.sampling, asked, answered);
        SessionOptions { history, ..self.options.clone() }
    }

    /// Takes a token that the tail of its present ring sent.
    pub(crate) fn take(&mut self, token: &Token) -> Arrival {
        if self.finish.is_some() || token.position < self.position() {
            return Arrival::Ignored;
        }
        if token.position > self.position() {
            let (expected, found) = (self.position(), token.position);
            return Arrival::Wrong(format!("the ring sent position {found} where {expected} comes next"));
        }
        if token.position >= self.granted_until {
            return Arrival::Wrong(format!("the ring sampled position {} without credit for it", token.position));
        }
        self.tokens.push(token.token);
        self.n_fruitless = 0;
        // The tail says so too; a tail that forgot must not make the answer longer than what was asked for.
        let ends = self.options.end_tokens.contains(&token.token).then_some(Finish::Stop);
        let is_full = (self.position() >= self.options.end_position).then_some(Finish::Length);
        self.finish = ends.or(token.finish).or(is_full);
        Arrival::Next(self.finish)
    }

    /// The reader has all tokens but `n_unread`: more credit, where half of the window is used up.
    pub(crate) fn read(&mut self, key: RouteKey, n_unread: u32) -> Option<Frame> {
        if self.finish.is_some() {
            return None;
        }
        let target = self.options.end_position.min(self.position().saturating_sub(n_unread) + self.window);
        let steps = target.saturating_sub(self.granted_until);
        let is_due = steps >= self.window.div_ceil(2) || target == self.options.end_position;
        if steps == 0 || !is_due {
            return None;
        }
        self.granted_until = target;
        Some(Frame::Credit { key, steps })
    }

    /// The placement failed. Says whether to go on.
    pub(crate) fn fail(&mut self, max_replays: u32) -> AfterFailure {
        self.n_fruitless += 1;
        let n_fruitless = self.n_fruitless;
        match n_fruitless > max_replays {
            true => AfterFailure::GiveUp { n_fruitless: max_replays },
            false => AfterFailure::Replay { n_fruitless },
        }
    }
}

#[cfg(test)]
mod tests;
