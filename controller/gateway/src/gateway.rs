//! Gateway: the door as the controller holds it.

use std::sync::Arc;

use polyphony_protocol::{Frame, PlanGeneration, RingId};
use tokio::sync::watch;

use crate::config::GatewayConfig;
use crate::http;
use crate::metrics::Metrics;
use crate::model_text::ModelTexts;
use crate::request::Limits;
use crate::routes::{PhoneLinks, RouteTable};
use crate::sessions::Sessions;

/// The door and its sessions.
pub struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) texts: ModelTexts,
    pub(crate) metrics: Arc<Metrics>,
    routes: watch::Receiver<Arc<RouteTable>>,
}

// === impl Gateway ===

impl Gateway {
    /// Starts nothing: sessions begin with requests to [`Gateway::router`].
    pub fn new(
        config: GatewayConfig,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
    ) -> Arc<Self> {
        let metrics = Metrics::new(routes.clone());
        let sessions = Sessions::new(config.clone(), links, routes.clone(), metrics.clone());
        let texts = ModelTexts::new(config.max_cached_models);
        Arc::new(Self { config, sessions, texts, metrics, routes })
    }

    /// Takes a `Token`, `Failed`, `Paused` or `Resumed` frame that came over a phone's link. All others, and those of sessions that have
    /// moved on, are counted and let be. Never blocks.
    pub fn deliver(&self, phone: &str, frame: Frame) {
        self.sessions.deliver(phone, frame);
    }

    /// A phone's link ended: sessions on rings with this phone are replayed.
    pub fn phone_gone(&self, phone: &str) {
        self.sessions.phone_gone(phone);
    }

    /// Sessions that run on one generation of a ring: it may be torn down when there is none.
    pub fn sessions_in(&self, ring: RingId, generation: PlanGeneration) -> usize {
        self.sessions.sessions_in(ring, generation)
    }

    /// Sessions of a model id that wait for a place on a ring.
    pub fn sessions_waiting(&self, deployment: &str) -> usize {
        self.sessions.n_waiting(deployment)
    }

    /// The program is about to end: every session ends with an error that asks to try again, and no new one begins.
    pub fn close(&self) {
        self.sessions.close();
    }

    /// Decode speed of one session in tokens/s, from recent ones of this model id: the inverse of the median time
    /// between two tokens. `None` until there are some.
    pub fn measured_tokens_per_second(&self, deployment: &str) -> Option<f64> {
        self.sessions.tokens_per_second(deployment)
    }

    /// What `GET /metrics` shows.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Every HTTP route. Has to be served on a tokio runtime.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        http::router(Arc::clone(self))
    }

    pub(crate) fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.routes.borrow())
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits { max_stop_bytes: self.config.max_stop_bytes }
    }
}
