//! The output of a step as frames: hidden states for the next stage; on the tail the tokens that are drawn, and acknowledgements. Pure.

use std::time::Instant;

use polyphony_protocol::Frame;
use polyphony_protocol::activation::encode_rows;
use polyphony_protocol::frame::{Hidden, HiddenKind, Token};

use super::role::Role;
use super::{Effect, Numbers, Reason, Stage};
use crate::segment::Output;
use crate::serve::batch::Part;

// === impl Stage ===

impl Stage {
    /// Turns a step's output into frames.
    pub fn complete(&mut self, parts: &[Part], output: &Output, now: Instant) -> Vec<Effect> {
        match (output, self.role.is_tail()) {
            (Output::Hidden(values), false) => self.send_hidden(parts, values),
            (Output::Logits(logits), true) => self.send_tokens(parts, logits, now),
            (Output::Hidden(_) | Output::Logits(_), is_tail) => {
                let error = match is_tail {
                    true => "the ring's last stage was planned without an output matrix",
                    false => "a stage that is not the last was planned with an output matrix",
                };
                let keys: Vec<_> = parts.iter().map(|part| part.key).collect();
                self.fail(&keys, error)
            }
        }
    }

    fn send_hidden(&mut self, parts: &[Part], values: &[f32]) -> Vec<Effect> {
        let mut rest = values;
        let mut effects = Vec::new();
        for part in parts {
            let (mine, others) = rest.split_at((part.n_rows * self.shape.hidden_size).min(rest.len()));
            rest = others;
            if !self.is_current(part.key) {
                continue;
            }
            if !mine.iter().all(|value| value.is_finite()) {
                effects.extend(self.drop_session(part.key, self.non_finite(Numbers::HiddenStates)));
                continue;
            }
            let dtype = self.shape.activation_type;
            effects.push(Effect::Next(Frame::Hidden(Hidden {
                key: part.key,
                position: part.position,
                n_tokens: part.n_rows as u32,
                dtype,
                kind: HiddenKind::Decoding,
                sample: part.sample,
                payload: encode_rows(dtype, self.shape.hidden_size, mine),
            })));
        }
        effects
    }

    /// Tokens for the sampling parts, acknowledgements for the others.
    fn send_tokens(&mut self, parts: &[Part], logits: &[f32], now: Instant) -> Vec<Effect> {
        let n_logits = parts.iter().filter(|part| part.sample).count();
        let vocab_size = logits.len().checked_div(n_logits).unwrap_or(0);
        let mut rows = logits.chunks_exact(vocab_size.max(1));
        let mut effects = Vec::new();
        for part in parts {
            let row = if part.sample { rows.next() } else { None };
            if !self.is_current(part.key) {
                continue;
            }
            let token = match (row, self.role.draws()) {
                (Some(logits), Some(draws)) => draws.draw(part, logits),
                _ => {
                    effects.extend(self.acknowledge(part, now));
                    continue;
                }
            };
            match token {
                Ok(Some(token)) => effects.extend(self.send_token(token, now)),
                Ok(None) => {}
                Err(_) => effects.extend(self.drop_session(part.key, self.non_finite(Numbers::Logits))),
            }
        }
        effects
    }

    fn send_token(&mut self, token: Token, now: Instant) -> Vec<Effect> {
        let mut effects = vec![Effect::Host(Frame::Token(token.clone()))];
        match self.role {
            Role::Alone(_) => effects.extend(self.token(&token, now)),
            _ => effects.push(Effect::Next(Frame::Token(Token { top: Vec::new(), ..token }))),
        }
        effects
    }

    fn acknowledge(&mut self, part: &Part, now: Instant) -> Vec<Effect> {
        let (key, position) = (part.key, part.end());
        match self.role {
            Role::Alone(_) => self.acknowledged(key, position, now),
            _ => vec![Effect::Next(Frame::Ack { key, position })],
        }
    }

    pub(super) fn non_finite(&self, of: Numbers) -> Reason {
        Reason::NonFinite { layers: self.shape.layers, of }
    }
}
