//! Rings: answers prompts on rings of phones. Admits sessions, listens for their frames, and runs each one in a task of its own.

mod runner;
mod seat;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use polyphony_protocol::{Frame, PlanGeneration, RingId, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::admission::{Admission, Kind};
use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::metrics::Metrics;
use crate::model_text::ModelTexts;
use crate::registry::{Heard, Registry};
use crate::routes::{PhoneLinks, RouteTable};
use crate::sessions::{Answer, Job, Model, Sessions};
use crate::speed::Speeds;

/// Every session on every ring. No two of its locks are ever held at once.
pub(crate) struct Rings {
    config: Arc<GatewayConfig>,
    links: Arc<dyn PhoneLinks>,
    routes: watch::Receiver<Arc<RouteTable>>,
    texts: ModelTexts,
    admission: Mutex<Admission>,
    registry: Mutex<Registry>,
    speeds: Mutex<Speeds>,
    /// Ticks when a place may have come free.
    freed: watch::Sender<()>,
    is_closing: watch::Sender<bool>,
    /// By manifest digest, why the numbers of a model are none.
    unsound: watch::Sender<BTreeMap<String, String>>,
    next_id: AtomicU64,
    metrics: Arc<Metrics>,
}

// === impl Rings ===

impl Rings {
    pub(crate) fn new(
        config: Arc<GatewayConfig>,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            texts: ModelTexts::new(config.max_cached_models),
            config,
            links,
            routes,
            admission: Mutex::default(),
            registry: Mutex::default(),
            speeds: Mutex::default(),
            freed: watch::Sender::new(()),
            is_closing: watch::Sender::new(false),
            unsound: watch::Sender::default(),
            // Phones may still hold sessions of a gateway before this one.
            next_id: AtomicU64::new(random()),
            metrics,
        })
    }

    async fn begin(self: Arc<Self>, job: Job) -> Result<Answer, ApiError> {
        let slot = self.acquire(&job.model, &job.manifest_digest, Kind::New).await?;
        let table = self.models();
        lock(&self.speeds).retain(|deployment| table.deployments.contains_key(deployment));
        let window = self.config.credit_window.max(1);
        // As many as the ring may run ahead: a client that stops reading stops the ring soon.
        let (outputs, receiver) = mpsc::channel(window as usize);
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let span = job.tally.span.clone();
        span.record("session", tracing::field::display(id));
        let runner = runner::Runner::new(self, id, job, outputs);
        tokio::spawn(runner.run(slot).instrument(span));
        Ok(Answer::new(receiver))
    }

    async fn find(&self, id: &str) -> Result<Model, ApiError> {
        let table = self.models();
        let known = || ApiError::model_not_found(id, table.deployments.keys());
        let route = table.deployments.get(id).ok_or_else(known)?.clone();
        let unread = |reason: &str| ApiError::not_ready(id, Some(reason), self.config.retry_after);
        let text = match route.model_path.clone() {
            Some(path) => {
                let reading = self.texts.get(&route.manifest_digest, path);
                let read = timeout(self.config.queue_deadline, reading).await;
                read.map_err(|_| unread("its model file takes too long to read"))?.map_err(ApiError::internal)?
            }
            // Phones that serve do not need the file, nor does who has read it.
            None => self.texts.known(&route.manifest_digest).ok_or_else(|| {
                unread(route.unavailable_reason.as_deref().unwrap_or("its model file is not resolved yet"))
            })?,
        };
        Ok(Model { id: id.to_owned(), route, text })
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
        let table = self.models();
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

    pub(crate) fn unsound_models(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.unsound.subscribe()
    }

    pub(crate) fn close(&self) {
        self.is_closing.send_replace(true);
    }

    /// Waits until the program ends.
    async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_closing.subscribe().wait_for(|is_closing| *is_closing).await;
    }

    /// Remembers what a phone said of a model's numbers, as long as the model is on the table.
    fn note_unsound(&self, manifest_digest: &str, why: String) {
        let table = self.models();
        self.unsound.send_modify(|unsound| {
            unsound.retain(|digest, _| table.deployments.values().any(|route| route.manifest_digest == *digest));
            unsound.insert(manifest_digest.to_owned(), why);
        });
    }
}

impl Sessions for Rings {
    fn models(&self) -> Arc<RouteTable> {
        Arc::clone(&self.routes.borrow())
    }

    fn model<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        self.find(id).boxed()
    }

    fn start(self: Arc<Self>, job: Job) -> BoxFuture<'static, Result<Answer, ApiError>> {
        self.begin(job).boxed()
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
