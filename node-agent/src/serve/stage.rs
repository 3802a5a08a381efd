//! A stage's sessions: which frames it accepts, what it computes next, what it sends on. Pure: time comes in as an argument.
//!
//! A frame is taken only for this stage's ring and generation, from where such a frame can come, with the session's current
//! epoch, and in the order of positions; all else is refused with a failure that the gateway can act on.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use polyphony_protocol::activation::decode_rows;
use polyphony_protocol::frame::{Failed, FailureCode, Hidden, HiddenKind};
use polyphony_protocol::session::{History, SessionOptions};
use polyphony_protocol::{Frame, RouteKey, SessionId};

mod choice;
mod early;
mod encoder;
mod hand_over;
mod head;
mod output;
mod shape;

use super::batch::{Batch, Job, JobRows};
use super::compute::Source;
use crate::kv_cache::Slots;

pub use encoder::{EncoderJob, EncoderStep};
pub use hand_over::{Kept, Pull};
pub use shape::{EncoderShape, StageShape};

use early::Early;
use encoder::Encoded;

/// A frame to send, and which way.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Over the ring link: to the next stage; from the tail to the stage that decoding begins at.
    Next(Frame),
    /// Over the ring link to a stage that is not the next one.
    Skip { to: u32, frame: Frame },
    /// Over the host link: to the gateway.
    Host(Frame),
    /// A part of a session's KV cache is to be fetched from who holds it.
    Pull(Pull),
}

/// What a stage computes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Rows of one or several sessions, in a model without an encoder or for its decoder.
    Batch(Batch),
    Encoder(EncoderJob),
}

/// The sessions of one stage.
pub struct Stage {
    shape: StageShape,
    sessions: HashMap<SessionId, Session>,
    slots: Slots,
    /// Where decoding begins: sessions that may have tokens to run, in turn.
    turns: VecDeque<SessionId>,
    /// Other stages: hidden states in order of arrival.
    arrived: VecDeque<Job>,
    /// Other stages: whether a prompt's chunk goes before single rows, since one waited in the last step.
    is_chunks_turn: bool,
    /// Prompts that are encoded or taken in, in order of arrival.
    encoder_jobs: VecDeque<EncoderJob>,
    /// Whether one of these goes before rows that are decoded, since one waited in the last step.
    is_encoders_turn: bool,
    early: Early,
}

struct Session {
    key: RouteKey,
    slot: u32,
    /// The tail counts on in their history; no other stage keeps it.
    options: SessionOptions,
    /// Position of the next row to compute.
    next_position: u32,
    /// Positions of the encoder's output; 0 in a model without an encoder.
    n_encoded: u32,
    encoded: Encoded,
    /// Head: tokens that are not computed yet.
    pending: VecDeque<u32>,
    /// Head: tokens that may still be sampled.
    credit: u32,
    /// Head: since when a sampled token is awaited.
    awaiting: Option<Instant>,
    /// Head: where the last prompt ends; a pause waits until it is computed.
    prompt_end: u32,
    pause: Pause,
    /// It moves here, and its KV cache has not come yet.
    lacks_kv: bool,
    last_seen: Instant,
}

/// Head: whether a session is to stop at the next token boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    /// When the step in flight is done.
    Wanted,
    /// It has stopped, and the gateway knows.
    Told,
}

// === impl Stage ===

impl Stage {
    /// A stage without sessions, which will take their slots from `slots`.
    pub fn new(shape: StageShape, slots: Slots) -> Self {
        let (turns, arrived, encoder_jobs) = Default::default();
        // A session that ends leaves its place to one that begins before both are known here.
        let early = Early::new(2 * shape.capacity.n_slots, shape.capacity.n_positions);
        Self {
            shape,
            sessions: HashMap::new(),
            slots,
            turns,
            arrived,
            is_chunks_turn: false,
            encoder_jobs,
            is_encoders_turn: false,
            early,
        }
    }

    pub fn n_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Token rows that wait to be computed.
    pub fn n_queued_rows(&self) -> usize {
        let pending: usize = self.sessions.values().map(|session| session.pending.len()).sum();
        let arrived: usize = self.arrived.iter().map(Job::n_rows).sum();
        pending + arrived + self.encoder_jobs.iter().map(|job| job.n_rows).sum::<usize>()
    }

