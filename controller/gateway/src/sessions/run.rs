//! Run: one session's task. Carries out what [`Session`] decides, until the answer is whole, lost, or unwanted.

use std::sync::Arc;
use std::time::Duration;

use polyphony_protocol::frame::{Finish, Token};
use polyphony_protocol::{Frame, SessionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::moving::Move;
use super::seat::{Slot, changed};
use super::{Job, Sessions, lock};
use crate::admission::Kind;
use crate::answer::{End, FinishReason, Output, Piece};
use crate::errors::ApiError;
use crate::failure::Failure;
use crate::metrics::{Effort, ModelMetrics, Tally};
use crate::model_text::AnswerText;
use crate::registry::{Event, RESERVED};
use crate::session::{AfterFailure, Arrival, Session};

/// The longest pause between two replays.
const MAX_REPLAY_PAUSE: Duration = Duration::from_secs(5);

/// A session with all that it needs to run.
pub(super) struct Runner {
    pub(super) sessions: Arc<Sessions>,
    pub(super) id: SessionId,
    pub(super) session: Session,
    pub(super) model: String,
    /// Of the model file that its tokens are of.
    manifest_digest: String,
    text: Option<AnswerText>,
    events: mpsc::Receiver<Event>,
    outputs: mpsc::Sender<Output>,
    /// When the last token came, if the ring has had credit ever since.
    pub(super) last_token_at: Option<Instant>,
    /// The same, whatever rings the session has run on since.
    last_seen_at: Option<Instant>,
    tally: Arc<Tally>,
    pub(super) metrics: Arc<ModelMetrics>,
    effort: Effort,
    pub(super) moving: Option<Move>,
}

/// Why a session stops running on a ring.
enum Stop {
    End(End),
    Failed(Failure),
    /// Nobody wants the answer any more.
    Unwanted,
    /// The client does not read it.
    Unread,
    /// The program ends.
    Closing,
}

// === impl Runner ===

impl Runner {
    pub(super) fn new(sessions: Arc<Sessions>, id: SessionId, job: Job, outputs: mpsc::Sender<Output>) -> Self {
        let Job { model, manifest_digest, text, prompt, options, stops, tally } = job;
        // All the tokens that credit allows, and what comes once.
        let (sender, events) = mpsc::channel(outputs.max_capacity() + RESERVED);
        lock(&sessions.registry).insert(id, sender);
        let text = Some(AnswerText::new(&text, stops));
        let metrics = sessions.metrics.model(&model);
        let session = Session::new(id, prompt, options, sessions.config.credit_window);
        let effort = Effort { prompt_tokens: session.position(), ..Default::default() };
        metrics.prompt_tokens.inc_by(effort.prompt_tokens.into());
        let (last_token_at, last_seen_at) = (None, None);
        Self {
            sessions,
            id,
            session,
            model,
            manifest_digest,
            text,
            events,
            outputs,
            last_token_at,
            last_seen_at,
            tally,
            metrics,
            effort,
            moving: None,
        }
    }

    /// Runs to the end. The place on the ring is given back before the client gets the last word.
    pub(super) async fn run(mut self, slot: Slot) {
        let last_word = self.answer(slot).await;
        if let Some(output) = last_word {
            match &output {
                Output::End(end) => self.tally.end(end.reason, self.effort),
                Output::Failed(error) => self.tally.fail(error),
                Output::Piece(_) => {}
            }
            let _ = timeout(self.sessions.config.client_deadline, self.outputs.send(output)).await;
        }
    }

    async fn answer(&mut self, mut slot: Slot) -> Option<Output> {
        loop {
            let failure = match self.serve(&mut slot).await {
                Stop::Failed(failure) => failure,
                stop => {
                    self.leave(&slot);
                    return match stop {
                        Stop::End(end) => Some(Output::End(end)),
                        Stop::Unread => {
                            Some(Output::Failed(ApiError::client_too_slow(self.sessions.config.client_deadline)))
                        }
                        Stop::Closing => Some(Output::Failed(ApiError::closing(self.sessions.config.retry_after))),
                        Stop::Unwanted | Stop::Failed(_) => None,
                    };
                }
            };
            match self.place_again(slot, failure).await {
                Ok(Some(next)) => slot = next,
                Ok(None) => return None,
                Err(error) => return Some(Output::Failed(error)),
            }
        }
    }

    /// Opens the session on a ring and passes its tokens on; moves it when the ring's sessions are to be elsewhere.
    async fn serve(&mut self, slot: &mut Slot) -> Stop {
        if !self.session.fit(slot.context_length) {
            return Stop::End(End { reason: FinishReason::Length, stopped_by: None });
        }
        if let Err(failure) = self.open(slot) {
            return Stop::Failed(failure);
        }
        let sessions = Arc::clone(&self.sessions);
        let config = &sessions.config;
        let mut routes = sessions.routes.clone();
        // A table that changed since the place was found is looked at, too.
        routes.mark_changed();
        // The prompt is everything so far, and those of the ring's other sessions may come in turn with it.
        let n_sessions = sessions.sessions_in(slot.ring.ring, slot.ring.generation).max(1);
        let n_tokens = self.session.position().saturating_mul(u32::try_from(n_sessions).unwrap_or(u32::MAX));
        let first = config.first_token_deadline + config.prefill_allowance.saturating_mul(n_tokens);
        let mut waited_for = first;
        let mut since = Instant::now();
        loop {
            let move_deadline = self.move_deadline();
            let event = tokio::select! {
                biased;
                () = self.outputs.closed() => return Stop::Unwanted,
                () = sessions.closing() => return Stop::Closing,
                event = self.events.recv() => event,
                () = sleep_until(since + waited_for), if self.session.awaits_token() => None,
                () = sleep_until(move_deadline.unwrap_or(since)), if move_deadline.is_some() => {
                    return Stop::Failed(self.move_is_late(slot));
                }
                () = changed(&mut routes), if move_deadline.is_none() => {
                    let patience = if self.session.awaits_token() { waited_for } else { Duration::ZERO };
                    match self.begin_move(slot, patience) {
                        Ok(()) => continue,
                        Err(failure) => return Stop::Failed(failure),
                    }
                }
            };
            match event {
                // The registry holds the sender as long as this runs, so nothing came in time.
                None => {
                    let phones = slot.ring.phones.join(", ");
                    return Stop::Failed(Failure::Silent { phones, waited: waited_for });
                }
                Some(Event::Failed { key, failure }) => {
                    if self.session.is_at(key) {
                        return Stop::Failed(failure);
                    }
                }
                Some(Event::Paused { key, position }) => {
                    if let Err(failure) = self.paused(slot, key, position) {
                        return Stop::Failed(failure);
                    }
                }
                Some(Event::Resumed { key }) => match self.resumed(slot, key) {
                    Ok(has_moved) => {
                        if has_moved {
                            (since, waited_for) = (Instant::now(), config.inter_token_deadline);
                            // The next move may be due already.
                            routes.mark_changed();
                        }
                    }
                    Err(failure) => return Stop::Failed(failure),
                },
                Some(Event::Token { token, at }) => match self.session.take(&token) {
                    Arrival::Ignored => self.sessions.metrics.ignored_frames.inc(),
                    Arrival::Wrong(why) => return Stop::Failed(Failure::Disagreement(why)),
                    Arrival::Next(finish) => {
                        self.measure(at);
                        if let Some(stop) = self.pass_on(token, finish).await {
                            return stop;
                        }
                        if let Some(credit) = self.session.read()
                            && let Err(error) = self.send(slot, credit)
                        {
                            return Stop::Failed(error);
                        }
                        if let Err(failure) = self.go_over(slot) {
                            return Stop::Failed(failure);
                        }
                        // What the client took to read is not held against the ring.
                        since = Instant::now();
                        waited_for = config.inter_token_deadline;
                    }
                },
            }
        }
    }

    fn open(&mut self, slot: &Slot) -> Result<(), Failure> {
        let (key, frames) = self.session.place(slot.ring.ring, slot.ring.generation);
        // First the listening, then the asking.
        lock(&self.sessions.registry).place(key, slot.ring.phones.clone(), self.session.position());
        tracing::debug!(session = %self.id, ring = %key.ring, generation = %key.generation, epoch = %key.epoch, "session placed");
        frames.into_iter().try_for_each(|frame| self.send(slot, frame))
    }

    pub(super) fn send(&self, slot: &Slot, frame: Frame) -> Result<(), Failure> {
        // Only rings with phones are placed on.
        let head = slot.ring.phones.first().map_or("", String::as_str);
        Ok(self.sessions.links.send(head, frame)?)
    }

    /// Gives the token to the client, waiting until it has room.
    async fn pass_on(&mut self, token: Token, finish: Option<Finish>) -> Option<Stop> {
        let (text, end) = self.read_text(token.token, finish);
        let piece = Piece { token: token.token, text, logprob: token.logprob, top: token.top };
        match timeout(self.sessions.config.client_deadline, self.outputs.send(Output::Piece(piece))).await {
            Ok(Ok(())) => end.map(Stop::End),
            Ok(Err(_)) => Some(Stop::Unwanted),
            Err(_) => Some(Stop::Unread),
        }
    }

    /// The text that a token brings, and the end if it is the last.
    fn read_text(&mut self, token: u32, finish: Option<Finish>) -> (String, Option<End>) {
        let Some(text) = &mut self.text else {
            return (String::new(), None);
        };
        let mut passed = match finish {
            // An end token is no text.
            Some(Finish::Stop) => Default::default(),
            _ => text.push(token),
        };
        if passed.stopped_by.is_none() && finish.is_some() {
            let rest = self.text.take().map(AnswerText::finish).unwrap_or_default();
            passed.text.push_str(&rest.text);
            passed.stopped_by = rest.stopped_by;
        }
        let end = match (passed.stopped_by, finish) {
            (None, None) => None,
            (None, Some(Finish::Length)) => Some(End { reason: FinishReason::Length, stopped_by: None }),
            (stopped_by, _) => Some(End { reason: FinishReason::Stop, stopped_by }),
        };
        (passed.text, end)
    }

    /// Times between two tokens count only where neither a move nor a client that does not read lay between.
    fn measure(&mut self, at: Instant) {
        if let Some(last) = self.last_token_at {
            let between = at.saturating_duration_since(last);
            lock(&self.sessions.speeds).record(&self.model, between);
        }
        self.last_token_at = self.session.awaits_token().then_some(at);
        if self.effort.generation_tokens == 0 {
            let waited = at.saturating_duration_since(self.tally.began).as_secs_f64();
            self.effort.first_token_seconds = waited;
            self.metrics.first_token_seconds.observe(waited);
        }
        if let Some(last) = self.last_seen_at {
            self.metrics.between_tokens_seconds.observe(at.saturating_duration_since(last).as_secs_f64());
        }
        self.last_seen_at = self.last_token_at;
        self.effort.generation_tokens += 1;
        self.metrics.generation_tokens.inc();
    }

    /// After a failure: leaves the ring, and waits for one that can go on. `None` if nobody wants the answer any more.
    async fn place_again(&mut self, slot: Slot, failure: Failure) -> Result<Option<Slot>, ApiError> {
        let sessions = Arc::clone(&self.sessions);
        let config = &sessions.config;
        if self.moving.is_some() {
            self.metrics.hand_over_failures.inc();
        }
        let moving_to = self.break_off_move(&slot);
        let slot = moving_to.unwrap_or(slot);
        let place = (slot.ring.ring, slot.ring.generation);
        if failure.casts_suspicion() {
            let until = (Instant::now() + config.suspicion).into_std();
            lock(&sessions.admission).suspect(place, until);
        }
        self.leave(&slot);
        drop(slot);
        tracing::warn!(session = %self.id, model = %self.model, ring = %place.0, position = self.session.position(), %failure, "session interrupted");
        if !failure.is_retryable() {
            return Err(ApiError::session_refused(&self.model, &failure.to_string()));
        }
        let pause = match self.session.fail(config.max_replays) {
            AfterFailure::GiveUp { n_fruitless } => {
                let cause = failure.to_string();
                return Err(ApiError::replays_exhausted(&self.model, n_fruitless, &cause, config.retry_after));
            }
            // The first is at once: the ring may be as good as before.
            AfterFailure::Replay { n_fruitless: 1 } => Duration::ZERO,
            AfterFailure::Replay { n_fruitless } => {
                let doubled = 1_u32.checked_shl(n_fruitless - 2).unwrap_or(u32::MAX);
                config.replay_pause.saturating_mul(doubled).min(MAX_REPLAY_PAUSE)
            }
        };
        let next = async {
            sleep(pause).await;
            sessions.acquire(&self.model, &self.manifest_digest, Kind::Replay).await
        };
        tokio::select! {
            () = self.outputs.closed() => Ok(None),
            slot = next => {
                let slot = slot?;
                self.effort.replays += 1;
                self.metrics.replays.inc();
                self.metrics.replayed_tokens.inc_by(self.session.position().into());
                Ok(Some(slot))
            }
        }
    }

    /// Nothing more is heard of the ring, and it may forget the session.
    fn leave(&mut self, slot: &Slot) {
        let moving_to = self.break_off_move(slot);
        let slot = moving_to.as_ref().unwrap_or(slot);
        lock(&self.sessions.registry).retire(self.id);
        while self.events.try_recv().is_ok() {}
        self.last_token_at = None;
        if let Some(close) = self.session.close() {
            // A head that cannot be told has lost the session anyway.
            let _ = self.send(slot, close);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        lock(&self.sessions.registry).remove(self.id);
    }
}
