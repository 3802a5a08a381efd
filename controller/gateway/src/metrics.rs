//! Metrics: what the gateway counts, for `GET /metrics`. The registry is the program's: the controller adds its own to it.
//!
//! A session holds the counters of its model, so that a token adds to atomics and takes no lock.

mod key;
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Registry, TextEncoder};
use tokio::sync::watch;

use crate::errors::ApiError;
use crate::keys::KeyBook;
use crate::lock::lock;
use crate::routes::RouteTable;

use key::Keys;
use model::VALID;

pub(crate) use key::KeyMetrics;
pub(crate) use model::{ModelMetrics, Present};

/// Everything that the gateway counts.
pub struct Metrics {
    registry: Registry,
    models: Arc<Models>,
    /// Failures of requests that name no model that there is.
    nameless_failures: IntCounterVec,
    /// By the names of keys.
    keys: Keys,
    /// Frames of unknown sessions, older epochs or phones without a say.
    pub(crate) ignored_frames: IntCounter,
}

/// One set of counters a model id: those on the route table, and those that still have sessions.
struct Models {
    routes: watch::Receiver<Arc<RouteTable>>,
    by_id: Mutex<BTreeMap<String, Arc<ModelMetrics>>>,
}

/// What comes and goes, as the registry takes it: it knows one collector that describes nothing.
struct Rows(Arc<Models>, Keys);

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(routes: watch::Receiver<Arc<RouteTable>>, book: watch::Receiver<Arc<KeyBook>>) -> Arc<Self> {
        let registry = Registry::new();
        let register = |collector: Box<dyn Collector>| registry.register(collector).expect(VALID);
        let models = Arc::new(Models { routes, by_id: Mutex::default() });
        let keys = Keys::new(book);
        register(Box::new(Rows(models.clone(), keys.clone())));
        let nameless_failures = model::failures("");
        register(Box::new(nameless_failures.clone()));
        let ignored_frames = IntCounter::new(
            "polyphony_ignored_frames_total",
            "Frames from phones that belonged to no session at that moment: late, repeated, or from a phone without a say.",
        );
        let ignored_frames = ignored_frames.expect(VALID);
        register(Box::new(ignored_frames.clone()));
        Arc::new(Self { registry, models, nameless_failures, keys, ignored_frames })
    }

    /// The program's registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// When two values of one name and the same labels exist.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The counters of a model that the route table names.
    pub(crate) fn model(&self, id: &str) -> Arc<ModelMetrics> {
        self.models.get(id)
    }

    /// The counters of a client's key.
    pub(crate) fn key(&self, name: &str) -> KeyMetrics {
        self.keys.of(name)
    }

    pub(crate) fn fail_nameless(&self, error: &ApiError) {
        self.nameless_failures.with_label_values(&[error.code.unwrap_or_default()]).inc();
    }
}

// === impl Models ===

impl Models {
    fn get(&self, id: &str) -> Arc<ModelMetrics> {
        let mut by_id = lock(&self.by_id);
        if let Some(known) = by_id.get(id) {
            return known.clone();
        }
        by_id.entry(id.to_owned()).or_insert_with(|| Arc::new(ModelMetrics::new(id))).clone()
    }

    /// Those that there are now: a deployment counts from its beginning, and no longer than it lives.
    fn current(&self) -> Vec<Arc<ModelMetrics>> {
        let table = Arc::clone(&self.routes.borrow());
        let mut by_id = lock(&self.by_id);
        by_id.retain(|id, model| table.deployments.contains_key(id) || Arc::strong_count(model) > 1);
        for id in table.deployments.keys() {
            by_id.entry(id.clone()).or_insert_with(|| Arc::new(ModelMetrics::new(id)));
        }
        by_id.values().cloned().collect()
    }
}

impl Collector for Rows {
    /// Which there are depends on the route table, and on the keys.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let models = self.0.current();
        models.iter().flat_map(|model| model.families()).chain(self.1.families()).collect()
    }
}
