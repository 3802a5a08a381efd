//! Seat: how a session gets its place on a ring and gives it back, whatever becomes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::books::Books;
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
    /// As [`Sessions::start`](crate::sessions::Sessions::start); a replay does not mind that no ring is ready now, and waits for one.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        model: &str,
        manifest_digest: &str,
        kind: Kind,
    ) -> Result<Slot, ApiError> {
        let config = &self.config;
        let patience = match kind {
            Kind::New => config.queue_deadline,
            Kind::Replay => config.replay_deadline,
        };
        let deadline = Instant::now() + patience;
        let mut routes = self.routes.clone();
        let mut freed = self.freed.subscribe();
        let metrics = self.metrics.model(model);
        let ticket = lock(&self.admission).enter(model, kind);
        let seat = Seat { books: self, model, ticket, _waiting: metrics.wait() };
        let (mut is_first_look, mut was_served) = (true, false);
        loop {
            let table = Arc::clone(&routes.borrow_and_update());
            freed.borrow_and_update();
            if self.is_closing() {
                return Err(ApiError::closing(config.retry_after));
            }
            let reason = match table.deployments.get(model) {
                // Its tokens would mean something else there.
                Some(route) if !route.manifest_digest.is_empty() && route.manifest_digest != manifest_digest => {
                    return Err(ApiError::model_changed(model, config.retry_after));
                }
                Some(route) => {
                    let now = Instant::now().into_std();
                    let (placed, n_before) = {
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
                    was_served |= !route.rings.is_empty();
                    // Who came for a ring that is lost since waits for the next, whoever hoped for a plan is told that there is none.
                    if kind == Kind::New && !was_served && !route.is_planned {
                        let reason = route.unavailable_reason.as_deref();
                        return Err(ApiError::not_ready(model, reason, config.retry_after));
                    }
                    if kind == Kind::New && is_first_look && n_before >= config.max_waiting {
                        return Err(ApiError::queue_full(model, n_before, config.retry_after));
                    }
                    route.unavailable_reason.as_deref().filter(|_| route.rings.is_empty())
                }
                None if kind == Kind::New => {
                    return Err(ApiError::model_not_found(model, table.deployments.keys()));
                }
                // An object that is deleted and made again keeps its clients.
                None => Some("its deployment is gone"),
            };
            is_first_look = false;
            if Instant::now() >= deadline {
                return Err(ApiError::waited_too_long(model, patience, reason, config.retry_after));
            }
            // A suspicion ends without anybody's word.
            let look_again = deadline.min(Instant::now() + config.suspicion.max(SHORTEST_LOOK));
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
