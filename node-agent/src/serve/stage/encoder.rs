//! An encoder's share of a session, around a stage: the prompt goes through its layers once, and what comes out goes to all that decode. Pure.
//!
//! The first stage parts what the gateway sends: the prompt is the encoder's; a start token, and what was answered before a replay, are the
//! decoder's. Rows of decoding wait on each stage until the encoder's output is there. The stage within counts positions as the gateway
//! does and knows of none of this but whether a session may decode.

use std::collections::{HashMap, VecDeque};
use std::iter::once;
use std::time::Instant;

use polyphony_protocol::activation::{decode_rows, encode_rows};
use polyphony_protocol::frame::{Hidden, HiddenKind, Prompt};
use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{Frame, RouteKey, SessionId};

use super::any::Work;
use super::early::Early;
use super::reason::{ExpectedRows, Numbers, Rows};
use super::{Effect, EncoderShape, Reason, Stage};
use crate::kv_cache::Slots;
use crate::segment::Input;
use crate::serve::compute::Source;
use crate::serve::kv_transfer::PIECE_BYTES;

/// A stage of a model with an encoder.
pub struct EncoderStage {
    stage: Stage,
    shape: EncoderShape,
    prompts: HashMap<SessionId, Encoding>,
    /// Prompts that are encoded or taken in, in order of arrival.
    jobs: VecDeque<EncoderJob>,
    /// Whether one of these goes before rows that are decoded, since one waited in the last step.
    is_my_turn: bool,
    early: Early,
}

/// How far a session is with the encoder on one stage.
struct Encoding {
    key: RouteKey,
    slot: u32,
    n_prompt: u32,
    encoded: Encoded,
}

/// What is here of an encoder's output, or of what goes into its layers.
#[derive(Clone, Debug, PartialEq)]
enum Encoded {
    /// The values of the rows that have come so far.
    Arriving(Vec<f32>),
    /// All are here, and their step waits or runs. Where nothing is decoded, that is all.
    Waiting,
    /// Decoding can begin.
    Taken,
}

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

// === impl EncoderStage ===

impl EncoderStage {
    pub fn new(shape: super::StageShape, encoder: EncoderShape, slots: Slots) -> Self {
        // A session that ends leaves its place to one that begins before both are known here.
        let early = Early::new(2 * shape.capacity.n_slots, shape.capacity.n_positions);
        let (prompts, jobs) = Default::default();
        Self { stage: Stage::new(shape, slots), shape: encoder, prompts, jobs, is_my_turn: false, early }
    }

    /// The stage that decodes.
    pub fn decoding(&self) -> &Stage {
        &self.stage
    }

