//! What is counted of a client's key, by its name; it goes with the key.

use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Opts};
use tokio::sync::watch;

use super::model::VALID;
use crate::keys::KeyBook;

/// One key's counters.
#[derive(Clone)]
pub(crate) struct KeyMetrics {
    pub(crate) requests: IntCounter,
    pub(crate) limited: IntCounter,
    pub(crate) tokens: IntCounter,
}

/// Those of all keys.
#[derive(Clone)]
pub(super) struct Keys {
    book: watch::Receiver<Arc<KeyBook>>,
    requests: IntCounterVec,
    limited: IntCounterVec,
    tokens: IntCounterVec,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new(book: watch::Receiver<Arc<KeyBook>>) -> Self {
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["key"]).expect(VALID);
        Self {
            book,
            requests: counter(
                "polyphony_key_requests_total",
                "Requests that a client's key was let in with, by the key's name.",
            ),
            limited: counter(
                "polyphony_key_limited_total",
                "Requests that were refused for the limits of the key that they came with.",
            ),
            tokens: counter(
                "polyphony_key_tokens_total",
                "Tokens of prompts and answers, by the name of the key that asked.",
            ),
        }
    }

    pub(super) fn of(&self, name: &str) -> KeyMetrics {
        KeyMetrics {
            requests: self.requests.with_label_values(&[name]),
            limited: self.limited.with_label_values(&[name]),
            tokens: self.tokens.with_label_values(&[name]),
        }
    }

    /// Of the keys that there are now.
    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let book = Arc::clone(&self.book.borrow());
        let names: BTreeSet<&str> = book.names().collect();
        // A key counts from its beginning.
        names.iter().for_each(|name| drop(self.of(name)));
        let mut families: Vec<MetricFamily> =
            [&self.requests, &self.limited, &self.tokens].into_iter().flat_map(Collector::collect).collect();
        for family in &mut families {
            let is_known = |metric: &prometheus::proto::Metric| {
                metric.get_label().iter().any(|label| label.name() == "key" && names.contains(label.value()))
            };
            let kept: Vec<_> = family.take_metric().into_iter().filter(is_known).collect();
            family.set_metric(kept);
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}
