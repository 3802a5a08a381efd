//! The head of decoding: what the gateway sends of a session, and the tokens that the tail draws, become rows to compute. Pure.
//!
//! That is the ring's first stage, or the first with layers of the decoder where the model has an encoder; stages before it pass on.

use std::time::Instant;

use polyphony_protocol::frame::{FailureCode, Prompt, Token};
use polyphony_protocol::{Frame, RouteKey, SessionId};

use super::{Effect, Stage};

impl Stage {
    pub(super) fn prompt(&mut self, prompt: Prompt, now: Instant) -> Vec<Effect> {
        match self.shape.encoder {
            Some(encoder) if self.shape.is_head => self.prompt_to_encode(prompt, encoder.start_token, now),
            _ => self.prompt_to_decode(prompt, now),
        }
    }

    /// Takes tokens to decode; before the stage that decoding begins at they are passed on.
    pub(super) fn prompt_to_decode(&mut self, prompt: Prompt, now: Instant) -> Vec<Effect> {
        let leads = self.shape.leads();
        let session = match self.current(prompt.key, now) {
            Ok(session) => session,
            Err(effect) => return vec![*effect],
        };
        if !leads {
            return self.pass_on(Frame::Prompt(prompt));
        }
        let expected = session.next_position as usize + session.pending.len();
        let end = prompt.position as usize + prompt.tokens.len();
        if prompt.position as usize != expected
            || session.lacks_kv
            || prompt.tokens.is_empty()
            || end >= session.options.end_position as usize
        {
            let message = format!(
                "prompt of {} tokens at position {}, {expected} expected and less than {} in all",
                prompt.tokens.len(),
                prompt.position,
                session.options.end_position
            );
            return self.drop_session(prompt.key, FailureCode::BadFrame, &message);
        }
        session.pending.extend(prompt.tokens);
        session.prompt_end = end as u32;
        session.credit = session.credit.saturating_add(prompt.credit);
        self.turns.push_back(prompt.key.session);
        Vec::new()
    }

    pub(super) fn credit(&mut self, key: RouteKey, steps: u32, now: Instant) -> Vec<Effect> {
        // A session that ended while the credit was on its way is no failure.
        let leads = self.shape.leads();
        if let Ok(session) = self.current(key, now) {
            if !leads {
                return self.pass_on(Frame::Credit { key, steps });
            }
            session.credit = session.credit.saturating_add(steps);
            self.take_turn(key.session);
        }
        Vec::new()
    }

    pub(super) fn token(&mut self, token: Token, now: Instant) -> Vec<Effect> {
        // A token of a session that was closed meanwhile is surplus, not a failure.
        let Ok(session) = self.current(token.key, now) else { return Vec::new() };
        if token.position as usize != session.next_position as usize + session.pending.len() {
            let message = format!("token at position {}, {} expected", token.position, session.next_position);
            return self.drop_session(token.key, FailureCode::BadFrame, &message);
        }
        session.awaiting = None;
        if token.finish.is_none() {
            session.pending.push_back(token.token);
            self.take_turn(token.key.session);
        }
        self.tell_pause(token.key)
    }

    pub(super) fn take_turn(&mut self, id: SessionId) {
        if !self.turns.contains(&id) {
            self.turns.push_back(id);
        }
    }
}
