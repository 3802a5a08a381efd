//! A stage's sessions: which frames it accepts, what it computes next, what it sends on. Pure: time comes in as an argument, and the next
//! deadline goes out.
//!
//! A frame is taken only for this stage's ring and generation, from where such a frame can come, with the session's current
//! epoch, and in the order of positions; all else is refused with a reason that the gateway can act on. What only a head, a middle or a tail
//! does lies in its role; what an encoder adds lies around it.

use std::collections::HashMap;
use std::time::Instant;

use polyphony_protocol::activation::decode_rows;
use polyphony_protocol::frame::{Hidden, HiddenKind, Token};
use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{Frame, RouteKey, SessionId};

mod any;
mod arrivals;
mod draws;
mod early;
mod encoder;
mod ends;
mod hand_over;
mod head;
mod output;
mod reason;
mod role;
mod shape;
mod window;

use super::batch::{Batch, Job, JobRows};
use super::compute::Source;
use crate::kv_cache::Slots;

pub use any::{AnyStage, Work};
pub use encoder::{EncoderJob, EncoderStage, EncoderStep};
pub use hand_over::{Kept, Pull};
pub use reason::{Numbers, Reason};
pub use shape::{EncoderShape, StageShape};

use reason::{ExpectedRows, Rows};
use role::{Alone, Role};

/// A frame to send, and which way; or what else a stage wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Over the ring link: to the next stage; from the tail to the stage that decoding begins at.
    Next(Frame),
    /// Over the ring link to a stage that is not the next one.
    Skip { to: u32, frame: Frame },
    /// Over the host link: to the gateway.
    Host(Frame),
    /// The gateway is told that a session cannot go on here.
    Fail { key: RouteKey, reason: Reason },
    /// A part of a session's KV cache is to be fetched from who holds it.
    Pull(Pull),
}

/// The sessions of one stage.
pub struct Stage {
    shape: StageShape,
    sessions: HashMap<SessionId, Session>,
    slots: Slots,
    role: Role,
}

/// What every stage knows of a session.
struct Session {
    key: RouteKey,
    slot: u32,
    /// The position after the last one that may be sampled.
    end_position: u32,
    /// Position of the next row to compute.
    next_position: u32,
    /// It moves here, and its KV cache has not come yet.
    lacks_kv: bool,
    last_seen: Instant,
}

// === impl Stage ===

impl Stage {
    /// A stage without sessions, which will take their slots from `slots`.
    pub fn new(shape: StageShape, slots: Slots) -> Self {
        let role = Role::of(&shape);
        Self { shape, sessions: HashMap::new(), slots, role }
    }

    pub fn shape(&self) -> &StageShape {
        &self.shape
    }

    pub fn n_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Token rows that wait to be computed.
    pub fn n_queued_rows(&self) -> usize {
        self.role.n_queued_rows()
    }

    /// Whether a session with this key may begin here when it comes from `source`.
    pub fn takes_session(&self, key: RouteKey, source: Source) -> bool {
        source == self.source_of_sessions() && self.is_mine(key)
    }

    /// Takes a frame that came from `source`.
    pub fn accept(&mut self, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        let is_of_sessions = source == self.source_of_sessions();
        let from_tail = source == Source::Tail;
        match (frame, &self.role) {
            (Frame::Open { key, options }, _) if is_of_sessions => self.open(key, options, 0, now),
            (Frame::Close { key }, _) if is_of_sessions => self.close(key),
            (Frame::Resume(resume), _) if is_of_sessions => self.resume(resume, None, now),
            (Frame::Prompt(prompt), Role::Relay) if is_of_sessions => {
                self.relay(prompt.key, Frame::Prompt(prompt), now)
            }
            (Frame::Credit { key, steps }, Role::Relay) if is_of_sessions => {
                let effects = self.relay(key, Frame::Credit { key, steps }, now);
                // A session that ended while the credit was on its way is no failure.
                effects.into_iter().filter(|effect| matches!(effect, Effect::Next(_))).collect()
            }
            (Frame::Prompt(prompt), Role::Head(_) | Role::Alone(_)) if is_of_sessions => {
                self.with_head(prompt.key, now, |head, session| head.prompt(session, prompt))
            }
            (Frame::Credit { key, steps }, Role::Head(_) | Role::Alone(_)) if is_of_sessions => {
                if self.current(key, now).is_ok()
                    && let Some(head) = self.role.head()
                {
                    head.credit(key.session, steps);
                }
                Vec::new()
            }
            (Frame::Pause { key }, Role::Head(_) | Role::Alone(_)) if source == Source::Host => self.pause(key, now),
            (Frame::Token(token), Role::Head(_)) if from_tail => self.token(&token, now),
            (Frame::Ack { key, position }, Role::Head(_)) if from_tail => self.acknowledged(key, position, now),
            (Frame::Hidden(hidden), Role::Middle(_) | Role::Tail(_))
                if source == Source::Previous && hidden.kind == HiddenKind::Decoding =>
            {
                self.hidden(hidden, now)
            }
            (other, _) => {
                tracing::warn!(kind = other.noun(), ?source, "a frame that cannot come this way was dropped");
                Vec::new()
            }
        }
    }