    /// The same, to be changed: what ends there ends here at the next call.
    pub fn decoding_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }

    /// Token rows that wait to be computed.
    pub fn n_queued_rows(&self) -> usize {
        self.stage.n_queued_rows() + self.jobs.iter().map(|job| job.n_rows).sum::<usize>()
    }

    /// Takes a frame that came from `source`.
    pub fn accept(&mut self, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        let effects = match frame {
            Frame::Open { key, options } if self.stage.takes_session(key, source) => self.open(key, options, now),
            Frame::Prompt(prompt) if source == Source::Host && self.stage.shape.is_first() => {
                self.prompt(prompt, source, now)
            }
            Frame::Hidden(hidden) if hidden.kind != HiddenKind::Decoding => {
                if Some(source) != self.source_of(hidden.kind) {
                    tracing::warn!(?source, kind = ?hidden.kind, "rows of a prompt that cannot come this way were dropped");
                    return Vec::new();
                }
                self.rows(hidden, now)
            }
            // Sessions of such models do not move with their caches.
            Frame::Resume(resume) if self.stage.takes_session(resume.key, source) => {
                vec![Effect::Fail { key: resume.key, reason: Reason::Stays }]
            }
            Frame::Pause { key } if source == Source::Host && self.stage.is_current(key) => {
                self.stage.drop_session(key, Reason::Stays)
            }
            Frame::Close { key } => {
                self.early.forget(key);
                self.stage.accept(Frame::Close { key }, source, now)
            }
            frame => self.stage.accept(frame, source, now),
        };
        self.sweep();
        effects
    }

    /// The next step; `None` when nothing is ready. Prompts that are encoded and rows that are decoded go first in turn.
    pub fn next_work(&mut self, now: Instant) -> Option<Work> {
        self.sweep();
        if self.is_my_turn
            && let Some(job) = self.jobs.pop_front()
        {
            self.is_my_turn = false;
            return Some(Work::Encoder(job));
        }
        let prompts = &self.prompts;
        let Some(mut batch) = self.stage.next_batch(&|id| may_decode(prompts, id), now) else {
            return self.jobs.pop_front().map(Work::Encoder);
        };
        self.is_my_turn = !self.jobs.is_empty();
        // A decoder counts from its start token, which stands where the prompt's last one does.
        let by_slot: HashMap<u32, u32> = prompts.values().map(|it| (it.slot, it.n_prompt)).collect();
        let n_encoded: Vec<u32> =
            batch.step.rows.iter().map(|row| by_slot.get(&row.slot).copied().unwrap_or_default()).collect();
        for (row, n_encoded) in batch.step.rows.iter_mut().zip(&n_encoded) {
            row.position = row.position.saturating_sub(n_encoded.saturating_sub(1));
        }
        Some(Work::Decode { batch, n_encoded })
    }

    /// Whether a step can be run now.
    pub fn has_work(&self) -> bool {
        let waits = self.jobs.iter().any(|job| self.stage.is_current(job.key));
        waits || self.stage.has_work(&|id| may_decode(&self.prompts, id))
    }

    /// When [`EncoderStage::handle_timeout`] has something to do, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let early = self.early.oldest().map(|since| since + self.stage.shape.idle_deadline);
        self.stage.poll_timeout().into_iter().chain(early).min()
    }

    /// Drops what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        self.early.expire(now, self.stage.shape.idle_deadline);
        self.stage.handle_timeout(now)
    }

    /// The encoder's layers here are done with a prompt: on to the next ones, or after the last to all that decode.
    pub fn encoded(&mut self, key: RouteKey, values: Vec<f32>) -> Vec<Effect> {
        if !self.stage.is_current(key) {
            return Vec::new();
        }
        let is_end = self.stage.shape.stage == self.shape.stages.last;
        if !values.iter().all(|value| value.is_finite()) {
            let of = if is_end { Numbers::EncoderOutput } else { Numbers::HiddenStates };
            return self.stage.drop_session(key, self.stage.non_finite(of));
        }
        if !is_end {
            return self.pieces(key, HiddenKind::Encoding, &values).into_iter().map(Effect::Next).collect();
        }
        let mut effects = Vec::new();
        let (is_last, skips) = (self.stage.shape.is_last(), self.stage.shape.skips());
        if !is_last || !skips.is_empty() {
            let pieces = self.pieces(key, HiddenKind::Encoded, &values);
            if !is_last {
                effects.extend(pieces.iter().cloned().map(Effect::Next));
            }
            for to in skips {
                effects.extend(pieces.iter().cloned().map(|frame| Effect::Skip { to, frame }));
            }
        }
        if self.stage.shape.stage >= self.shape.stages.first_decoder
            && let Some(it) = self.prompts.get(&key.session)
        {
            let n_rows = values.len() / self.stage.shape.hidden_size.max(1);
            let step = EncoderStep::TakeEncoded(values);
            self.jobs.push_front(EncoderJob { key, slot: it.slot, n_rows, step });
        }
        effects
    }

    /// The decoder's layers here have the encoder's output: rows of the session may be computed.
    pub fn taken(&mut self, key: RouteKey) {
        let Some(it) = self.prompts.get_mut(&key.session).filter(|it| it.key == key) else { return };
        it.encoded = Encoded::Taken;
        if let Some(head) = self.stage.role.head() {
            head.take_turn(key.session);
        }
    }

    fn open(&mut self, key: RouteKey, options: SessionOptions, now: Instant) -> Vec<Effect> {
        let (n_prompt, end_position) = (options.n_prompt, options.end_position);
        if !(1..end_position).contains(&n_prompt) {
            return vec![Effect::Fail { key, reason: Reason::UntoldPrompt { n_prompt, end_position } }];
        }
        let mut effects = self.stage.open(key, options, n_prompt - 1, now);
        let Some(session) = self.stage.sessions.get(&key.session).filter(|session| session.key == key) else {
            return effects;
        };
        let encoded = Encoded::Arriving(Vec::new());
        self.prompts.insert(key.session, Encoding { key, slot: session.slot, n_prompt, encoded });
        for hidden in self.early.take(key) {
            effects.extend(self.rows(hidden, now));
        }
        effects
    }

    /// Parts what the gateway sent in two: for the encoder, which begins here, and for the decoder.
    fn prompt(&mut self, prompt: Prompt, source: Source, now: Instant) -> Vec<Effect> {
        let Prompt { key, position, mut tokens, credit } = prompt;
        let end_position = match self.stage.current(key, now) {
            Ok(session) => session.end_position,
            Err(reason) => return vec![Effect::Fail { key, reason }],
        };
        let Some(it) = self.prompts.get_mut(&key.session) else { return Vec::new() };
        let (n_prompt, n_tokens) = (it.n_prompt as usize, tokens.len());
        let is_first = matches!(it.encoded, Encoded::Arriving(_)) && position == 0;
        if !is_first || n_tokens < n_prompt || n_tokens >= end_position as usize {
            let reason = Reason::PartOfPrompt { n_tokens, position, n_prompt, end_position };
            return self.stage.drop_session(key, reason);
        }
        let n_rows = self.stage.shape.vocab_size;
        if let Some(&token) = tokens[..n_prompt].iter().find(|token| **token >= n_rows) {
            return self.stage.drop_session(key, Reason::UnknownToken { token, n_rows });
        }
        it.encoded = Encoded::Waiting;
        let answered = tokens.split_off(n_prompt);
        let step = EncoderStep::Encode(Input::Tokens(tokens));
        self.jobs.push_back(EncoderJob { key, slot: it.slot, n_rows: n_prompt, step });
        // The start token stands where the prompt's last one does: what follows has the positions that the gateway counts.
        let tokens = once(self.shape.start_token).chain(answered).collect();
        let prompt = Prompt { key, position: n_prompt as u32 - 1, tokens, credit };
        self.stage.accept(Frame::Prompt(prompt), source, now)
    }

    /// Takes rows of a prompt that is encoded or is to be; when all have come, their step can be run.
    fn rows(&mut self, hidden: Hidden, now: Instant) -> Vec<Effect> {
        let (hidden_size, wanted) = (self.stage.shape.hidden_size, self.stage.shape.activation_type);
        let (key, dtype, n_rows) = (hidden.key, hidden.dtype, hidden.n_tokens as usize);
        let is_known = self.stage.sessions.get(&key.session).is_some_and(|session| session.key.epoch >= key.epoch);
        if !is_known && hidden.kind == HiddenKind::Encoded && self.stage.is_mine(key) {
            let expected = n_rows.checked_mul(wanted.row_bytes(hidden_size));
            if dtype == wanted && expected == Some(hidden.payload.len()) {
                self.early.keep(hidden, now);
            }
            return Vec::new();
        }
        if let Err(reason) = self.stage.current(key, now) {
            return vec![Effect::Fail { key, reason }];
        }
        let Some(it) = self.prompts.get_mut(&key.session).filter(|it| it.key == key) else { return Vec::new() };
        let n_prompt = it.n_prompt as usize;
        let n_before = match &it.encoded {
            Encoded::Arriving(values) => values.len() / hidden_size.max(1),
            Encoded::Waiting | Encoded::Taken => n_prompt,
        };
        let position = hidden.position;
        if position as usize != n_before || n_rows == 0 || n_before + n_rows > n_prompt || dtype != wanted {
            let expected = ExpectedRows { position: n_before as u32, max_rows: n_prompt - n_before, dtype: wanted };
            let reason = Reason::Rows { found: Rows { position, n_rows, dtype }, expected };
            return self.stage.drop_session(key, reason);
        }
        let rows = match decode_rows(dtype, hidden_size, n_rows, &hidden.payload) {
            Ok(rows) => rows,
            Err(error) => return self.stage.drop_session(key, Reason::Payload(error)),
        };
        let Encoded::Arriving(values) = &mut it.encoded else { return Vec::new() };
        values.extend(rows);
        if n_before + n_rows == n_prompt {
            let values = std::mem::take(values);
            it.encoded = Encoded::Waiting;
            let step = match hidden.kind {
                HiddenKind::Encoded => EncoderStep::TakeEncoded(values),
                HiddenKind::Encoding | HiddenKind::Decoding => EncoderStep::Encode(Input::Hidden(values)),
            };
            self.jobs.push_back(EncoderJob { key, slot: it.slot, n_rows: n_prompt, step });
        }
        Vec::new()
    }

    /// Where rows of a prompt come from; `None` where none come.
    fn source_of(&self, kind: HiddenKind) -> Option<Source> {
        let (stage, last) = (self.stage.shape.stage, self.shape.stages.last);
        match kind {
            HiddenKind::Decoding => None,
            HiddenKind::Encoding => (1..=last).contains(&stage).then_some(Source::Previous),
            HiddenKind::Encoded if stage == last + 1 => Some(Source::Previous),
            HiddenKind::Encoded => (stage > last).then_some(Source::Encoder),
        }
    }

    /// Forgets the prompts of sessions that have ended.
    fn sweep(&mut self) {
        let stage = &self.stage;
        self.prompts.retain(|_, it| stage.is_current(it.key));
        self.jobs.retain(|job| stage.is_current(job.key));
    }

    /// Rows as frames, of which none is so long that others wait for it.
    fn pieces(&self, key: RouteKey, kind: HiddenKind, values: &[f32]) -> Vec<Frame> {
        let (dtype, width) = (self.stage.shape.activation_type, self.stage.shape.hidden_size.max(1));
        let per_frame = (PIECE_BYTES / dtype.row_bytes(width).max(1)).max(1);
        let piece = |(index, rows): (usize, &[f32])| {
            let (position, n_tokens) = ((index * per_frame) as u32, (rows.len() / width) as u32);
            let payload = encode_rows(dtype, width, rows);
            Frame::Hidden(Hidden { key, position, n_tokens, dtype, kind, sample: false, payload })
        };
        values.chunks(per_frame * width).enumerate().map(piece).collect()
    }
}

/// Whether all that rows of the session attend to is here.
fn may_decode(prompts: &HashMap<SessionId, Encoding>, id: SessionId) -> bool {
    prompts.get(&id).is_some_and(|it| it.encoded == Encoded::Taken)
}
