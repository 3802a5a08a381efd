//! The census: phones, links and measured times as a round sees them, looked at once for all deployments. Pure.

use polyphony_api::{Phone, SegmentPlacement};
use polyphony_placement::Links;

use super::links::Survey;
use crate::reconcile::facts::{Measured, Power, Profile};
use crate::reconcile::failures;
use crate::reconcile::observe::{Observed, PhoneSeen};

/// What is the same whichever deployment asks.
pub struct Census<'a> {
    /// By name.
    phones: Vec<Counted<'a>>,
    survey: Survey,
    /// By key.
    placements: Vec<(&'a SegmentPlacement, Option<Measured>)>,
}

/// A phone that takes segments now, as far as that is a matter of the phone alone.
pub(super) struct Counted<'a> {
    pub(super) name: &'a str,
    pub(super) object: &'a Phone,
    pub(super) profile: Profile,
    pub(super) power: Power,
    /// How many times slower than it is it counts, for having left often.
    pub(super) slowness: f64,
    /// Its place in the survey.
    place: usize,
}

// === impl Census ===

impl<'a> Census<'a> {
    pub fn of(observed: &'a Observed) -> Self {
        let counted = |(place, (name, seen)): (usize, (&'a String, &'a PhoneSeen))| {
            let object: &'a Phone = seen.object.as_deref()?;
            let profile = observed.profile(name)?;
            let slowness = object.status.as_ref().map_or(1.0, |status| failures::slowness(status, observed.now));
            let takes_segments = observed.health(name).takes_segments();
            takes_segments.then(|| Counted { name, object, profile, power: observed.power(name), slowness, place })
        };
        let placements = observed.placements.values().map(AsRef::as_ref);
        Self {
            phones: observed.phones.iter().enumerate().filter_map(counted).collect(),
            survey: Survey::of(observed),
            placements: placements.map(|placement| (placement, observed.measured(placement))).collect(),
        }
    }

    /// By name; those of `within` alone, where any are named.
    pub(super) fn phones(&self, within: Option<&[&str]>) -> Vec<&Counted<'a>> {
        let Some(within) = within else { return self.phones.iter().collect() };
        let at = |name: &&str| self.phones.binary_search_by(|counted| counted.name.cmp(name)).ok();
        let mut places: Vec<usize> = within.iter().filter_map(at).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|at| &self.phones[at]).collect()
    }

    /// The links between `phones`.
    pub(super) fn links(&self, phones: &[&Counted<'_>]) -> Links {
        self.survey.between(phones.iter().map(|counted| counted.place).collect())
    }

    /// All segments of the model with that manifest, each with what its phone measured of it.
    pub(super) fn segments_of(
        &self,
        manifest_digest: &str,
    ) -> impl Iterator<Item = (&'a SegmentPlacement, Option<Measured>)> {
        let is_it = move |(placement, _): &&(&SegmentPlacement, _)| placement.spec.manifest_digest == manifest_digest;
        self.placements.iter().filter(is_it).copied()
    }
}
