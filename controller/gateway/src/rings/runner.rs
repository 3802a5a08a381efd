//! Runner: one session's task. Waits for what happens, asks [`Run`] what follows, and does it; decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, pending};
use polyphony_protocol::SessionId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::books::Books;
use super::seat::{Slot, changed};
use crate::admission::Kind;
use crate::answer::Output;
use crate::errors::ApiError;
use crate::lock::lock;
use crate::metrics::ModelMetrics;
use crate::model_text::AnswerText;
use crate::registry::RESERVED;
use crate::routes::RouteTable;
use crate::run::{Effect, Event, Note, Run};
use crate::session::Session;
use crate::sessions::Job;
use crate::tally::{Effort, Tally};

/// A session with all that it needs to run.
pub(super) struct Runner {
    books: Arc<Books>,
    id: SessionId,
    model: String,
    /// Of the model file that its tokens are of.
    manifest_digest: String,
    run: Run,
    events: mpsc::Receiver<Event>,
    routes: watch::Receiver<Arc<RouteTable>>,
    outputs: mpsc::Sender<Output>,
    /// What the client's queue has no room for yet.
    unread: VecDeque<Output>,
    /// Where the session has its place, and where it is to have the next.
    here: Option<Slot>,
    there: Option<Slot>,
    /// The search for one, after a failure.
    seek: Option<BoxFuture<'static, Result<Slot, ApiError>>>,
    /// The first frame that did not go out since the last event.
    unsent: Option<Event>,
    tally: Arc<Tally>,
    metrics: Arc<ModelMetrics>,
    effort: Effort,
}

// === impl Runner ===

impl Runner {
    pub(super) fn new(books: Arc<Books>, id: SessionId, job: Job, outputs: mpsc::Sender<Output>) -> Self {
        let Job { model, manifest_digest, text, prompt, options, stops, tally } = job;
        // All the tokens that credit allows, and what comes once.
        let (sender, events) = mpsc::channel(outputs.max_capacity() + RESERVED);
        lock(&books.registry).insert(id, sender);
        let metrics = books.metrics.model(&model);
        let session = Session::new(id, prompt, options, books.config.credit_window);
        let effort = Effort { prompt_tokens: session.position(), ..Default::default() };
        metrics.prompt_tokens.inc_by(effort.prompt_tokens.into());
        let run = Run::new(model.clone(), session, AnswerText::new(&text, stops), books.config.clone());
        let (routes, unread) = (books.routes.clone(), VecDeque::new());
        let (here, there, seek, unsent) = Default::default();
        Self {
            books,
            id,
            model,
            manifest_digest,
            run,
            events,
            routes,
            outputs,
            unread,
            here,
            there,
            seek,
            unsent,
            tally,
            metrics,
            effort,
        }
    }

    /// Runs to the end. The place on the ring is given back before the client gets the last word.
    pub(super) async fn run(mut self, slot: Slot) {
        let mut event = self.placed(slot);
        loop {
            self.happens(event);
            while let Some(unsent) = self.unsent.take() {
                self.happens(unsent);
            }
            if self.run.is_over() && self.unread.is_empty() {
                return;
            }
            event = self.next_event().await;
        }
    }

    async fn next_event(&mut self) -> Event {
        let deadline = self.run.deadline();
        let is_on_ring = self.here.is_some();
        let room = async { self.outputs.reserve().await.is_ok() };
        let seek = async {
            match &mut self.seek {
                Some(seek) => seek.await,
                None => pending().await,
            }
        };
        let found = tokio::select! {
            biased;
            () = self.outputs.closed() => return Event::Unwanted,
            () = self.books.closing(), if !self.run.is_over() => return Event::Closing,
            true = room, if !self.unread.is_empty() => return self.give(),
            // The registry holds the sender as long as this runs.
            Some(event) = self.events.recv(), if is_on_ring => return event,
            found = seek => found,
            () = changed(&mut self.routes), if is_on_ring => return self.wanted(),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => return Event::Late,
        };
        self.seek = None;
        match found {
            Ok(slot) => self.placed(slot),
            Err(error) => Event::NotPlaced(error),
        }
    }

    /// Puts what was said first into the client's queue, which has room: nobody else puts anything there.
    fn give(&mut self) -> Event {
        let Some(output) = self.unread.pop_front() else { return Event::Taken };
        if let Output::End(end) = &output {
            self.tally.end(end.reason, self.effort);
        }
        match self.outputs.try_send(output) {
            Ok(()) => Event::Taken,
            Err(_) => Event::Unwanted,
        }
    }

