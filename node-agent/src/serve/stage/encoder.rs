//! An encoder's share of a session: the prompt goes through its layers once, and what comes out goes to all that decode. Pure.
//!
//! The first stage parts what the gateway sends: the prompt is the encoder's; a start token, and what was answered before a replay, are the
//! decoder's. Rows of decoding wait on each stage until the encoder's output is there.

use std::iter::once;
use std::time::Instant;

use polyphony_protocol::activation::{decode_rows, encode_rows};
use polyphony_protocol::frame::{FailureCode, Hidden, HiddenKind, Prompt};
use polyphony_protocol::{Frame, RouteKey};

use super::{Effect, Stage};
use crate::segment::Input;
use crate::serve::kv_transfer::PIECE_BYTES;

/// A step of one session that decodes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderJob {
    pub key: RouteKey,
    pub slot: u32,
    /// Tokens of the prompt.
    pub n_rows: usize,
    pub step: EncoderStep,
}

/// What such a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum EncoderStep {
    /// Takes all positions of the prompt through the encoder's layers here.
    Encode(Input),
    /// Makes the keys and values that the decoder's layers here attend to: `n_rows × hidden_size` values.
    TakeEncoded(Vec<f32>),
}

/// How far a session is with the encoder on one stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Encoded {
    /// The values of the rows that have come so far.
    Arriving(Vec<f32>),
    /// All are here, and their step waits or runs. Where nothing is decoded, that is all.
    Waiting,
    /// Decoding can begin; without an encoder it always can.
    Taken,
}

// === impl Stage ===

impl Stage {
    /// Parts what the gateway sent in two: for the encoder, which begins here, and for the decoder.
    pub(super) fn prompt_to_encode(&mut self, prompt: Prompt, start_token: u32, now: Instant) -> Vec<Effect> {
        let Prompt { key, position, mut tokens, credit } = prompt;
        let session = match self.current(key, now) {
            Ok(session) => session,
            Err(effect) => return vec![*effect],
        };
        let (n_prompt, n_tokens) = (session.options.n_prompt as usize, tokens.len());
        let is_first = matches!(session.encoded, Encoded::Arriving(_)) && position == 0;
        if !is_first || n_tokens < n_prompt || n_tokens >= session.options.end_position as usize {
            let message = format!(
                "prompt of {n_tokens} tokens at position {position}; a prompt is read once as a whole, {n_prompt} tokens at least and less than {} expected",
                session.options.end_position
            );
            return self.drop_session(key, FailureCode::BadFrame, &message);
        }
        session.encoded = Encoded::Waiting;
        let slot = session.slot;
        let answered = tokens.split_off(n_prompt);
        let step = EncoderStep::Encode(Input::Tokens(tokens));
        self.encoder_jobs.push_back(EncoderJob { key, slot, n_rows: n_prompt, step });
        // The start token stands where the prompt's last one does: what follows has the positions that the gateway counts.
        let tokens = once(start_token).chain(answered).collect();
        self.prompt_to_decode(Prompt { key, position: n_prompt as u32 - 1, tokens, credit }, now)
    }