    /// The rows of the next step, of those sessions that may decode; `None` when none are ready.
    pub fn next_batch(&mut self, may_decode: &dyn Fn(SessionId) -> bool, now: Instant) -> Option<Batch> {
        let jobs = match &mut self.role {
            Role::Relay => Vec::new(),
            Role::Head(head) | Role::Alone(Alone { head, .. }) => head.next_jobs(&mut self.sessions, may_decode, now),
            Role::Middle(arrivals) | Role::Tail(role::Tail { arrivals, .. }) => arrivals.next_jobs(may_decode),
        };
        (!jobs.is_empty()).then(|| Batch::new(jobs, self.role.is_tail(), self.shape.hidden_size))
    }

    /// Whether a step can be run now.
    pub fn has_work(&self, may_decode: &dyn Fn(SessionId) -> bool) -> bool {
        match &self.role {
            Role::Relay => false,
            Role::Head(head) | Role::Alone(Alone { head, .. }) => head.has_work(&self.sessions, may_decode),
            Role::Middle(arrivals) | Role::Tail(role::Tail { arrivals, .. }) => arrivals.has_work(may_decode),
        }
    }

    /// Where sessions begin and end from.
    fn source_of_sessions(&self) -> Source {
        if self.shape.is_first() { Source::Host } else { Source::Previous }
    }

    /// Begins a session whose first row to compute is at `first_position`.
    fn open(&mut self, key: RouteKey, options: SessionOptions, first_position: u32, now: Instant) -> Vec<Effect> {
        if let Err(reason) = self.admit(key, &options) {
            return vec![Effect::Fail { key, reason }];
        }
        let Some(slot) = self.slots.take() else {
            return vec![self.busy(key)];
        };
        self.insert(key, slot, &options, first_position, now);
        self.pass_on(Frame::Open { key, options })
    }

    /// Whether a session may begin or go on here; one of an older epoch is forgotten.
    fn admit(&mut self, key: RouteKey, options: &SessionOptions) -> Result<(), Reason> {
        if !self.is_mine(key) {
            return Err(self.stale());
        }
        options.check().map_err(Reason::Options)?;
        let (end_position, limit) = (options.end_position, self.shape.capacity.n_positions);
        if end_position as usize > limit {
            return Err(Reason::EndPosition { end_position, limit });
        }
        if self.sessions.get(&key.session).is_some_and(|known| known.key.epoch >= key.epoch) {
            return Err(self.stale());
        }
        self.forget(key.session);
        Ok(())
    }

    fn busy(&self, key: RouteKey) -> Effect {
        Effect::Fail { key, reason: Reason::Busy { n_slots: self.slots.len() } }
    }

    fn insert(&mut self, key: RouteKey, slot: u32, options: &SessionOptions, next_position: u32, now: Instant) {
        let end_position = options.end_position;
        let session = Session { key, slot, end_position, next_position, lacks_kv: false, last_seen: now };
        self.sessions.insert(key.session, session);
        self.role.begin(key, options);
    }

    /// Ends a session here and behind this stage, where it may still be when it is not here any more.
    fn close(&mut self, key: RouteKey) -> Vec<Effect> {
        if !self.is_mine(key) {
            return Vec::new();
        }
        if self.sessions.get(&key.session).is_some_and(|session| session.key.epoch <= key.epoch) {
            self.forget(key.session);
        }
        self.pass_on(Frame::Close { key })
    }

