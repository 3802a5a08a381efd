//! Sessions: admits them, listens for their frames, and runs each one in a task of its own.

mod moving;
mod run;
mod seat;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_protocol::session::SessionOptions;
use polyphony_protocol::{Frame, PlanGeneration, RingId, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument;

use crate::admission::{Admission, Kind};
use crate::answer::Output;
use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::metrics::{Metrics, Tally};
use crate::model_text::ModelText;
use crate::registry::{Heard, Registry};
use crate::routes::{PhoneLinks, RouteTable};
use crate::speed::Speeds;

/// A request that is ready to run.
pub(crate) struct Job {
    /// The model id of the route table.
    pub(crate) model: String,
    /// Of the model file that the prompt's tokens are of.
    pub(crate) manifest_digest: String,
    pub(crate) text: Arc<ModelText>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) options: SessionOptions,
    pub(crate) stops: Vec<String>,
    pub(crate) tally: Arc<Tally>,
}

/// Every session of the gateway. No two of its locks are ever held at once.
pub(crate) struct Sessions {
    config: GatewayConfig,
    links: Arc<dyn PhoneLinks>,
    routes: watch::Receiver<Arc<RouteTable>>,
    admission: Mutex<Admission>,
    registry: Mutex<Registry>,
    speeds: Mutex<Speeds>,
    /// Ticks when a place may have come free.
    freed: watch::Sender<()>,
    is_closing: watch::Sender<bool>,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
}

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new(
        config: GatewayConfig,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            links,
            routes,
            admission: Mutex::default(),
            registry: Mutex::default(),
            speeds: Mutex::default(),
            freed: watch::Sender::new(()),
            is_closing: watch::Sender::new(false),
            // Phones may still hold sessions of a gateway before this one.
            next_id: AtomicU64::new(random()),
            metrics,
        })
    }

    /// Waits for a place and starts the session; what it says comes through the receiver. To drop that closes it.
    ///
    /// # Errors
    /// 503 when there is no ready ring or the deployment's model has changed, 429 when too many wait, 503 when no place came free in time.
    pub(crate) async fn start(self: &Arc<Self>, job: Job) -> Result<mpsc::Receiver<Output>, ApiError> {
        let slot = self.acquire(&job.model, &job.manifest_digest, Kind::New).await?;
        let table = Arc::clone(&self.routes.borrow());
        lock(&self.speeds).retain(|deployment| table.deployments.contains_key(deployment));
        let window = self.config.credit_window.max(1);
        // As many as the ring may run ahead: a client that stops reading stops the ring soon.
        let (outputs, receiver) = mpsc::channel(window as usize);
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let span = job.tally.span.clone();
        span.record("session", tracing::field::display(id));
        let runner = run::Runner::new(Arc::clone(self), id, job, outputs);
        tokio::spawn(runner.run(slot).instrument(span));
        Ok(receiver)
    }

    pub(crate) fn deliver(&self, phone: &str, frame: Frame) {
        let heard = match frame {
            Frame::Token(token) => lock(&self.registry).token(phone, token, Instant::now()),
            Frame::Failed(failed) => lock(&self.registry).failed(phone, failed),
            Frame::Paused { key, position } => lock(&self.registry).paused(phone, key, position),
            Frame::Resumed { key, stage, position } => lock(&self.registry).resumed(phone, key, stage, position),
            _ => Heard::No,
        };
        if heard == Heard::No {
            self.metrics.ignored_frames.inc();
        }
    }

    pub(crate) fn phone_gone(&self, phone: &str) {
        // First the suspicion: a session that is told must not be placed there again.
        let until = (Instant::now() + self.config.suspicion).into_std();
        let table = Arc::clone(&self.routes.borrow());
        let rings = table.deployments.values().flat_map(|route| &route.rings);
        for ring in rings.filter(|ring| ring.phones.iter().any(|stage| stage == phone)) {
            lock(&self.admission).suspect((ring.ring, ring.generation), until);
        }
        lock(&self.registry).phone_gone(phone);
    }

    pub(crate) fn sessions_in(&self, ring: RingId, generation: PlanGeneration) -> usize {
        lock(&self.admission).sessions_in((ring, generation))
    }

    pub(crate) fn tokens_per_second(&self, deployment: &str) -> Option<f64> {
        lock(&self.speeds).tokens_per_second(deployment)
    }

    pub(crate) fn n_waiting(&self, deployment: &str) -> usize {
        lock(&self.admission).n_waiting(deployment)
    }

    pub(crate) fn close(&self) {
        self.is_closing.send_replace(true);
    }

    /// Waits until the program ends.
    async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_closing.subscribe().wait_for(|is_closing| *is_closing).await;
    }
}

/// A number that no client foresees, for seeds and ids.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The books stay whole even if a task died with the lock: no method leaves them half-written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
