//! Gateway: the door as the controller holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polyphony_protocol::{Frame, PlanGeneration, RingId};
use tokio::sync::watch;

use crate::callers::Callers;
use crate::config::GatewayConfig;
use crate::http;
use crate::keys::KeyBook;
use crate::metrics::Metrics;
use crate::rings::Rings;
use crate::routes::{PhoneLinks, RouteTable};

/// The door and its sessions.
pub struct Gateway {
    rings: Arc<Rings>,
    metrics: Arc<Metrics>,
    router: axum::Router,
}

// === impl Gateway ===

impl Gateway {
    /// Starts nothing: sessions begin with requests to [`Gateway::router`].
    pub fn new(
        config: GatewayConfig,
        links: Arc<dyn PhoneLinks>,
        routes: watch::Receiver<Arc<RouteTable>>,
        keys: watch::Receiver<Arc<KeyBook>>,
    ) -> Arc<Self> {
        let metrics = Metrics::new(routes.clone(), keys.clone());
        let config = Arc::new(config);
        let rings = Rings::new(config.clone(), links, routes, metrics.clone());
        let callers = Callers::new(config.keys_required, keys, metrics.clone());
        let router = http::router(rings.clone(), config, metrics.clone(), callers);
        Arc::new(Self { rings, metrics, router })
    }

    /// Takes a `Token`, `Failed`, `Paused` or `Resumed` frame that came over a phone's link. All others, and those of sessions that have
    /// moved on, are counted and let be. Never blocks.
    pub fn deliver(&self, phone: &str, frame: Frame) {
        self.rings.deliver(phone, frame);
    }

    /// A phone's link ended: sessions on rings with this phone are replayed.
    pub fn phone_gone(&self, phone: &str) {
        self.rings.phone_gone(phone);
    }

    /// Sessions that run on one generation of a ring: it may be torn down when there is none.
    pub fn sessions_in(&self, ring: RingId, generation: PlanGeneration) -> usize {
        self.rings.sessions_in(ring, generation)
    }

    /// Sessions of a model id that wait for a place on a ring.
    pub fn sessions_waiting(&self, deployment: &str) -> usize {
        self.rings.n_waiting(deployment)
    }

    /// The program is about to end: every session ends with an error that asks to try again, and no new one begins.
    pub fn close(&self) {
        self.rings.close();
    }

    /// Decode speed of one session in tokens/s, from recent ones of this model id: the inverse of the median time
    /// between two tokens. `None` until there are some.
    pub fn measured_tokens_per_second(&self, deployment: &str) -> Option<f64> {
        self.rings.tokens_per_second(deployment)
    }

    /// By manifest digest, the models whose numbers a phone found to be none, with its words: told as long as they are on the table.
    pub fn unsound_models(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.rings.unsound_models()
    }

    /// Digests of the models whose text side is in memory: they can be asked though their files are gone.
    pub fn readable_models(&self) -> BTreeSet<String> {
        self.rings.readable_models()
    }

    /// What `GET /metrics` shows.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Every HTTP route, however often it is asked for within the same bounds. Has to be served on a tokio runtime.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }
}
