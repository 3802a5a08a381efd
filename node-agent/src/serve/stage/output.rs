//! The output of a step as frames: hidden states for the next stage, or the tokens that the tail draws. Pure.

use std::time::Instant;

use polyphony_protocol::Frame;
use polyphony_protocol::activation::encode_rows;
use polyphony_protocol::frame::{Finish, Hidden, HiddenKind, Token};

use super::{Batch, Effect, Stage};
use crate::sample;
use crate::segment::Output;

impl Stage {
    /// Turns a step's output into frames.
    pub fn complete(&mut self, batch: Batch, output: Output, now: Instant) -> Vec<Effect> {
        match output {
            Output::Hidden(values) => self.send_hidden(&batch, &values),
            Output::Logits(logits) => self.send_tokens(&batch, &logits, now),
        }
    }

    fn send_hidden(&mut self, batch: &Batch, values: &[f32]) -> Vec<Effect> {
        let mut rest = values;
        let mut effects = Vec::new();
        for job in &batch.jobs {
            let (mine, others) = rest.split_at((job.n_rows() * self.shape.hidden_size).min(rest.len()));
            rest = others;
            if self.is_current(job.key) {
                effects.push(Effect::Next(Frame::Hidden(Hidden {
                    key: job.key,
                    position: job.position,
                    n_tokens: job.n_rows() as u32,
                    dtype: self.shape.activation_type,
                    kind: HiddenKind::Decoding,
                    sample: job.sample,
                    payload: encode_rows(self.shape.activation_type, self.shape.hidden_size, mine),
                })));
            }
        }
        effects
    }

    fn send_tokens(&mut self, batch: &Batch, logits: &[f32], now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let vocab_size = logits.len().checked_div(batch.n_logits).unwrap_or(0);
        let rows = logits.chunks_exact(vocab_size.max(1));
        for (job, logits) in batch.jobs.iter().filter(|job| job.sample).zip(rows) {
            let Some(session) = self.sessions.get_mut(&job.key.session).filter(|session| session.key == job.key) else {
                continue;
            };
            let position = job.position + job.n_rows() as u32;
            let options = &mut session.options;
            let drawn = sample::draw(logits, options, position);
            if options.sampling.minds_output() {
                options.history.push(drawn.token);
            }
            let finish = if options.end_tokens.contains(&drawn.token) {
                Some(Finish::Stop)
            } else if position + 1 >= options.end_position {
                Some(Finish::Length)
            } else {
                None
            };
            let token =
                Token { key: job.key, position, token: drawn.token, finish, logprob: drawn.logprob, top: drawn.top };
            effects.push(Effect::Host(Frame::Token(token.clone())));
            if self.shape.leads() {
                effects.extend(self.token(token, now));
            } else {
                effects.push(Effect::Next(Frame::Token(Token { top: Vec::new(), ..token })));
            }
        }
        effects
    }
}