    /// The phone that this stage sends to.
    pub fn next_phone(&self) -> &str {
        &self.shape.next_phone
    }

    /// Whether a session with this key may begin here when it comes from `source`.
    pub fn takes_session(&self, key: RouteKey, source: Source) -> bool {
        source == self.source_of_sessions() && self.refuse_foreign(key).is_none()
    }

    /// Takes a frame that came from `source`.
    pub fn accept(&mut self, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        let from_host = source == Source::Host;
        let is_of_sessions = source == self.source_of_sessions();
        let comes_to_decode = is_of_sessions && self.shape.stage <= self.shape.first_decoder();
        match frame {
            Frame::Open { key, options } if is_of_sessions => self.open(key, options, now),
            Frame::Prompt(prompt) if comes_to_decode => self.prompt(prompt, now),
            Frame::Credit { key, steps } if comes_to_decode => self.credit(key, steps, now),
            Frame::Close { key } if is_of_sessions => self.close(key),
            Frame::Pause { key } if from_host && self.shape.is_head => self.pause(key, now),
            Frame::Resume(resume) if is_of_sessions => self.resume(resume, None, now),
            Frame::Hidden(hidden) if Some(source) == self.source_of(hidden.kind) => match hidden.kind {
                HiddenKind::Decoding => self.hidden(hidden, now),
                HiddenKind::Encoding | HiddenKind::Encoded => self.encoder_rows(hidden, now),
            },
            Frame::Token(token) if source == Source::Tail && self.shape.leads() => self.token(token, now),
            other => {
                tracing::warn!(kind = other.noun(), ?source, "a frame that cannot come this way was dropped");
                Vec::new()
            }
        }
    }

    /// Where sessions begin and end from.
    fn source_of_sessions(&self) -> Source {
        if self.shape.is_head { Source::Host } else { Source::Previous }
    }

    /// Where hidden states of a kind come from; `None` where none come.
    fn source_of(&self, kind: HiddenKind) -> Option<Source> {
        let stage = self.shape.stage;
        let last = self.shape.encoder.map(|encoder| encoder.stages.last);
        match kind {
            HiddenKind::Decoding => (stage > self.shape.first_decoder()).then_some(Source::Previous),
            HiddenKind::Encoding => last.filter(|last| (1..=*last).contains(&stage)).map(|_| Source::Previous),
            HiddenKind::Encoded => last.filter(|last| stage > *last).map(|last| {
                let is_next = stage == last + 1;
                if is_next { Source::Previous } else { Source::Encoder }
            }),
        }
    }

    /// A step of these sessions failed on this phone: they cannot go on here.
    pub fn fail(&mut self, keys: &[RouteKey], message: &str) -> Vec<Effect> {
        let message = format!("{} could not compute a step: {message}", self.shape.phone);
        keys.iter().flat_map(|key| self.drop_session(*key, FailureCode::Compute, &message)).collect()
    }

    /// A neighbour's link ended: no session can go on.
    pub fn peer_lost(&mut self, phone: &str, why: &str) -> Vec<Effect> {
        let message = format!("{} lost its ring link with {phone}: {why}", self.shape.phone);
        let keys: Vec<_> = self.sessions.values().map(|session| session.key).collect();
        keys.into_iter().flat_map(|key| self.drop_session(key, FailureCode::PeerGone, &message)).collect()
    }