    fn relay(&mut self, key: RouteKey, frame: Frame, now: Instant) -> Vec<Effect> {
        match self.current(key, now) {
            Ok(_) => self.pass_on(frame),
            Err(reason) => vec![Effect::Fail { key, reason }],
        }
    }

    fn hidden(&mut self, hidden: Hidden, now: Instant) -> Vec<Effect> {
        let (hidden_size, max_rows) = (self.shape.hidden_size, self.shape.capacity.max_rows);
        let Hidden { key, position, dtype, sample, .. } = hidden;
        let n_rows = hidden.n_tokens as usize;
        let wanted = self.shape.activation_type;
        let session = match self.current(key, now) {
            Ok(session) => session,
            Err(reason) => return vec![Effect::Fail { key, reason }],
        };
        let end = position as usize + n_rows;
        let fits = position == session.next_position
            && !session.lacks_kv
            && (1..=max_rows).contains(&n_rows)
            && end <= session.end_position as usize
            && dtype == wanted;
        if !fits {
            let expected = ExpectedRows { position: session.next_position, max_rows, dtype: wanted };
            return self.drop_session(key, Reason::Rows { found: Rows { position, n_rows, dtype }, expected });
        }
        let slot = session.slot;
        session.next_position = end as u32;
        let values = match decode_rows(dtype, hidden_size, n_rows, &hidden.payload) {
            Ok(values) => values,
            Err(error) => return self.drop_session(key, Reason::Payload(error)),
        };
        let Some(arrivals) = self.role.arrivals() else { return Vec::new() };
        let job = Job { key, slot, position, rows: JobRows::Hidden { n_rows, values }, sample };
        match arrivals.push(job) {
            Ok(()) => Vec::new(),
            Err(reason) => self.drop_session(key, reason),
        }
    }

    /// Takes a token that the tail has drawn. One of a session that was closed meanwhile is surplus, not a failure.
    fn token(&mut self, token: &Token, now: Instant) -> Vec<Effect> {
        if self.current(token.key, now).is_err() {
            return Vec::new();
        }
        let mut effects = self.with_head(token.key, now, |head, session| head.token(session, token, now));
        effects.extend(self.tell_pause(token.key));
        effects
    }

    fn acknowledged(&mut self, key: RouteKey, position: u32, now: Instant) -> Vec<Effect> {
        if self.current(key, now).is_err() {
            return Vec::new();
        }
        if let Some(head) = self.role.head() {
            head.acknowledge(key.session, position, now);
        }
        self.tell_pause(key)
    }

    fn with_head(
        &mut self,
        key: RouteKey,
        now: Instant,
        with: impl FnOnce(&mut head::Head, &Session) -> Result<(), Reason>,
    ) -> Vec<Effect> {
        if let Err(reason) = self.current(key, now) {
            return vec![Effect::Fail { key, reason }];
        }
        let (Some(head), Some(session)) = (self.role.head(), self.sessions.get(&key.session)) else {
            return Vec::new();
        };
        match with(head, session) {
            Ok(()) => Vec::new(),
            Err(reason) => self.drop_session(key, reason),
        }
    }

    /// The session of a frame, if the frame is current.
    fn current(&mut self, key: RouteKey, now: Instant) -> Result<&mut Session, Reason> {
        let stale = self.stale();
        let is_mine = self.is_mine(key);
        let session = self.sessions.get_mut(&key.session).filter(|session| is_mine && session.key == key);
        let session = session.ok_or(stale)?;
        session.last_seen = now;
        Ok(session)
    }

    fn is_current(&self, key: RouteKey) -> bool {
        self.sessions.get(&key.session).is_some_and(|session| session.key == key)
    }

    fn is_mine(&self, key: RouteKey) -> bool {
        key.ring == self.shape.ring && key.generation == self.shape.generation
    }

    fn stale(&self) -> Reason {
        Reason::Stale { ring: self.shape.ring, generation: self.shape.generation }
    }

    fn pass_on(&self, frame: Frame) -> Vec<Effect> {
        if self.shape.is_last() { Vec::new() } else { vec![Effect::Next(frame)] }
    }
}

#[cfg(test)]
mod tests;
