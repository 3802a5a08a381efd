//! The ledger of all placements: what deployments take of each phone, in bytes and in turns. Pure.
//!
//! One for decisions and previews alike, of the planner's own making: `polyphony_placement::Ledger` says how claims are counted.

use std::collections::BTreeSet;

use polyphony_api::SegmentPlacement;
use polyphony_placement::{Claim, Loaded};

use super::generations::Generation;
use super::observe::{ObjectKey, Observed};
use crate::hub::assignments::ring_of;

/// Claims of placements, by where these are.
pub type Ledger = polyphony_placement::Ledger<ObjectKey>;
/// The same, with some left out or put in.
pub type Taken<'a> = polyphony_placement::Taken<'a, ObjectKey>;

/// Of every placement but those that are `gone`.
pub fn of_all(observed: &Observed, gone: &BTreeSet<&ObjectKey>) -> Ledger {
    let mut ledger = Ledger::default();
    for (key, placement) in observed.placements.iter().filter(|(key, _)| !gone.contains(key)) {
        ledger.add(key.clone(), claim(observed, placement));
    }
    ledger
}

/// What a placement claims.
pub fn claim(observed: &Observed, placement: &SegmentPlacement) -> Claim {
    let spec = &placement.spec;
    let deployment = ObjectKey::new(ObjectKey::of(placement).namespace, &spec.deployment);
    let shares = observed.deployments.get(&deployment).is_none_or(|other| other.spec.placement.allow_sharing);
    Claim {
        phone: spec.phone.clone(),
        deployment: deployment.to_string(),
        shares_phones: shares,
        ring: ring_of(placement).0.0,
        generation: spec.plan_generation,
        bytes: spec.planned_bytes,
        loaded: of_placement(placement),
    }
}

/// The placements of these generations.
pub fn keys<'a>(generations: impl IntoIterator<Item = &'a Generation<'a>>) -> impl Iterator<Item = ObjectKey> {
    generations.into_iter().flat_map(|generation| generation.segments.iter().map(|segment| ObjectKey::of(*segment)))
}

/// Layers `[from, to)` that are in memory for a placement.
pub fn loaded(placement: &SegmentPlacement) -> (u32, u32) {
    let spec = &placement.spec;
    spec.standby.as_ref().map_or((spec.holds.from, spec.holds.to), |kept| (kept.from, kept.to))
}

/// Whether all that `other` needs is loaded for `one`, of the same ring on the same phone.
pub fn covers(one: &SegmentPlacement, other: &SegmentPlacement) -> bool {
    of_placement(one).covers(&of_placement(other))
}

fn of_placement(placement: &SegmentPlacement) -> Loaded {
    let spec = &placement.spec;
    let (from, to) = loaded(placement);
    Loaded {
        kind: format!(
            "{} {} {} {:?} {}",
            spec.manifest_digest, spec.context_length, spec.max_sessions, spec.activation_type, spec.numerics_class
        ),
        layers: from..to,
        embedding: spec.holds.embedding,
        head: spec.holds.head,
    }
}
