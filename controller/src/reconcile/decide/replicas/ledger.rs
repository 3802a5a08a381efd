//! The ledger: which bytes of each phone are spoken for. Pure.
//!
//! Two generations of a ring share what a phone has loaded: the second costs nothing where its layers and ends are among
//! those of the first. The agent goes by the same rule.

use std::collections::{BTreeMap, BTreeSet};

use polyphony_api::{InferenceDeployment, SegmentPlacement};
use polyphony_protocol::RingId;

use crate::hub::assignments::ring_of;
use crate::reconcile::decide::Action;
use crate::reconcile::generations::Generation;
use crate::reconcile::observe::{ObjectKey, Observed};

/// What placements take on each phone.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    key: ObjectKey,
    deployment: ObjectKey,
    ring: RingId,
    placement: SegmentPlacement,
}

impl Ledger {
    /// Of every placement but those that this round releases.
    pub(super) fn of(observed: &Observed, actions: &[Action]) -> Self {
        let is_released = |key: &ObjectKey| {
            actions
                .iter()
                .any(|action| matches!(action, Action::ReleasePlacement { key: released, .. } if released == key))
        };
        let mut ledger = Self::default();
        for (_, placement) in observed.placements.iter().filter(|(key, _)| !is_released(key)) {
            ledger.add(placement);
        }
        ledger
    }

    pub(super) fn add(&mut self, placement: &SegmentPlacement) {
        let key = ObjectKey::of(placement);
        let deployment = ObjectKey::new(&key.namespace, &placement.spec.deployment);
        self.entries.push(Entry { key, deployment, ring: ring_of(placement).0, placement: placement.clone() });
    }

    pub(super) fn without<'a>(&self, generations: impl IntoIterator<Item = &'a Generation<'a>>) -> Self {
        let gone: BTreeSet<ObjectKey> = generations
            .into_iter()
            .flat_map(|generation| generation.segments.iter().map(|segment| ObjectKey::of(*segment)))
            .collect();
        Self { entries: self.entries.iter().filter(|entry| !gone.contains(&entry.key)).cloned().collect() }
    }

    /// Bytes that are taken, by phone.
    pub(super) fn bytes(&self) -> BTreeMap<String, u64> {
        let mut sorted: Vec<&Entry> = self.entries.iter().collect();
        sorted.sort_by_key(|entry| (entry.ring, entry.placement.spec.plan_generation));
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for (at, entry) in sorted.iter().enumerate() {
            if !sorted[..at].iter().any(|earlier| earlier.covers(entry)) {
                *bytes.entry(entry.placement.spec.phone.clone()).or_default() += entry.placement.spec.planned_bytes;
            }
        }
        bytes
    }

    /// Phones that other deployments use, where they or this one share none.
    pub(super) fn not_shared(&self, observed: &Observed, deployment: &InferenceDeployment) -> BTreeSet<String> {
        let own = ObjectKey::of(deployment);
        let allows =
            |key: &ObjectKey| observed.deployments.get(key).is_none_or(|other| other.spec.placement.allow_sharing);
        let shares = deployment.spec.placement.allow_sharing;
        let others = self.entries.iter().filter(|entry| entry.deployment != own);
        others
            .filter(|entry| !shares || !allows(&entry.deployment))
            .map(|entry| entry.placement.spec.phone.clone())
            .collect()
    }
}

impl Entry {
    fn covers(&self, other: &Self) -> bool {
        self.ring == other.ring
            && self.placement.spec.phone == other.placement.spec.phone
            && covers(&self.placement, &other.placement)
    }
}

/// Layers `[from, to)` that are in memory for a placement.
pub(super) fn loaded(placement: &SegmentPlacement) -> (u32, u32) {
    let spec = &placement.spec;
    spec.standby.as_ref().map_or((spec.holds.from, spec.holds.to), |kept| (kept.from, kept.to))
}

/// Whether all that `other` needs is loaded for `one`, of the same ring on the same phone.
pub(super) fn covers(one: &SegmentPlacement, other: &SegmentPlacement) -> bool {
    let ((from, to), (other_from, other_to)) = (loaded(one), loaded(other));
    let (own, others) = (&one.spec, &other.spec);
    own.manifest_digest == others.manifest_digest
        && own.context_length == others.context_length
        && own.max_sessions == others.max_sessions
        && own.activation_type == others.activation_type
        && own.numerics_class == others.numerics_class
        && from <= other_from
        && other_to <= to
        && (own.holds.embedding || !others.holds.embedding)
        && (own.holds.head || !others.holds.head)
}