    fn placed(&mut self, slot: Slot) -> Event {
        let (ring, context_length) = (slot.ring.clone(), slot.context_length);
        let n_sessions = self.books.sessions_in(ring.ring, ring.generation);
        self.here = Some(slot);
        // A table that changed since the place was found is looked at, too.
        self.routes.mark_changed();
        Event::Placed { ring, context_length, n_sessions }
    }

    fn wanted(&self) -> Event {
        let table = self.books.table();
        let successor = |here: &Slot| table.successor(&self.model, &here.ring).cloned();
        Event::Wanted(self.here.as_ref().and_then(successor))
    }

    fn happens(&mut self, event: Event) {
        for effect in self.run.next(event, Instant::now()) {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let books = &self.books;
        match effect {
            Effect::Hear { key, phones, next_position } => lock(&books.registry).place(key, phones, next_position),
            Effect::HearResumed { key, phones, position } => lock(&books.registry).place_moving(key, phones, position),
            Effect::Send { phone, frame } => {
                if let Err(error) = books.links.send(&phone, frame) {
                    self.unsent.get_or_insert(Event::Unsent(error));
                }
            }
            Effect::Tell { phone, frame } => drop(books.links.send(&phone, frame)),
            Effect::Claim(ring) => self.there = self.here.as_ref().map(|here| here.on_next(ring)),
            Effect::GoOver => {
                if let (Some(here), Some(there)) = (&mut self.here, self.there.take()) {
                    here.move_to(there);
                }
                // The next move may be due already.
                self.routes.mark_changed();
            }
            Effect::Leave => self.leave(),
            Effect::Suspect(place) => books.suspect(place),
            Effect::Seek { pause } => {
                let (books, model, digest) = (books.clone(), self.model.clone(), self.manifest_digest.clone());
                let seek = async move {
                    sleep(pause).await;
                    books.acquire(&model, &digest, Kind::Replay).await
                };
                self.seek = Some(seek.boxed());
            }
            Effect::Say(output) => {
                if let Output::Failed(error) = &output {
                    self.tally.fail(error);
                }
                self.unread.push_back(output);
            }
            Effect::Forget => self.unread.clear(),
            Effect::Unsound(why) => books.note_unsound(&self.manifest_digest, why),
            Effect::Note(note) => self.note(note),
        }
    }

    /// Nothing more is heard of any ring, and every place is given back.
    fn leave(&mut self) {
        lock(&self.books.registry).retire(self.id);
        while self.events.try_recv().is_ok() {}
        (self.here, self.there, self.seek, self.unsent) = Default::default();
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Placed(key) => {
                tracing::debug!(session = %self.id, ring = %key.ring, generation = %key.generation, epoch = %key.epoch, "session placed");
            }
            Note::Ignored => self.books.metrics.ignored_frames.inc(),
            Note::Token { at, on_ring, seen } => {
                if let Some(between) = on_ring {
                    lock(&self.books.speeds).record(&self.model, between);
                }
                if let Some(between) = seen {
                    self.metrics.between_tokens_seconds.observe(between.as_secs_f64());
                }
                if self.effort.generation_tokens == 0 {
                    let waited = at.saturating_duration_since(self.tally.began).as_secs_f64();
                    self.effort.first_token_seconds = waited;
                    self.metrics.first_token_seconds.observe(waited);
                }
                self.effort.generation_tokens += 1;
                self.tally.caller.charge(1);
                self.metrics.generation_tokens.inc();
            }
            Note::Pausing { to } => tracing::debug!(session = %self.id, %to, "session pauses to move"),
            Note::Moved { from, key, stood_still } => {
                let seconds = stood_still.as_secs_f64();
                self.metrics.hand_over_seconds.observe(seconds);
                tracing::info!(session = %self.id, ring = %key.ring, %from, to = %key.generation, position = self.run.position(), seconds, "session moved");
            }
            Note::MoveFailed => self.metrics.hand_over_failures.inc(),
            Note::Interrupted { ring, failure } => {
                tracing::warn!(session = %self.id, model = %self.model, %ring, position = self.run.position(), %failure, "session interrupted");
            }
            Note::Replayed { n_tokens } => {
                self.effort.replays += 1;
                self.metrics.replays.inc();
                self.metrics.replayed_tokens.inc_by(n_tokens.into());
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        lock(&self.books.registry).remove(self.id);
    }
}