    /// Drops sessions whose deadline is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Effect> {
        let step_deadline = self.shape.step_deadline;
        let idle_deadline = self.shape.idle_deadline;
        self.early.expire(now, idle_deadline);
        let slow = |since: Instant| now.duration_since(since) > step_deadline;
        let late: Vec<_> = self.sessions.values().filter(|s| s.awaiting.is_some_and(slow)).map(|s| s.key).collect();
        let idle: Vec<_> = self
            .sessions
            .values()
            .filter(|session| now.duration_since(session.last_seen) > idle_deadline)
            .map(|session| session.key)
            .collect();
        let message = format!(
            "no token for {step_deadline:?} after {} handed a step to {}",
            self.shape.phone, self.shape.next_phone
        );
        let mut effects: Vec<_> =
            late.into_iter().flat_map(|key| self.drop_session(key, FailureCode::PeerSlow, &message)).collect();
        let message = format!("{} heard nothing of the session for {idle_deadline:?}", self.shape.phone);
        effects.extend(idle.into_iter().flat_map(|key| self.drop_session(key, FailureCode::PeerSlow, &message)));
        effects
    }

    fn open(&mut self, key: RouteKey, options: SessionOptions, now: Instant) -> Vec<Effect> {
        if let Err(effect) = self.admit(key, &options) {
            return vec![*effect];
        }
        let Some(slot) = self.slots.take() else {
            return vec![self.busy(key)];
        };
        self.insert(key, slot, &options, now);
        let mut effects = self.pass_on(Frame::Open { key, options });
        for hidden in self.early.take(key) {
            effects.extend(self.encoder_rows(hidden, now));
        }
        effects
    }

    /// Whether a session may begin or go on here; one of an older epoch is forgotten.
    fn admit(&mut self, key: RouteKey, options: &SessionOptions) -> Result<(), Box<Effect>> {
        if let Some(effect) = self.refuse_foreign(key) {
            return Err(Box::new(effect));
        }
        if let Err(error) = options.check() {
            let message = format!("{} cannot go by the session's options: {error}", self.shape.phone);
            return Err(Box::new(failed(key, FailureCode::BadFrame, message)));
        }
        let limit = self.shape.capacity.n_positions;
        if options.end_position as usize > limit {
            let message = format!(
                "the session ends at position {}, {} has room for {limit}",
                options.end_position, self.shape.phone
            );
            return Err(Box::new(failed(key, FailureCode::BadFrame, message)));
        }
        if self.shape.encoder.is_some() && !(1..options.end_position).contains(&options.n_prompt) {
            let message = format!(
                "the prompt has {} tokens, at least one and less than the end position {} expected; update the gateway",
                options.n_prompt, options.end_position
            );
            return Err(Box::new(failed(key, FailureCode::BadFrame, message)));
        }
        if self.sessions.get(&key.session).is_some_and(|known| known.key.epoch >= key.epoch) {
            return Err(Box::new(self.stale(key)));
        }
        self.forget(key.session);
        Ok(())
    }

    fn busy(&self, key: RouteKey) -> Effect {
        let message = format!(
            "all {} session slots of {} are taken; raise maxSessions or wait",
            self.slots.len(),
            self.shape.phone
        );
        failed(key, FailureCode::Busy, message)
    }

    fn insert(&mut self, key: RouteKey, slot: u32, options: &SessionOptions, now: Instant) -> &mut Session {
        let mut kept = options.clone();
        if !self.shape.is_tail {
            kept.history = History::default();
        }
        let (n_encoded, encoded) = match self.shape.encoder {
            None => (0, Encoded::Taken),
            Some(_) => (options.n_prompt, Encoded::Arriving(Vec::new())),
        };
        let session = Session {
            key,
            slot,
            options: kept,
            next_position: n_encoded.saturating_sub(1),
            n_encoded,
            encoded,
            pending: VecDeque::new(),
            credit: 0,
            awaiting: None,
            prompt_end: 0,
            pause: Pause::No,
            lacks_kv: false,
            last_seen: now,
        };
        self.sessions.entry(key.session).insert_entry(session).into_mut()
    }

    fn close(&mut self, key: RouteKey) -> Vec<Effect> {
        self.early.forget(key);
        match self.sessions.get(&key.session) {
            Some(session) if session.key.epoch <= key.epoch => {
                self.forget(key.session);
                self.pass_on(Frame::Close { key })
            }
            _ => Vec::new(),
        }
    }

    fn hidden(&mut self, hidden: Hidden, now: Instant) -> Vec<Effect> {
        let (hidden_size, max_rows) = (self.shape.hidden_size, self.shape.capacity.max_rows);
        let n_rows = hidden.n_tokens as usize;
        let wanted_type = self.shape.activation_type;
        let session = match self.current(hidden.key, now) {
            Ok(session) => session,
            Err(effect) => return vec![*effect],
        };
        let end = hidden.position as usize + n_rows;
        let fits = hidden.position == session.next_position
            && !session.lacks_kv
            && (1..=max_rows).contains(&n_rows)
            && end <= session.options.end_position as usize
            && hidden.dtype == wanted_type;
        if !fits {
            let message = format!(
                "hidden states of {n_rows} tokens at position {} in {:?}; position {} in {wanted_type:?} expected, {max_rows} at most",
                hidden.position, hidden.dtype, session.next_position
            );
            return self.drop_session(hidden.key, FailureCode::BadFrame, &message);
        }
        let (slot, n_encoded) = (session.slot, session.n_encoded);
        session.next_position = end as u32;
        match decode_rows(hidden.dtype, hidden_size, n_rows, &hidden.payload) {
            Ok(values) => {
                let rows = JobRows::Hidden { n_rows, values };
                self.arrived.push_back(Job {
                    key: hidden.key,
                    slot,
                    position: hidden.position,
                    n_encoded,
                    rows,
                    sample: hidden.sample,
                });
                Vec::new()
            }
            Err(error) => self.drop_session(hidden.key, FailureCode::BadFrame, &error.to_string()),
        }
    }

    /// The session of a frame, if the frame is current.
    fn current(&mut self, key: RouteKey, now: Instant) -> Result<&mut Session, Box<Effect>> {
        if let Some(effect) = self.refuse_foreign(key) {
            return Err(Box::new(effect));
        }
        let stale = self.stale(key);
        let session =
            self.sessions.get_mut(&key.session).filter(|session| session.key == key).ok_or_else(|| Box::new(stale))?;
        session.last_seen = now;
        Ok(session)
    }

    fn is_current(&self, key: RouteKey) -> bool {
        self.sessions.get(&key.session).is_some_and(|session| session.key == key)
    }

    fn refuse_foreign(&self, key: RouteKey) -> Option<Effect> {
        (key.ring != self.shape.ring || key.generation != self.shape.generation).then(|| self.stale(key))
    }

    fn stale(&self, key: RouteKey) -> Effect {
        let message = format!(
            "{} holds generation {} of ring {} and not session {} in epoch {} of generation {}",
            self.shape.phone, self.shape.generation, self.shape.ring, key.session, key.epoch, key.generation
        );
        failed(key, FailureCode::StaleGeneration, message)
    }

    fn forget(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.slots.give_back(session.slot);
            self.arrived.retain(|job| job.key != session.key);
            self.encoder_jobs.retain(|job| job.key != session.key);
            self.turns.retain(|turn| *turn != id);
        }
    }

    /// Ends a session here and behind this stage, and tells the gateway why.
    fn drop_session(&mut self, key: RouteKey, code: FailureCode, message: &str) -> Vec<Effect> {
        if !self.is_current(key) {
            return Vec::new();
        }
        self.forget(key.session);
        let mut effects = vec![failed(key, code, message.to_owned())];
        effects.extend(self.pass_on(Frame::Close { key }));
        effects
    }

    fn pass_on(&self, frame: Frame) -> Vec<Effect> {
        if self.shape.is_tail { Vec::new() } else { vec![Effect::Next(frame)] }
    }
}

// === impl Session ===

impl Session {
    fn is_runnable(&self) -> bool {
        let may_go_on = self.pause == Pause::No || self.next_position < self.prompt_end;
        !self.pending.is_empty() && self.credit > 0 && may_go_on && self.may_decode()
    }

    /// Whether all that rows attend to is here.
    fn may_decode(&self) -> bool {
        self.encoded == Encoded::Taken
    }

    /// Whether it takes its share of the ring now.
    fn is_active(&self) -> bool {
        self.awaiting.is_some() || self.is_runnable()
    }
}

fn failed(key: RouteKey, code: FailureCode, message: String) -> Effect {
    Effect::Host(Frame::Failed(Failed { key, code, message }))
}

#[cfg(test)]
mod tests;
