//! Run: one answer from its first place on a ring to its last word, as phases. Pure: events and now in, effects out.
//!
//! A run is off every ring and looks for a place; on one; between two, while the next takes over what the old one has; or over. Whatever
//! goes wrong on the way becomes a replay, and whatever the client has seen stays.

mod phase;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use polyphony_protocol::frame::{FailureCode, Finish, Token};
use polyphony_protocol::{Frame, PlanGeneration, RingId, RouteKey};
use tokio::time::Instant;

use crate::admission::Place;
use crate::answer::{End, FinishReason, Output, Piece};
use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::failure::Failure;
use crate::model_text::AnswerText;
use crate::routes::{RingRoute, Unsent};
use crate::session::{AfterFailure, Arrival, Session};

use phase::{Moving, On, Pause, Phase, Step};
use reader::Reader;

/// The longest pause between two replays.
const MAX_REPLAY_PAUSE: Duration = Duration::from_secs(5);

/// One answer on its way.
pub(crate) struct Run {
    model: String,
    config: Arc<GatewayConfig>,
    session: Session,
    phase: Phase,
    /// The ring that the controller wants the present one's sessions to be on.
    wanted: Option<RingRoute>,
    /// `None` once its end has been read.
    text: Option<AnswerText>,
    reader: Reader,
    /// When the last token came, if the ring has had credit ever since.
    last_token_at: Option<Instant>,
    /// The same, whatever rings the session has run on since.
    last_seen_at: Option<Instant>,
}

/// What happens to a run.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It has a place.
    Placed {
        ring: RingRoute,
        context_length: u32,
        /// Sessions on the ring, this one included.
        n_sessions: usize,
    },
    /// There is none for it.
    NotPlaced(ApiError),
    Token {
        token: Token,
        at: Instant,
    },
    Failed {
        key: RouteKey,
        failure: Failure,
    },
    /// The head has stopped, with all positions below this one computed.
    Paused {
        key: RouteKey,
        position: u32,
    },
    /// Every stage of the next ring has what it needs to go on.
    Resumed {
        key: RouteKey,
    },
    /// A frame did not go out.
    Unsent(Unsent),
    /// The ring that the controller wants the present one's sessions to be on.
    Wanted(Option<RingRoute>),
    /// The client's queue has taken what was said first.
    Taken,
    /// Nobody wants the answer any more.
    Unwanted,
    /// The program ends.
    Closing,
    /// The time that [`Run::deadline`] says has come.
    Late,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// From now on what these phones say with this key is heard.
    Hear {
        key: RouteKey,
        phones: Vec<String>,
        next_position: u32,
    },
    /// The same, of a ring whose every stage has to say first that it has the KV cache below this position.
    HearResumed {
        key: RouteKey,
        phones: Vec<String>,
        position: u32,
    },
    /// Without this frame the ring cannot go on.
    Send {
        phone: String,
        frame: Frame,
    },
    /// A phone that cannot be told has lost the session anyway.
    Tell {
        phone: String,
        frame: Frame,
    },
    /// A place on the ring that the session moves to, beside the one that it has.
    Claim(RingRoute),
    /// The place that was claimed is the only one now.
    GoOver,
    /// Nothing more is heard, and every place is given back.
    Leave,
    /// This ring is likely to fail the next session too.
    Suspect(Place),
    /// Look for a place to replay on, after a pause.
    Seek {
        pause: Duration,
    },
    Say(Output),
    /// What was said and is not taken yet is not worth saying any more.
    Forget,
    /// The model's numbers are none.
    Unsound(String),
    Note(Note),
}

/// What is counted and logged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    Placed(RouteKey),
    /// A frame that belongs to nothing.
    Ignored,
    Token {
        at: Instant,
        /// Since the token before, on the same ring and with credit all the while.
        on_ring: Option<Duration>,
        /// The same, whatever ring it was on.
        seen: Option<Duration>,
    },
    Pausing {
        to: PlanGeneration,
    },
    Moved {
        from: PlanGeneration,
        key: RouteKey,
        stood_still: Duration,
    },
    MoveFailed,
    Interrupted {
        ring: RingId,
        failure: Failure,
    },
    Replayed {
        n_tokens: u32,
    },
}

