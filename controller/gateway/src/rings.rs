//! Rings: answers prompts on rings of phones. Admits sessions, listens for their frames, and runs each one in a task of its own.

mod books;
mod patience;
mod runner;
mod seat;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use polyphony_protocol::{Frame, PlanGeneration, RingId, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument;

use crate::admission::Kind;
use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::lock::lock;
use crate::metrics::Metrics;
use crate::model_text::ModelTexts;
use crate::random::random;
use crate::registry::Heard;
use crate::routes::{PhoneLinks, RouteTable};
use crate::sessions::{Answer, Job, Model, Sessions};

use books::Books;
use patience::Prospect;
use runner::Runner;
use seat::changed;

/// Every session on every ring.
pub(crate) struct Rings {
    books: Arc<Books>,
    texts: ModelTexts,
    next_id: AtomicU64,
}

// === impl Rings ===

impl Rings {
    pub(crate) fn new(
        config: Arc<GatewayConfig>,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let texts = ModelTexts::new(config.max_cached_models);
        let books = Arc::new(Books::new(config, links, routes, metrics));
        // Phones may still hold sessions of a gateway before this one.
        Arc::new(Self { books, texts, next_id: AtomicU64::new(random()) })
    }

    async fn begin(self: Arc<Self>, job: Job) -> Result<Answer, ApiError> {
        let books = self.books.clone();
        let slot = books.acquire(&job.model, &job.manifest_digest, Kind::New).await?;
        let table = books.table();
        lock(&books.speeds).retain(|deployment| table.deployments.contains_key(deployment));
        let window = books.config.credit_window.max(1);
        // As many as the ring may run ahead: a client that stops reading stops the ring soon.
        let (outputs, receiver) = mpsc::channel(window as usize);
        let id = SessionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let span = job.tally.span.clone();
        span.record("session", tracing::field::display(id));
        let runner = Runner::new(books, id, job, outputs);
        tokio::spawn(runner.run(slot).instrument(span));
        Ok(Answer::new(receiver))
    }

    async fn find(&self, id: &str) -> Result<Model, ApiError> {
        let config = &self.books.config;
        let began = Instant::now();
        let unread = |reason: &str| ApiError::not_ready(id, Some(reason), config.retry_after);
        let mut routes = self.books.routes.clone();
        loop {
            let table = Arc::clone(&routes.borrow_and_update());
            let known = || ApiError::model_not_found(id, table.deployments.keys());
            let route = table.deployments.get(id).ok_or_else(known)?.clone();
            if let Some(path) = route.model_path.clone() {
                let read =
                    timeout_at(began + config.queue_deadline, self.texts.get(&route.manifest_digest, path)).await;
                let read = read.map_err(|_| unread("its model file takes too long to read"))?;
                return Ok(Model { id: id.to_owned(), route, text: read.map_err(ApiError::internal)? });
            }
            // Phones that serve do not need the file, nor does who has read it.
            if let Some(text) = self.texts.known(&route.manifest_digest) {
                return Ok(Model { id: id.to_owned(), route, text });
            }
            // Where nothing is said against it the controller is at the file, or its phones are about to be back: after a start, say.
            if route.unavailable_reason.is_some() || Prospect::of(&route) == Prospect::None {
                return Err(unread(
                    route.unavailable_reason.as_deref().unwrap_or("its model file is not resolved yet"),
                ));
            }
            tokio::select! {
                () = changed(&mut routes) => {}
                () = self.books.closing() => return Err(ApiError::closing(config.retry_after)),
                () = sleep_until(began + config.no_plan_deadline) => return Err(unread("its model file is still being verified")),
            }
        }
    }

    pub(crate) fn deliver(&self, phone: &str, frame: Frame) {
        let registry = || lock(&self.books.registry);
        let heard = match frame {
            Frame::Token(token) => registry().token(phone, token, Instant::now()),
            Frame::Failed(failed) => registry().failed(phone, failed),
            Frame::Paused { key, position } => registry().paused(phone, key, position),
            Frame::Resumed { key, stage, position } => registry().resumed(phone, key, stage, position),
            _ => Heard::No,
        };
        if heard == Heard::No {
            self.books.metrics.ignored_frames.inc();
        }
    }

    pub(crate) fn phone_gone(&self, phone: &str) {
        // First the suspicion: a session that is told must not be placed there again.
        let table = self.models();
        let rings = table.deployments.values().flat_map(|route| &route.rings);
        for ring in rings.filter(|ring| ring.phones.iter().any(|stage| stage == phone)) {
            self.books.suspect((ring.ring, ring.generation));
        }
        lock(&self.books.registry).phone_gone(phone);
    }

    pub(crate) fn sessions_in(&self, ring: RingId, generation: PlanGeneration) -> usize {
        self.books.sessions_in(ring, generation)
    }

    pub(crate) fn tokens_per_second(&self, deployment: &str) -> Option<f64> {
        lock(&self.books.speeds).tokens_per_second(deployment)
    }

    pub(crate) fn n_waiting(&self, deployment: &str) -> usize {
        lock(&self.books.admission).n_waiting(deployment)
    }

    pub(crate) fn unsound_models(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.books.unsound_models()
    }

    pub(crate) fn readable_models(&self) -> BTreeSet<String> {
        self.texts.all_known()
    }

    pub(crate) fn close(&self) {
        self.books.close();
    }
}

impl Sessions for Rings {
    fn models(&self) -> Arc<RouteTable> {
        self.books.table()
    }

    fn model<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        self.find(id).boxed()
    }

    fn start(self: Arc<Self>, job: Job) -> BoxFuture<'static, Result<Answer, ApiError>> {
        self.begin(job).boxed()
    }
}
