//! Steps: how long one segment's steps take. Lives and dies with the segment's entry on the board.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};

/// From a small segment on a fast phone to a prefill chunk on a slow one.
const BUCKETS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The step times of one segment.
#[derive(Debug)]
pub struct Steps {
    prefill: Histogram,
    decode: Histogram,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Some session has several rows in it.
    Prefill,
    /// One row a session.
    Decode,
}

// === impl Steps ===

impl Steps {
    pub fn new(placement: &str) -> Self {
        let histogram = |kind: &str| {
            let options = HistogramOpts::new(
                "polyphony_segment_step_seconds",
                "Seconds that a step takes on this phone's layers: prefill when a session has several rows in it, else decode.",
            );
            let options = options.buckets(BUCKETS.to_vec()).const_label("placement", placement);
            Histogram::with_opts(options.const_label("kind", kind))
                .expect("names, labels and buckets are constants and valid")
        };
        Self { prefill: histogram("prefill"), decode: histogram("decode") }
    }

    pub fn note(&self, kind: StepKind, took: Duration) {
        let histogram = match kind {
            StepKind::Prefill => &self.prefill,
            StepKind::Decode => &self.decode,
        };
        histogram.observe(took.as_secs_f64());
    }

    /// Steps of decoding so far.
    pub fn n_decoded(&self) -> u64 {
        self.decode.get_sample_count()
    }

    pub fn families(&self) -> Vec<MetricFamily> {
        [&self.prefill, &self.decode].into_iter().flat_map(Collector::collect).collect()
    }
}
