//! What is counted of one model: requests, their times, their tokens.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts};

use super::VALID;

/// The counters of one model id.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    running: IntGauge,
    waiting: IntGauge,
    /// From the request's arrival.
    pub(crate) first_token_seconds: Histogram,
    pub(crate) between_tokens_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
    pub(crate) prompt_tokens: IntCounter,
    pub(crate) generation_tokens: IntCounter,
    pub(crate) success: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) replays: IntCounter,
    pub(crate) replayed_tokens: IntCounter,
    /// From the asking to stop until the next ring is asked to go on.
    pub(crate) hand_over_seconds: Histogram,
    pub(crate) hand_over_failures: IntCounter,
}

/// One more on a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Present(IntGauge);

/// A quick phone to a long prompt on slow ones.
const FIRST_TOKEN_BUCKETS: [f64; 14] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];
/// From 200 tokens/s to a ring that was lost and found again.
const BETWEEN_TOKENS_BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const REQUEST_BUCKETS: [f64; 14] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0];

/// From a cache that stays where it is to a long one over a poor link.
const HAND_OVER_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

// === impl ModelMetrics ===

impl ModelMetrics {
    pub(super) fn new(id: &str) -> Self {
        let options = |name: &str, help: &str| Opts::new(name, help).const_label("model_name", id);
        let gauge = |name: &str, help: &str| IntGauge::with_opts(options(name, help)).expect(VALID);
        let counter = |name: &str, help: &str| IntCounter::with_opts(options(name, help)).expect(VALID);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
            Histogram::with_opts(options).expect(VALID)
        };
        Self {
            running: gauge("polyphony_requests_running", "Requests that have their place on a ring of phones now."),
            waiting: gauge(
                "polyphony_requests_waiting",
                "Requests that wait for a place on a ring now, interrupted ones included.",
            ),
            first_token_seconds: histogram(
                "polyphony_time_to_first_token_seconds",
                "Seconds from a request's arrival to its first token.",
                &FIRST_TOKEN_BUCKETS,
            ),
            between_tokens_seconds: histogram(
                "polyphony_inter_token_latency_seconds",
                "Seconds from one token of an answer to the next, replays included; not counted where the client did not read.",
                &BETWEEN_TOKENS_BUCKETS,
            ),
            request_seconds: histogram(
                "polyphony_e2e_request_latency_seconds",
                "Seconds from a request's arrival to the end of its whole answer.",
                &REQUEST_BUCKETS,
            ),
            prompt_tokens: counter(
                "polyphony_prompt_tokens_total",
                "Tokens of the prompts that got a place on a ring, each request's once.",
            ),
            generation_tokens: counter("polyphony_generation_tokens_total", "Tokens of answers, each once."),
            success: IntCounterVec::new(
                options(
                    "polyphony_request_success_total",
                    "Requests that did not fail, by how they ended: stop, length, or abort when the client went away.",
                ),
                &["finished_reason"],
            )
            .expect(VALID),
            failures: failures(id),
            replays: counter(
                "polyphony_replays_total",
                "Sessions that were placed on a ring again after the one that they ran on had failed them.",
            ),
            replayed_tokens: counter(
                "polyphony_replayed_tokens_total",
                "Tokens of prompt and answer that replays sent through a ring once more.",
            ),
            hand_over_seconds: histogram(
                "polyphony_hand_over_seconds",
                "Seconds that sessions stood still while they moved to the next generation of their ring with their KV cache.",
                &HAND_OVER_BUCKETS,
            ),
            hand_over_failures: counter(
                "polyphony_hand_over_failures_total",
                "Sessions that could not move with their KV cache, and were replayed instead.",
            ),
        }
    }

    /// A request gets its place on a ring.
    pub(crate) fn run(&self) -> Present {
        Present::new(&self.running)
    }

    /// A request queues up.
    pub(crate) fn wait(&self) -> Present {
        Present::new(&self.waiting)
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let all: [&dyn Collector; 13] = [
            &self.running,
            &self.waiting,
            &self.first_token_seconds,
            &self.between_tokens_seconds,
            &self.request_seconds,
            &self.prompt_tokens,
            &self.generation_tokens,
            &self.success,
            &self.failures,
            &self.replays,
            &self.replayed_tokens,
            &self.hand_over_seconds,
            &self.hand_over_failures,
        ];
        all.into_iter().flat_map(Collector::collect).collect()
    }
}

/// Failures of one model id by code.
pub(super) fn failures(id: &str) -> IntCounterVec {
    let options = Opts::new(
        "polyphony_request_failures_total",
        "Requests that failed, by the error's code; model_name is empty where the request names no model that there is.",
    );
    IntCounterVec::new(options.const_label("model_name", id), &["code"]).expect(VALID)
}

// === impl Present ===

impl Present {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}
