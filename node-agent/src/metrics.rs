//! Metrics: what the agent shows at `/metrics`. One registry a process, owned by the agent; nothing here is global.
//!
//! A step adds to atomics that its segment holds already. What the [`Board`] knows is read at the scrape and kept nowhere
//! else, so that `/metrics` and heartbeats tell the same.

mod doorway;
mod phone;
mod segments;
mod traffic;

use std::sync::Arc;

use polyphony_protocol::hub::Speed;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounter, Opts, Registry, TextEncoder};
use tokio::sync::watch;

use crate::board::Board;
use crate::budget::Budget;
use crate::duty::Duty;
use crate::reading::Reading;

pub use doorway::{bind, serve};
pub use traffic::Traffic;

/// Everything that this agent counts.
pub struct Metrics {
    registry: Registry,
    /// Frames and bytes that went out on links.
    pub traffic: Traffic,
    /// Bytes of tensors that came from the host.
    pub weights_fetched_bytes: IntCounter,
}

/// What of a phone stays as it is while the agent runs.
#[derive(Clone, Debug)]
pub struct Labels {
    pub version: String,
    pub backend: String,
    pub device: String,
    pub speeds: Vec<Speed>,
}

/// Values that others own, read at the scrape.
struct Readings {
    board: Arc<Board>,
    memory: Budget,
    labels: Labels,
    readings: watch::Receiver<Reading>,
    duty: Duty,
}

// === impl Metrics ===

impl Metrics {
    pub fn new(
        labels: Labels,
        board: Arc<Board>,
        memory: Budget,
        readings: watch::Receiver<Reading>,
        duty: Duty,
    ) -> Self {
        let registry = Registry::new();
        let traffic = Traffic::new(&registry);
        let weights_fetched_bytes = IntCounter::new(
            "polyphony_weights_fetched_bytes_total",
            "Bytes of tensors that came from the host, not from this phone's cache.",
        );
        let weights_fetched_bytes = register(&registry, weights_fetched_bytes);
        register_one(&registry, Readings { board, memory, labels, readings, duty });
        Self { registry, traffic, weights_fetched_bytes }
    }

    /// Everything in Prometheus' text format. Reads files of the system: not for async code.
    ///
    /// # Errors
    /// When two values of one name and the same labels exist.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

// === impl Readings ===

impl Collector for Readings {
    /// Which families there are depends on what the phone holds and measures.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = segments::families(&self.board);
        families.extend(phone::memory_families(&self.memory));
        let now = *self.readings.borrow();
        families.extend(phone::sensor_families(&now));
        families.extend(phone::network_families(now.network, now.metered));
        families.extend(phone::policy_families(&self.duty, self.board.withdrawal().is_some()));
        families.extend(phone::energy_families(&self.board.energy()));
        families.extend(phone::label_families(&self.labels));
        families
    }
}

const VALID: &str = "names, labels and buckets are constants, valid and each used once";

/// Registers a metric and hands it back.
fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect(VALID);
    register_one(registry, metric.clone());
    metric
}

fn register_one(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect(VALID);
}

/// One family of gauges with one label, from values as they are now; none without values.
fn gauges(name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (String, f64)>) -> Vec<MetricFamily> {
    let family = GaugeVec::new(Opts::new(name, help), &[label]).expect(VALID);
    for (label, value) in values {
        family.with_label_values(&[&label]).set(value);
    }
    family.collect()
}

/// One gauge without labels; none without a value.
fn gauge(name: &str, help: &str, value: Option<f64>) -> Vec<MetricFamily> {
    let Some(value) = value else { return Vec::new() };
    let gauge = prometheus::Gauge::new(name, help).expect(VALID);
    gauge.set(value);
    gauge.collect()
}

#[cfg(test)]
mod tests;
