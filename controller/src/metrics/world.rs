//! The world in gauges: phones and deployments as the last round observed them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use polyphony_api::condition;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::register;
use crate::reconcile::decide::Story;
use crate::reconcile::observe::{ObjectKey, Observed};

/// The reason of the event that tells of a plan in place of another.
const REPLANNED: &str = "Replanned";
/// The reason of the event that tells of layers that moved because it pays.
const REBALANCED: &str = "Rebalanced";

pub(super) struct World {
    phones: IntGaugeVec,
    replicas: IntGaugeVec,
    plan_generation: IntGaugeVec,
    predicted: GaugeVec,
    replacements: IntCounterVec,
    rebalances: IntCounterVec,
    cost_model: GaugeVec,
    imbalanced: IntGaugeVec,
    /// Deployments that have labels.
    known: Mutex<BTreeSet<ObjectKey>>,
}

/// What a replica can be counted as.
const STATES: [&str; 3] = ["desired", "planned", "ready"];

// === impl World ===

impl World {
    pub(super) fn new(registry: &Registry) -> Self {
        let deployment = ["namespace", "deployment"];
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let predicted = Opts::new(
            "polyphony_predicted_tokens_per_second",
            "What the plan expects one session to get from the deployment's best replica.",
        );
        let replacements = Opts::new(
            "polyphony_replacements_total",
            "Plans that took the place of another, because a phone was lost, cordoned or failed, or the deployment changed.",
        );
        let rebalances = Opts::new(
            "polyphony_rebalances_total",
            "Plans that the load balancer put in the place of one that served, because measured times promised more tokens/s.",
        );
        let cost_model = Opts::new(
            "polyphony_predicted_to_measured_time",
            "Time of a token as the cost model predicts it from what is measured of layers and links, divided by the measured one; 0 until there is one.",
        );
        Self {
            phones: gauges(
                "polyphony_phones",
                "Phones that are objects, by whether their condition Ready is true.",
                &["state"],
            ),
            replicas: gauges(
                "polyphony_deployment_replicas",
                "Replicas of the deployment: desired by its spec, planned onto phones, ready to answer.",
                &["namespace", "deployment", "state"],
            ),
            plan_generation: gauges(
                "polyphony_plan_generation",
                "The newest generation of the deployment's plans.",
                &deployment,
            ),
            predicted: register(registry, GaugeVec::new(predicted, &deployment)),
            replacements: register(registry, IntCounterVec::new(replacements, &deployment)),
            rebalances: register(registry, IntCounterVec::new(rebalances, &deployment)),
            cost_model: register(registry, GaugeVec::new(cost_model, &deployment)),
            imbalanced: gauges(
                "polyphony_imbalanced",
                "1 while the load balancer knows a plan that is worth moving to, else 0.",
                &deployment,
            ),
            known: Mutex::default(),
        }
    }

    pub(super) fn see(&self, observed: &Observed) {
        let objects = observed.phones.values().filter_map(|seen| seen.object.as_ref());
        let is_ready = |phone: &&std::sync::Arc<polyphony_api::Phone>| {
            phone.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"))
        };
        let (ready, not_ready): (Vec<_>, Vec<_>) = objects.partition(is_ready);
        for (state, phones) in [("ready", ready), ("not_ready", not_ready)] {
            self.phones.with_label_values(&[state]).set(i64::try_from(phones.len()).unwrap_or(i64::MAX));
        }
        for (key, deployment) in &observed.deployments {
            let labels = [key.namespace.as_str(), key.name.as_str()];
            let status = deployment.status.clone().unwrap_or_default();
            let counts = [deployment.spec.replicas, status.replicas, status.ready_replicas];
            for (state, count) in STATES.into_iter().zip(counts) {
                self.replicas.with_label_values(&[labels[0], labels[1], state]).set(count.into());
            }
            let generation = status.plan_generation.unwrap_or(0);
            self.plan_generation.with_label_values(&labels).set(i64::try_from(generation).unwrap_or(i64::MAX));
            match status.predicted_tokens_per_second {
                Some(predicted) => self.predicted.with_label_values(&labels).set(predicted),
                None => drop(self.predicted.remove_label_values(&labels)),
            }
            let speeds = status.predicted_tokens_per_second.zip(status.measured_tokens_per_second);
            let quotient =
                speeds.filter(|(predicted, _)| *predicted > 0.0).map(|(predicted, measured)| measured / predicted);
            self.cost_model.with_label_values(&labels).set(quotient.unwrap_or(0.0));
            let balanced = condition::find(&status.conditions, "Balanced");
            let is_imbalanced = balanced.is_some_and(|balanced| balanced.status == "False");
            self.imbalanced.with_label_values(&labels).set(is_imbalanced.into());
            // A counter is there before it counts.
            self.replacements.with_label_values(&labels);
            self.rebalances.with_label_values(&labels);
        }
        let present = observed.deployments.keys().cloned().collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.difference(&present).for_each(|gone| self.forget(gone));
        *known = present;
    }

    pub(super) fn note_story(&self, story: &Story) {
        let (Some(namespace), Some(name)) = (&story.about.namespace, &story.about.name) else { return };
        match story.reason.as_str() {
            REPLANNED => self.replacements.with_label_values(&[namespace, name]).inc(),
            REBALANCED => self.rebalances.with_label_values(&[namespace, name]).inc(),
            _ => {}
        }
    }

    /// What is not there need not be removed.
    fn forget(&self, gone: &ObjectKey) {
        let labels = [gone.namespace.as_str(), gone.name.as_str()];
        for state in STATES {
            let _ = self.replicas.remove_label_values(&[labels[0], labels[1], state]);
        }
        let _ = self.plan_generation.remove_label_values(&labels);
        let _ = self.predicted.remove_label_values(&labels);
        let _ = self.replacements.remove_label_values(&labels);
        let _ = self.rebalances.remove_label_values(&labels);
        let _ = self.cost_model.remove_label_values(&labels);
        let _ = self.imbalanced.remove_label_values(&labels);
    }
}
