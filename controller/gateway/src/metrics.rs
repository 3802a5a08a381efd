//! Metrics: what the gateway counts, for `GET /metrics`. The registry is the program's: the controller adds its own to it.
//!
//! A session holds the counters of its model, so that a token adds to atomics and takes no lock.

mod model;
mod tally;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Registry, TextEncoder};
use tokio::sync::watch;

use crate::errors::ApiError;
use crate::rings::lock;
use crate::routes::RouteTable;

pub(crate) use model::{ModelMetrics, Present};
pub(crate) use tally::{Effort, Tally};

/// Everything that the gateway counts.
pub struct Metrics {
    registry: Registry,
    models: Arc<Models>,
    /// Failures of requests that name no model that there is.
    nameless_failures: IntCounterVec,
    /// Frames of unknown sessions, older epochs or phones without a say.
    pub(crate) ignored_frames: IntCounter,
}

/// One set of counters a model id: those on the route table, and those that still have sessions.
struct Models {
    routes: watch::Receiver<Arc<RouteTable>>,
    by_id: Mutex<BTreeMap<String, Arc<ModelMetrics>>>,
}

/// [`Models`] as the registry takes them.
struct Rows(Arc<Models>);

const VALID: &str = "names, labels and buckets are constants, valid and each used once";

// === impl Metrics ===

impl Metrics {
    pub(crate) fn new(routes: watch::Receiver<Arc<RouteTable>>) -> Arc<Self> {
        let registry = Registry::new();
        let register = |collector: Box<dyn Collector>| registry.register(collector).expect(VALID);
        let models = Arc::new(Models { routes, by_id: Mutex::default() });
        register(Box::new(Rows(models.clone())));
        let nameless_failures = model::failures("");
        register(Box::new(nameless_failures.clone()));
        let ignored_frames = IntCounter::new(
            "polyphony_ignored_frames_total",
            "Frames from phones that belonged to no session at that moment: late, repeated, or from a phone without a say.",
        );
        let ignored_frames = ignored_frames.expect(VALID);
        register(Box::new(ignored_frames.clone()));
        Arc::new(Self { registry, models, nameless_failures, ignored_frames })
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

    fn fail_nameless(&self, error: &ApiError) {
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
    /// Which there are depends on the route table.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.current().iter().flat_map(|model| model.families()).collect()
    }
}
