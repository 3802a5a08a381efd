//! The ledger: which bytes of each phone are spoken for. Pure.

use std::collections::BTreeMap;

use crate::reconcile::decide::Action;
use crate::reconcile::generations::Generation;
use crate::reconcile::observe::{ObjectKey, Observed};

/// Bytes that placements take on each phone.
pub(super) struct Ledger(pub(super) BTreeMap<String, u64>);

impl Ledger {
    /// Of every placement but those that this round releases.
    pub(super) fn of(observed: &Observed, actions: &[Action]) -> Self {
        let is_released = |key: &ObjectKey| {
            actions
                .iter()
                .any(|action| matches!(action, Action::ReleasePlacement { key: released, .. } if released == key))
        };
        let mut bytes = BTreeMap::new();
        for (_, placement) in observed.placements.iter().filter(|(key, _)| !is_released(key)) {
            *bytes.entry(placement.spec.phone.clone()).or_default() += placement.spec.planned_bytes;
        }
        Self(bytes)
    }

    pub(super) fn without<'a>(&self, generations: impl IntoIterator<Item = &'a Generation<'a>>) -> Self {
        let mut bytes = self.0.clone();
        for segment in generations.into_iter().flat_map(|generation| &generation.segments) {
            if let Some(taken) = bytes.get_mut(&segment.spec.phone) {
                *taken = taken.saturating_sub(segment.spec.planned_bytes);
            }
        }
        Self(bytes)
    }
}
