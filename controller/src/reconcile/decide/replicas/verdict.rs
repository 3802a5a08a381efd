//! The verdict on a replica's newest generation: whether it will do. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;

use super::model_state::ModelState;
use super::{Round, Trouble};
use crate::reconcile::generations::Generation;
use crate::reconcile::problem::matches_selector;

/// A failed plan is replaced by one without the phones that failed after this, by one with them after the second.
const FAILURE_PAUSE: SignedDuration = SignedDuration::from_secs(10);
const FAILURE_RETRY: SignedDuration = SignedDuration::from_secs(30);

/// Whether a replica's newest generation will do.
pub(super) enum Verdict {
    Works,
    /// A new plan is needed, because of this.
    Needs {
        cause: String,
        avoid: BTreeSet<String>,
    },
    /// A new plan is needed, but not yet.
    Later(Trouble),
}

impl Round<'_, '_> {
    pub(super) fn verdict(&self, newest: &Generation<'_>) -> Verdict {
        let needs = |cause: String| Verdict::Needs { cause, avoid: BTreeSet::new() };
        if !newest.is_whole() {
            return needs(format!("generation {} was not written to its end", newest.number));
        }
        if let Some(change) = self.change(newest) {
            return needs(change);
        }
        let lost = newest.lost_phones(self.observed);
        if !lost.is_empty() {
            let verb = if lost.len() == 1 { "is" } else { "are" };
            return needs(format!("{} {verb} lost", lost.join(" and ")));
        }
        let drained = newest.drained_phones(self.observed, &self.deployment.spec.placement.power_policy);
        if !drained.is_empty() {
            let stories: Vec<_> = drained.iter().map(|(phone, why)| format!("{phone} {why}")).collect();
            return needs(stories.join(" and "));
        }
        let failures = newest.failures(self.observed);
        if failures.is_empty() {
            return Verdict::Works;
        }
        let texts: Vec<_> = failures.iter().map(|(phone, why)| format!("{phone} failed: {why}")).collect();
        let made = newest.segments.iter().filter_map(|segment| segment.metadata.creation_timestamp.as_ref()).max();
        let age = made.map_or(FAILURE_RETRY, |made| self.observed.now.duration_since(made.0));
        if age < FAILURE_PAUSE {
            return Verdict::Later(Trouble { reason: "SegmentFailed".into(), message: texts.join("; ") });
        }
        let avoid = if age < FAILURE_RETRY {
            failures.iter().map(|(phone, _)| (*phone).to_owned()).collect()
        } else {
            BTreeSet::new()
        };
        Verdict::Needs { cause: texts.join("; "), avoid }
    }

    /// What a person has changed since this generation was planned.
    fn change(&self, newest: &Generation<'_>) -> Option<String> {
        let wanted = &self.deployment.spec;
        let planned = &newest.segments.first()?.spec;
        let n_phones = planned.stages;
        if planned.model != wanted.model {
            return Some(format!("spec.model is now {}", wanted.model));
        }
        if let ModelState::Resolved(resolved) = &self.model
            && resolved.digest != planned.manifest_digest
        {
            return Some(format!("the file of Model {} has changed", wanted.model));
        }
        if planned.context_length != wanted.context_length {
            return Some(format!("spec.contextLength is now {}", wanted.context_length));
        }
        if planned.max_sessions != wanted.max_sessions {
            return Some(format!("spec.maxSessions is now {}", wanted.max_sessions));
        }
        if planned.activation_type != wanted.transport.activation_type {
            return Some("spec.transport.activationType has changed".into());
        }
        if planned.strategy != wanted.placement.strategy {
            return Some(format!("spec.placement.strategy is now {:?}", wanted.placement.strategy));
        }
        if n_phones < wanted.placement.min_phones {
            return Some(format!("spec.placement.minPhones is now {}", wanted.placement.min_phones));
        }
        if wanted.placement.max_phones.is_some_and(|most| n_phones > most) {
            return Some("spec.placement.maxPhones is now lower".into());
        }
        let is_outside = |phone: &&str| {
            let object = self.observed.phones.get(*phone).and_then(|seen| seen.object.as_ref());
            object.is_some_and(|object| !matches_selector(object, self.deployment))
        };
        let outside = newest.phones().into_iter().find(is_outside)?;
        Some(format!("{outside} does not have the labels of spec.placement.phoneSelector any more"))
    }
}
