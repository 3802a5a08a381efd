//! The verdict on a replica's newest generation: whether it will do. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use polyphony_api::SegmentPlacement;

use super::Round;
use super::model_state::ModelState;
use crate::reconcile::class;
use crate::reconcile::generations::Generation;
use crate::reconcile::observe::ObjectKey;
use crate::reconcile::problem::matches_selector;
use crate::reconcile::ways::{Reach, Ways};

/// Whether a replica's newest generation will do.
pub(super) enum Verdict {
    Works,
    Needs(Need),
}

/// A new plan is needed.
#[derive(Default)]
pub(super) struct Need {
    /// Why; empty for a first plan.
    pub(super) cause: String,
    /// Phones that have just failed, which their status does not say yet.
    pub(super) avoid: BTreeSet<String>,
    /// The condition's reason where there is no other plan; else it is what the planner falls short of.
    pub(super) reason: Option<&'static str>,
    /// Phones have to give memory back before they hold anything of a new plan.
    pub(super) frees: bool,
}

impl Need {
    pub(super) fn of(cause: String) -> Self {
        Self { cause, ..Self::default() }
    }
}

impl Round<'_, '_> {
    pub(super) fn verdict(&self, newest: &Generation<'_>) -> Verdict {
        let needs = |cause: String| Verdict::Needs(Need::of(cause));
        if !newest.is_whole() {
            return needs(format!("generation {} is not whole any more", newest.number));
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
        if !failures.is_empty() {
            let texts: Vec<_> = failures.iter().map(|(phone, why)| format!("{phone} failed: {why}")).collect();
            // A phone of which a backend failed goes on with another.
            let numerics = class::numerics(newest.numerics_class());
            let has_failed =
                |phone: &&str| self.observed.phones.get(*phone).is_none_or(|seen| seen.fault_of(numerics).is_none());
            let avoid = failures.iter().map(|(phone, _)| *phone).filter(has_failed).map(str::to_owned).collect();
            let reason = Some("SegmentFailed");
            return Verdict::Needs(Need { cause: texts.join("; "), avoid, reason, frees: false });
        }
        if let Some(cause) = self.no_more_trusted(newest) {
            return needs(cause);
        }
        if let Some(cause) = self.other_class(newest) {
            return needs(cause);
        }
        if let Some(cause) = self.broken_link(newest) {
            return Verdict::Needs(Need { reason: Some("LinkDown"), ..Need::of(cause) });
        }
        if let Some(cause) = self.over_budget(newest) {
            return Verdict::Needs(Need { frees: true, ..Need::of(cause) });
        }
        Verdict::Works
    }

    /// Two of its phones that cannot reach each other. A ring that is ready has shown that all can.
    fn broken_link(&self, newest: &Generation<'_>) -> Option<String> {
        if newest.is_ready(self.observed) {
            return None;
        }
        let ways = Ways::of(self.observed);
        newest.links().into_iter().find_map(|(from, to)| {
            let is_relayed = from.spec.relayed.iter().any(|hop| hop.to == to.spec.stage);
            let (from, to) = (from.spec.phone.as_str(), to.spec.phone.as_str());
            match ways.between(from, to) {
                Reach::Not(why) => Some(format!("{from} and {to} cannot reach each other: {why}")),
                Reach::Relayed(why) if !is_relayed => {
                    Some(format!("{from} and {to} cannot reach each other but over the hub: {why}"))
                }
                Reach::Relayed(_) | Reach::Direct => None,
            }
        })
    }

    /// A phone that sees text and is not trusted with it any more.
    fn no_more_trusted(&self, newest: &Generation<'_>) -> Option<String> {
        let n_layers = newest.segments.last()?.spec.holds.to;
        let sees_text = |segment: &&&SegmentPlacement| {
            let spec = &segment.spec;
            let (from, to) =
                spec.standby.as_ref().map_or((spec.holds.from, spec.holds.to), |kept| (kept.from, kept.to));
            from == 0 || to == n_layers || spec.encoder_layers.is_some_and(|decoder| (from..to).contains(&decoder))
        };
        let is_trusted = |phone: &str| {
            let object = self.observed.phones.get(phone).and_then(|seen| seen.object.as_ref());
            object.is_none_or(|object| self.deployment.spec.placement.trusts(object.labels()))
        };
        let mut seeing = newest.segments.iter().filter(sees_text).map(|segment| segment.spec.phone.as_str());
        let phone = seeing.find(|phone| !is_trusted(phone))?;
        Some(format!("{phone} has layers that see text, and not the labels of spec.placement.trustedPhones"))
    }

    /// A phone whose agent does not compute in the plan's class any more: another version of it, or another `--backend`.
    fn other_class(&self, newest: &Generation<'_>) -> Option<String> {
        let other = |segment: &&SegmentPlacement| {
            let (phone, class) = (&segment.spec.phone, &segment.spec.numerics_class);
            let can = self.observed.profile(phone)?.computes_in(class);
            let fault = || self.observed.phones.get(phone)?.fault_of(class::numerics(class));
            (!can).then(|| match fault() {
                Some(why) => format!("{phone} has set aside what computes in {class}: {why}"),
                None => format!("the agent of {phone} does not compute in {class} any more"),
            })
        };
        newest.segments.iter().find_map(other)
    }

    /// A phone of which it takes more than it may by now: `memoryFraction`, the phone's `maxMemory` or its agent's limit was lowered.
    fn over_budget(&self, newest: &Generation<'_>) -> Option<String> {
        let fraction = self.deployment.spec.placement.memory_fraction;
        let over = |segment: &&SegmentPlacement| {
            let (phone, planned) = (&segment.spec.phone, segment.spec.planned_bytes);
            let budget = self.observed.budget_bytes(phone, fraction)?;
            (planned > budget).then(|| {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                format!(
                    "{phone} may give {} MiB by now, with spec.placement.memoryFraction at {fraction}, and its segment takes {}",
                    budget >> 20,
                    mib(planned)
                )
            })
        };
        newest.segments.iter().find_map(over)
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
        if let Some(field) = class::change(&planned.numerics_class, wanted) {
            return Some(format!("{field} asks for another class than the plan's {}", planned.numerics_class));
        }
        if planned.strategy != wanted.placement.strategy {
            return Some(format!("spec.placement.strategy is now {:?}", wanted.placement.strategy));
        }
        if planned.objective.is_some_and(|objective| objective != wanted.objective) {
            return Some(format!("spec.objective is now {:?}", wanted.objective));
        }
        if n_phones < wanted.placement.min_phones {
            return Some(format!("spec.placement.minPhones is now {}", wanted.placement.min_phones));
        }
        if wanted.placement.max_phones.is_some_and(|most| n_phones > most) {
            return Some("spec.placement.maxPhones is now lower".into());
        }
        // Where only the others do not share, it is for them to leave.
        if !wanted.placement.allow_sharing {
            let own = ObjectKey::of(self.deployment).to_string();
            let taken = self.ledger.all();
            if let Some(shared) = newest.phones().into_iter().find(|phone| !taken.admits(phone, &own, false)) {
                return Some(format!(
                    "spec.placement.allowSharing is now false, and {shared} holds segments of another deployment"
                ));
            }
        }
        let is_outside = |phone: &&str| {
            let object = self.observed.phones.get(*phone).and_then(|seen| seen.object.as_ref());
            object.is_some_and(|object| !matches_selector(object, self.deployment))
        };
        let outside = newest.phones().into_iter().find(is_outside)?;
        Some(format!("{outside} does not have the labels of spec.placement.selector any more"))
    }
}
