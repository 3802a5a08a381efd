//! The census: phones, links and measured times as a round sees them, looked at once for all deployments. Pure.
//!
//! What breaks down over one phone or one segment leaves out that one alone: no deployment is touched by what is another's.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use polyphony_api::{Phone, SegmentPlacement};
use polyphony_placement::Links;

use super::links::Survey;
use crate::reconcile::facts::{Measured, Power, Profile};
use crate::reconcile::failures;
use crate::reconcile::observe::{ObjectKey, Observed, PhoneSeen};
use crate::reconcile::panics::words_of;

/// What is the same whichever deployment asks.
pub struct Census<'a> {
    /// By name.
    phones: Vec<Counted<'a>>,
    observed: &'a Observed,
    /// Made by who asks for links first.
    survey: OnceCell<Survey>,
    /// By key.
    placements: Vec<(&'a SegmentPlacement, Option<Measured>)>,
    /// What is left out, and the words of what broke down over it.
    pub left_out: Vec<(LeftOut, String)>,
}

/// What could not be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    Phone(String),
    Placement(ObjectKey),
}

/// A phone that takes segments now, as far as that is a matter of the phone alone.
pub(in crate::reconcile) struct Counted<'a> {
    pub(in crate::reconcile) name: &'a str,
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
        Self::by(observed, |phone| observed.profile(phone), |placement| observed.measured(placement))
    }

    /// By what says what of a phone and of a segment is known.
    pub(in crate::reconcile) fn by(
        observed: &'a Observed,
        profile: impl Fn(&str) -> Option<Profile>,
        measured: impl Fn(&SegmentPlacement) -> Option<Measured>,
    ) -> Self {
        let mut left_out = Vec::new();
        let counted = |(place, (name, seen)): (usize, (&'a String, &'a PhoneSeen))| {
            let object: &'a Phone = seen.object.as_deref()?;
            let profile = profile(name)?;
            let slowness = object.status.as_ref().map_or(1.0, |status| failures::slowness(status, observed.now));
            let takes_segments = observed.health(name).takes_segments();
            takes_segments.then(|| Counted { name, object, profile, power: observed.power(name), slowness, place })
        };
        let mut phones = Vec::new();
        for at in observed.phones.iter().enumerate() {
            let counted = apart(|| counted(at)).map_err(|words| left_out.push((LeftOut::Phone(at.1.0.clone()), words)));
            phones.extend(counted.ok().flatten());
        }
        let mut placements = Vec::new();
        for (key, placement) in &observed.placements {
            let measured = apart(|| measured(placement));
            let measured = measured.map_err(|words| left_out.push((LeftOut::Placement(key.clone()), words)));
            placements.push((placement.as_ref(), measured.ok().flatten()));
        }
        Self { phones, observed, survey: OnceCell::new(), placements, left_out }
    }

    /// By name; those of `within` alone, where any are named.
    pub(in crate::reconcile) fn phones(&self, within: Option<&[&str]>) -> Vec<&Counted<'a>> {
        let Some(within) = within else { return self.phones.iter().collect() };
        let at = |name: &&str| self.phones.binary_search_by(|counted| counted.name.cmp(name)).ok();
        let mut places: Vec<usize> = within.iter().filter_map(at).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|at| &self.phones[at]).collect()
    }

    /// The links between `phones`.
    pub(super) fn links(&self, phones: &[&Counted<'_>]) -> Links {
        let survey = self.survey.get_or_init(|| Survey::of(self.observed));
        survey.between(phones.iter().map(|counted| counted.place).collect())
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

fn apart<T>(look: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(look)).map_err(|panic| words_of(panic.as_ref()))
}