    /// Takes rows of a prompt that is encoded or is to be; when all have come, their step can be run.
    pub(super) fn encoder_rows(&mut self, hidden: Hidden, now: Instant) -> Vec<Effect> {
        let (hidden_size, wanted_type) = (self.shape.hidden_size, self.shape.activation_type);
        let (key, n_rows) = (hidden.key, hidden.n_tokens as usize);
        let is_known = self.sessions.get(&key.session).is_some_and(|session| session.key.epoch >= key.epoch);
        if !is_known && hidden.kind == HiddenKind::Encoded && self.refuse_foreign(key).is_none() {
            let expected = n_rows.checked_mul(wanted_type.row_bytes(hidden_size));
            if hidden.dtype == wanted_type && expected == Some(hidden.payload.len()) {
                self.early.keep(hidden, now);
            }
            return Vec::new();
        }
        let session = match self.current(key, now) {
            Ok(session) => session,
            Err(effect) => return vec![*effect],
        };
        let (slot, n_prompt) = (session.slot, session.options.n_prompt as usize);
        let n_before = match &session.encoded {
            Encoded::Arriving(values) => values.len() / hidden_size.max(1),
            _ => n_prompt,
        };
        if hidden.position as usize != n_before
            || n_rows == 0
            || n_before + n_rows > n_prompt
            || hidden.dtype != wanted_type
        {
            let message = format!(
                "{n_rows} rows of a prompt at position {} in {:?}; position {n_before} of {n_prompt} in {wanted_type:?} expected",
                hidden.position, hidden.dtype
            );
            return self.drop_session(key, FailureCode::BadFrame, &message);
        }
        let rows = match decode_rows(hidden.dtype, hidden_size, n_rows, &hidden.payload) {
            Ok(rows) => rows,
            Err(error) => return self.drop_session(key, FailureCode::BadFrame, &error.to_string()),
        };
        let Encoded::Arriving(values) = &mut session.encoded else { return Vec::new() };
        values.extend(rows);
        if n_before + n_rows == n_prompt {
            let values = std::mem::take(values);
            session.encoded = Encoded::Waiting;
            let step = match hidden.kind {
                HiddenKind::Encoded => EncoderStep::TakeEncoded(values),
                HiddenKind::Encoding | HiddenKind::Decoding => EncoderStep::Encode(Input::Hidden(values)),
            };
            self.encoder_jobs.push_back(EncoderJob { key, slot, n_rows: n_prompt, step });
        }
        Vec::new()
    }

    /// The encoder's layers here are done with a prompt: on to the next ones, or after the last to all that decode.
    pub fn encoded(&mut self, (key, slot): (RouteKey, u32), values: Vec<f32>) -> Vec<Effect> {
        let Some(encoder) = self.shape.encoder.filter(|_| self.is_current(key)) else { return Vec::new() };
        if self.shape.stage != encoder.stages.last {
            return self.pieces(key, HiddenKind::Encoding, &values).into_iter().map(Effect::Next).collect();
        }
        let mut effects = Vec::new();
        if !self.shape.is_tail || !self.shape.skips().is_empty() {
            let pieces = self.pieces(key, HiddenKind::Encoded, &values);
            if !self.shape.is_tail {
                effects.extend(pieces.iter().cloned().map(Effect::Next));
            }
            for to in self.shape.skips() {
                effects.extend(pieces.iter().cloned().map(|frame| Effect::Skip { to, frame }));
            }
        }
        if self.shape.decodes() {
            let n_rows = values.len() / self.shape.hidden_size.max(1);
            self.encoder_jobs.push_front(EncoderJob { key, slot, n_rows, step: EncoderStep::TakeEncoded(values) });
        }
        effects
    }

    /// The decoder's layers here have the encoder's output: rows of the session may be computed.
    pub fn taken(&mut self, key: RouteKey) {
        let Some(session) = self.sessions.get_mut(&key.session).filter(|session| session.key == key) else { return };
        session.encoded = Encoded::Taken;
        if self.shape.leads() {
            self.take_turn(key.session);
        }
    }

    /// Rows as frames, of which none is so long that others wait for it.
    fn pieces(&self, key: RouteKey, kind: HiddenKind, values: &[f32]) -> Vec<Frame> {
        let (dtype, width) = (self.shape.activation_type, self.shape.hidden_size.max(1));
        let per_frame = (PIECE_BYTES / dtype.row_bytes(width).max(1)).max(1);
        let piece = |(index, rows): (usize, &[f32])| {
            let (position, n_tokens) = ((index * per_frame) as u32, (rows.len() / width) as u32);
            let payload = encode_rows(dtype, width, rows);
            Frame::Hidden(Hidden { key, position, n_tokens, dtype, kind, sample: false, payload })
        };
        values.chunks(per_frame * width).enumerate().map(piece).collect()
    }
}
