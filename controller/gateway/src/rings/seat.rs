//! Seat: how a session gets its place on a ring and gives it back, whatever becomes of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::books::Books;
use super::patience::{Ended, Patience, Prospect};
use crate::admission::{Kind, Ticket};
use crate::errors::ApiError;
use crate::lock::lock;
use crate::metrics::Present;
use crate::routes::RingRoute;

/// However short suspicions are, nobody looks for a place more often.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// A session's place on a ring; given back when dropped.
pub(super) struct Slot {
    pub(super) ring: RingRoute,
    /// Tokens of prompt and answer that the session may have there.
    pub(super) context_length: u32,
    books: Arc<Books>,
    /// Counts the session once, however many places it has while it moves.
    running: Option<Present>,
}

/// A place in the queue; given up when dropped.
struct Seat<'a> {
    books: &'a Books,
    model: &'a str,
    ticket: Ticket,
    _waiting: Present,
}

// === impl Books ===

impl Books {
    /// Waits for a place on a ring.
    ///
    /// # Errors
    /// As [`Sessions::start`](crate::sessions::Sessions::start); how long each waits for what is [`Patience`]'s.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        model: &str,
        manifest_digest: &str,
        kind: Kind,
    ) -> Result<Slot, ApiError> {
        let config = &self.config;
        let mut patience = Patience::new(kind, config, Instant::now());
        let mut routes = self.routes.clone();
        let mut freed = self.freed.subscribe();
        let metrics = self.metrics.model(model);
        let ticket = lock(&self.admission).enter(model, kind);
        let seat = Seat { books: self, model, ticket, _waiting: metrics.wait() };
        loop {
            let table = Arc::clone(&routes.borrow_and_update());
            freed.borrow_and_update();
            if self.is_closing() {
                return Err(ApiError::closing(config.retry_after));
            }
            let now = Instant::now();
            let (prospect, reason) = match table.deployments.get(model) {
                // Its tokens would mean something else there.
                Some(route) if !route.manifest_digest.is_empty() && route.manifest_digest != manifest_digest => {
                    return Err(ApiError::model_changed(model, config.retry_after));
                }
                Some(route) => {
                    let (placed, n_before) = {
                        let now = now.into_std();
                        let mut admission = lock(&self.admission);
                        admission.review(&table, now);
                        let placed = admission.try_place(model, seat.ticket, route, now);
                        (placed, admission.n_before(model, seat.ticket))
                    };
                    if let Some(ring) = placed {
                        let context_length = route.context_length;
                        let running = Some(metrics.run());
                        return Ok(Slot { ring, context_length, books: Arc::clone(self), running });
                    }
                    let prospect = Prospect::of(route);
                    let is_full = kind == Kind::New && n_before >= config.max_waiting;
                    if patience.is_new() && is_full && prospect != Prospect::None {
                        return Err(ApiError::queue_full(model, n_before, config.retry_after));
                    }
                    (prospect, route.unavailable_reason.as_deref().filter(|_| route.rings.is_empty()))
                }
                None if kind == Kind::New => {
                    return Err(ApiError::model_not_found(model, table.deployments.keys()));
                }
                // An object that is deleted and made again at once keeps its clients.
                None => (Prospect::None, Some("its deployment is gone")),
            };
            let until = match patience.look(prospect, now) {
                ControlFlow::Continue(until) => until,
                ControlFlow::Break(Ended::Hopeless) if kind == Kind::New => {
                    return Err(ApiError::not_ready(model, reason, config.retry_after));
                }
                ControlFlow::Break(Ended::Hopeless) => {
                    return Err(ApiError::ring_lost(model, reason, config.retry_after));
                }
                ControlFlow::Break(Ended::Late(waited)) => {
                    return Err(ApiError::waited_too_long(model, waited, reason, config.retry_after));
                }
            };
            // A suspicion ends without anybody's word.
            let look_again = until.min(now + config.suspicion.max(SHORTEST_LOOK));
            let change = async {
                tokio::select! {
                    () = changed(&mut routes) => {}
                    () = changed(&mut freed) => {}
                    () = self.closing() => {}
                }
            };
            let _ = timeout_at(look_again, change).await;
        }
    }
}

// === impl Slot ===

impl Slot {
    /// A place on the generation that follows this one: sessions of both are counted together, so there is one.
    pub(super) fn on_next(&self, ring: RingRoute) -> Self {
        lock(&self.books.admission).claim((ring.ring, ring.generation));
        let context_length = self.context_length;
        Self { ring, context_length, books: Arc::clone(&self.books), running: None }
    }

    /// The session has moved to `next`; the place here is given back.
    pub(super) fn move_to(&mut self, mut next: Self) {
        next.running = self.running.take();
        *self = next;
    }
}

/// Waits for a change; for ever where there is nobody left to make one.
pub(super) async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.books.admission).release((self.ring.ring, self.ring.generation));
        self.books.freed.send_replace(());
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        lock(&self.books.admission).leave(self.model, self.ticket);
        self.books.freed.send_replace(());
    }
}
