//! Metrics: what the controller counts and how the world looks to it. Lives in the program's one registry, beside the
//! gateway's.
//!
//! Gauges are set from what each round observed; labels of objects that are gone go with them.

mod doorway;
mod targets;
mod world;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};
use strum::VariantNames;

use crate::reconcile::decide::{Action, Story, Subject};
use crate::reconcile::observe::Observed;
use world::World;

pub use doorway::{Door, router};

/// Everything that the controller counts.
pub struct Metrics {
    reconcile_seconds: Histogram,
    actions: IntCounterVec,
    failed_decisions: IntCounterVec,
    plans: IntCounterVec,
    plan_seconds: Histogram,
    hub_links: IntGauge,
    world: World,
    /// The phones that Prometheus is to scrape.
    phones: Mutex<Arc<[String]>>,
}

/// Rounds take a few writes to an API server at most; a plan for many phones takes seconds.
const RECONCILE_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const PLAN_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0];

const VALID: &str = "names, labels and buckets are constants, valid and each used once";

// === impl Metrics ===

impl Metrics {
    /// Adds the controller's metrics to the program's registry, and what others count.
    pub fn new(registry: &Registry, others: impl IntoIterator<Item = Box<dyn Collector>>) -> Self {
        others.into_iter().for_each(|other| registry.register(other).expect(VALID));
        let info = Opts::new("polyphony_build_info", "Always 1; the label says which version of the controller runs.");
        let info = Gauge::with_opts(info.const_label("version", env!("CARGO_PKG_VERSION")));
        register(registry, info).set(1.0);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        let counters = |name: &str, help: &str, label: &str| {
            register(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let failed_decisions = counters(
            "polyphony_failed_decisions_total",
            "Decisions that broke down, by what they were about; each is a bug.",
            "kind",
        );
        // Counters are there before they count.
        for kind in Subject::VARIANTS {
            failed_decisions.with_label_values(&[*kind]);
        }
        Self {
            reconcile_seconds: histogram(
                "polyphony_reconcile_seconds",
                "Seconds of one round of observing, deciding and acting.",
                &RECONCILE_BUCKETS,
            ),
            actions: counters("polyphony_actions_total", "Actions that were carried out, by kind.", "action"),
            failed_decisions,
            plans: counters(
                "polyphony_plans_total",
                "Problems that the planner was given, by outcome: planned or infeasible. A problem that it knows already counts once.",
                "outcome",
            ),
            plan_seconds: histogram(
                "polyphony_plan_seconds",
                "Seconds that the planner took for one problem.",
                &PLAN_BUCKETS,
            ),
            hub_links: register(
                registry,
                IntGauge::new("polyphony_hub_links", "Agents that have their link to the hub now."),
            ),
            world: World::new(registry),
            phones: Mutex::new(Arc::new([])),
        }
    }

    /// A round begins with this.
    pub fn see(&self, observed: &Observed) {
        self.world.see(observed);
        let phones = targets::linked(observed).map(|(phone, _)| phone.clone()).collect();
        self.hub_links.set(i64::try_from(targets::linked(observed).count()).unwrap_or(i64::MAX));
        *self.phones.lock().unwrap_or_else(PoisonError::into_inner) = phones;
    }

    /// A round is over.
    pub fn note_round(&self, took: Duration) {
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// An action was carried out.
    pub fn note_action(&self, action: &Action) {
        self.actions.with_label_values(&[action.kind()]).inc();
    }

    /// A story was put into the outbox.
    pub fn note_story(&self, story: &Story) {
        self.actions.with_label_values(&["tell"]).inc();
        self.world.note_story(story);
    }

    /// A decision broke down.
    pub fn note_failed_decision(&self, subject: &Subject) {
        self.failed_decisions.with_label_values(&[subject.kind()]).inc();
    }

    /// The planner has answered.
    pub fn note_plan(&self, is_feasible: bool, took: Duration) {
        self.plans.with_label_values(&[if is_feasible { "planned" } else { "infeasible" }]).inc();
        self.plan_seconds.observe(took.as_secs_f64());
    }

    fn phones(&self) -> Arc<[String]> {
        self.phones.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Registers a metric and hands it back.
fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect(VALID);
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
}