// === impl Run ===

impl Run {
    pub(crate) fn new(model: String, session: Session, text: AnswerText, config: Arc<GatewayConfig>) -> Self {
        let reader = Reader::new(config.client_deadline);
        Self {
            model,
            config,
            session,
            phase: Phase::Seeking { is_replay: false },
            wanted: None,
            text: Some(text),
            reader,
            last_token_at: None,
            last_seen_at: None,
        }
    }

    pub(crate) fn position(&self) -> u32 {
        self.session.position()
    }

    /// Whether there is nothing more to say, but what has not been taken yet.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// When [`Event::Late`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let of_ring = self.phase.deadline(self.session.has_credit());
        [of_ring, self.reader.deadline()].into_iter().flatten().min()
    }

    /// What an event leads to.
    pub(crate) fn next(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Placed { ring, context_length, n_sessions } => self.placed(ring, context_length, n_sessions, now),
            Event::NotPlaced(error) => self.conclude(Output::Failed(error), now),
            Event::Token { token, at } => self.token(token, at, now),
            Event::Failed { key, failure } if self.phase.key() == Some(key) => self.fail(failure, now),
            Event::Failed { .. } => Vec::new(),
            Event::Unsent(error) => self.fail(error.into(), now),
            Event::Paused { key, position } => self.paused(key, position, now),
            Event::Resumed { key } => self.resumed(key, now),
            Event::Wanted(next) => {
                self.wanted = next;
                self.advance(now)
            }
            Event::Taken => self.taken(now),
            Event::Unwanted => {
                let mut effects = self.leave();
                self.phase = Phase::Over;
                effects.push(Effect::Forget);
                effects
            }
            Event::Closing if self.is_over() => Vec::new(),
            Event::Closing => self.conclude(Output::Failed(ApiError::closing(self.config.retry_after)), now),
            Event::Late => self.late(now),
        }
    }

    fn placed(&mut self, ring: RingRoute, context_length: u32, n_sessions: usize, now: Instant) -> Vec<Effect> {
        let Phase::Seeking { is_replay } = self.phase else { return vec![Effect::Leave] };
        if !self.session.fit(context_length) {
            let (text, end) = self.finish_text(Finish::Length);
            return self.conclude(Output::End(End { text, ..end }), now);
        }
        let n_tokens = self.session.position();
        let key = self.session.next_key(ring.ring, ring.generation);
        let frames = self.session.open(key, self.reader.n_unread());
        // The prompt is everything so far, and those of the ring's other sessions may come in turn with it.
        let n_tokens_in_turn = n_tokens.saturating_mul(u32::try_from(n_sessions.max(1)).unwrap_or(u32::MAX));
        let patience =
            self.config.first_token_deadline + self.config.prefill_allowance.saturating_mul(n_tokens_in_turn);
        let phones = ring.phones.clone();
        let head = ring.head().to_owned();
        // First the listening, then the asking.
        let mut effects = vec![Effect::Hear { key, phones, next_position: n_tokens }, Effect::Note(Note::Placed(key))];
        if is_replay {
            effects.push(Effect::Note(Note::Replayed { n_tokens }));
        }
        effects.extend(frames.map(|frame| Effect::Send { phone: head.clone(), frame }));
        self.phase = Phase::On(On { key, ring, step: Step::Going, since: now, patience });
        self.wanted = None;
        effects
    }

    fn token(&mut self, token: Token, at: Instant, now: Instant) -> Vec<Effect> {
        let Phase::On(on) = &mut self.phase else { return vec![Effect::Note(Note::Ignored)] };
        if on.key != token.key {
            return vec![Effect::Note(Note::Ignored)];
        }
        let finish = match self.session.take(&token) {
            Arrival::Ignored => return vec![Effect::Note(Note::Ignored)],
            Arrival::Wrong(why) => return self.fail(Failure::Disagreement(why), now),
            Arrival::Next(finish) => finish,
        };
        self.reader.computed(at.saturating_duration_since(on.since));
        on.waits_from(now, self.config.inter_token_deadline);
        let awaits_next = self.session.has_credit() && on.may_run();
        let mut effects = vec![self.measure(at, awaits_next)];
        let (text, end) = self.read_text(token.token, finish);
        let piece = Piece { token: token.token, text, logprob: token.logprob, top: token.top };
        effects.push(self.say(Output::Piece(piece), now));
        match end {
            Some(end) => effects.extend(self.conclude(Output::End(end), now)),
            None => effects.extend(self.advance(now)),
        }
        effects
    }

    /// Times between two tokens count only where neither a move nor a client that does not read lay between.
    fn measure(&mut self, at: Instant, awaits_next: bool) -> Effect {
        let since = |last: Option<Instant>| last.map(|last| at.saturating_duration_since(last));
        let (on_ring, seen) = (since(self.last_token_at), since(self.last_seen_at));
        self.last_token_at = awaits_next.then_some(at);
        self.last_seen_at = self.last_token_at;
        Effect::Note(Note::Token { at, on_ring, seen })
    }

    /// The text that a token brings, and the end if it is the last.
    fn read_text(&mut self, token: u32, finish: Option<Finish>) -> (String, Option<End>) {
        let Some(text) = &mut self.text else { return Default::default() };
        // An end token is no text.
        let passed = if finish == Some(Finish::Stop) { Default::default() } else { text.push(token) };
        match (passed.stopped_by, finish) {
            (Some(stop), _) => (passed.text, Some(End::stopped_by(stop))),
            (None, None) => (passed.text, None),
            (None, Some(finish)) => {
                let (rest, end) = self.finish_text(finish);
                (passed.text + &rest, Some(end))
            }
        }
    }

    /// What was held back for the rest of a character or of a stop string, and how the answer ends with it.
    fn finish_text(&mut self, finish: Finish) -> (String, End) {
        let rest = self.text.take().map(AnswerText::finish).unwrap_or_default();
        let end = match (rest.stopped_by, finish) {
            (Some(stop), _) => End::stopped_by(stop),
            (None, Finish::Stop) => End::new(FinishReason::Stop),
            (None, Finish::Length) => End::new(FinishReason::Length),
        };
        (rest.text, end)
    }

    fn say(&mut self, output: Output, now: Instant) -> Effect {
        self.reader.told(now);
        Effect::Say(output)
    }

    /// The last word: every ring is left before.
    fn conclude(&mut self, last_word: Output, now: Instant) -> Vec<Effect> {
        let mut effects = self.leave();
        self.phase = Phase::Over;
        effects.push(self.say(last_word, now));
        effects
    }

    /// The client's queue has taken what was said first: more credit where that is due.
    fn taken(&mut self, now: Instant) -> Vec<Effect> {
        self.reader.took(now);
        let Phase::On(on) = &mut self.phase else { return Vec::new() };
        if !matches!(on.step, Step::Going) {
            return Vec::new();
        }
        let had_credit = self.session.has_credit();
        let Some(frame) = self.session.read(on.key, self.reader.n_unread()) else { return Vec::new() };
        if !had_credit {
            // What the client took to read is not held against the ring.
            on.since = now;
        }
        vec![Effect::Send { phone: on.ring.head().to_owned(), frame }]
    }

    // What moves to the next generation of its ring.

    /// Takes the next step of a move, where one is due.
    fn advance(&mut self, now: Instant) -> Vec<Effect> {
        let Phase::On(on) = &mut self.phase else { return Vec::new() };
        match on.step {
            Step::Going if !self.session.is_finished() => {
                let Some(next) = &self.wanted else { return Vec::new() };
                if next.numerics_class != on.ring.numerics_class {
                    let why = format!("generation {} computes in {}", next.generation, next.numerics_class);
                    return self.stranded(why, now);
                }
                // The ring may first end what it computes now.
                let patience = if self.session.has_credit() { on.patience } else { Duration::ZERO };
                let deadline = now + patience + self.config.hand_over_deadline;
                on.step = Step::Pausing(Pause { began: now, deadline });
                let (phone, frame) = (on.ring.head().to_owned(), Frame::Pause { key: on.key });
                vec![Effect::Note(Note::Pausing { to: next.generation }), Effect::Send { phone, frame }]
            }
            // All that the ring sampled is here.
            Step::Paused(pause, position) if position < self.session.position() && !self.session.is_finished() => {
                self.go_over(pause, position, now)
            }
            _ => Vec::new(),
        }
    }

    fn paused(&mut self, key: RouteKey, position: u32, now: Instant) -> Vec<Effect> {
        let Phase::On(on) = &mut self.phase else { return Vec::new() };
        let Step::Pausing(pause) = on.step else { return Vec::new() };
        if on.key != key {
            return Vec::new();
        }
        let granted = self.session.granted_until();
        if position == 0 || position >= granted {
            let why = format!("the head stopped at position {position}, and had credit up to {granted}");
            return self.fail(Failure::Disagreement(why), now);
        }
        on.step = Step::Paused(pause, position);
        self.advance(now)
    }

    /// Asks the next ring to take the session over, which has come to rest.
    fn go_over(&mut self, pause: Pause, position: u32, now: Instant) -> Vec<Effect> {
        let Phase::On(on) = &self.phase else { return Vec::new() };
        // The controller may have thought better of it since.
        let next = self.wanted.clone().filter(|next| next.numerics_class == on.ring.numerics_class);
        let Some(to) = next else {
            return self.stranded("the generation that was to follow is gone".to_owned(), now);
        };
        let old = (on.key, on.ring.head().to_owned());
        let key = self.session.next_key(to.ring, to.generation);
        let frame = self.session.resume(key, old.0, position);
        let effects = vec![
            Effect::Claim(to.clone()),
            Effect::HearResumed { key, phones: to.phones.clone(), position },
            Effect::Send { phone: to.head().to_owned(), frame },
        ];
        let deadline = now + self.config.hand_over_deadline;
        self.phase = Phase::Moving(Moving { old, to, key, position, began: pause.began, deadline });
        effects
    }

    /// The next ring has all that it needs: the session goes on there.
    fn resumed(&mut self, key: RouteKey, now: Instant) -> Vec<Effect> {
        let Phase::Moving(moving) = &self.phase else { return Vec::new() };
        if moving.key != key {
            return Vec::new();
        }
        let Moving { old: (old, old_head), to: ring, position, began, .. } = moving.clone();
        let (phone, stood_still) = (ring.head().to_owned(), now.saturating_duration_since(began));
        let patience = self.config.inter_token_deadline;
        self.phase = Phase::On(On { key, ring, step: Step::Going, since: now, patience });
        self.wanted = None;
        self.last_token_at = None;
        let frame = self.session.prompt(key, position, self.reader.n_unread());
        vec![
            Effect::Tell { phone: old_head, frame: Frame::Close { key: old } },
            Effect::GoOver,
            Effect::Note(Note::Moved { from: old.generation, key, stood_still }),
            Effect::Send { phone, frame },
        ]
    }

    fn stranded(&mut self, why: String, now: Instant) -> Vec<Effect> {
        match self.phase.generation() {
            Some(from) => self.fail(Failure::HandOver { from, why }, now),
            None => Vec::new(),
        }
    }

    // What goes wrong.

    /// Leaves every ring. A move that is under way ends with it. The heads hear it before the places are free: whoever takes one opens behind it.
    fn leave(&mut self) -> Vec<Effect> {
        self.last_token_at = None;
        let close = |key: RouteKey, phone: String| Effect::Tell { phone, frame: Frame::Close { key } };
        match std::mem::replace(&mut self.phase, Phase::Seeking { is_replay: true }) {
            Phase::On(on) => vec![close(on.key, on.ring.head().to_owned()), Effect::Leave],
            Phase::Moving(Moving { old: (old, old_head), to, key, .. }) => {
                vec![close(old, old_head), close(key, to.head().to_owned()), Effect::Leave]
            }
            Phase::Seeking { .. } | Phase::Over => vec![Effect::Leave],
        }
    }

    /// The session cannot go on where it is.
    fn fail(&mut self, failure: Failure, now: Instant) -> Vec<Effect> {
        let Some(place) = self.phase.place() else { return Vec::new() };
        let mut effects = Vec::new();
        if self.phase.is_move() {
            effects.push(Effect::Note(Note::MoveFailed));
        }
        if failure.casts_suspicion() {
            effects.push(Effect::Suspect(place));
        }
        effects.extend(self.leave());
        effects.push(Effect::Note(Note::Interrupted { ring: place.0, failure: failure.clone() }));
        if let Some(why) = failure.unsound() {
            effects.push(Effect::Unsound(why.clone()));
            effects.extend(self.conclude(Output::Failed(ApiError::model_unsound(&self.model, &why)), now));
            return effects;
        }
        if !failure.is_retryable() {
            let refused = ApiError::session_refused(&self.model, &failure.to_string());
            effects.extend(self.conclude(Output::Failed(refused), now));
            return effects;
        }
        let pause = match self.session.fail(self.config.max_replays) {
            AfterFailure::GiveUp { n_fruitless } => {
                let (cause, after) = (failure.to_string(), self.config.retry_after);
                let exhausted = ApiError::replays_exhausted(&self.model, n_fruitless, &cause, after);
                effects.extend(self.conclude(Output::Failed(exhausted), now));
                return effects;
            }
            // The first is at once: the ring may be as good as before.
            AfterFailure::Replay { n_fruitless: 1 } => Duration::ZERO,
            AfterFailure::Replay { n_fruitless } => {
                let doubled = 1_u32.checked_shl(n_fruitless - 2).unwrap_or(u32::MAX);
                self.config.replay_pause.saturating_mul(doubled).min(MAX_REPLAY_PAUSE)
            }
        };
        effects.push(Effect::Seek { pause });
        effects
    }

    fn late(&mut self, now: Instant) -> Vec<Effect> {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_over(self.reader.deadline()) {
            self.reader.give_up();
            if self.is_over() {
                return vec![Effect::Forget];
            }
            let slow = ApiError::client_too_slow(self.reader.patience());
            let mut effects = vec![Effect::Forget];
            effects.extend(self.conclude(Output::Failed(slow), now));
            return effects;
        }
        let hand_over = self.config.hand_over_deadline.as_secs_f32();
        let why = match &self.phase {
            Phase::On(On { step: Step::Pausing(pause) | Step::Paused(pause, _), .. })
                if is_over(Some(pause.deadline)) =>
            {
                format!("its head did not stop within {hand_over} s")
            }
            Phase::Moving(moving) if is_over(Some(moving.deadline)) => {
                format!("{} did not have its KV cache within {hand_over} s", moving.to.phones.join(", "))
            }
            Phase::On(on) if is_over(on.token_deadline(self.session.has_credit())) => {
                let silent = Failure::Silent { phones: on.ring.phones.join(", "), waited: on.patience };
                return self.fail(silent, now);
            }
            _ => return Vec::new(),
        };
        self.stranded(why, now)
    }
}

// === impl Failure ===

impl Failure {
    /// Why the model's numbers are none, where that is what is wrong.
    fn unsound(&self) -> Option<String> {
        match self {
            Self::Stage { code: FailureCode::NonFinite, .. } => Some(self.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
