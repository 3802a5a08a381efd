//! Measured: what phones take for a layer, held against what their plan was made with. Pure.
//!
//! Measurements are noisy, and a plan must not change with noise. A time that is near the one that the serving plan was
//! made with counts as that one; only what differs clearly is news. What a phone measured of a model stays known for a
//! while after it holds nothing of it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use polyphony_api::phone::LayerTime;
use polyphony_api::{Phone, SegmentPlacement};
use polyphony_placement::PhoneCosts;

use super::census::Counted;
use crate::reconcile::facts::Measured;
use crate::reconcile::observe::Observed;

/// A measured time within this factor of the planned one is the planned one.
const NEAR: f64 = 1.2;
/// Times that are news are rounded to powers of this.
const STEP: f64 = 1.05;
/// What is besides layers is rounded to this.
const BESIDES_STEP_SECONDS: f64 = 0.0001;
/// Measured times of equal phones are within this factor of each other, and what their speed tests promised is within that one.
const ALIKE_MEASURED: f64 = 1.15;
const ALIKE_PROMISED: f64 = 1.25;
/// How long a time counts that nobody measures any more.
const REMEMBERED_SECONDS: i64 = 600;
/// How long a time of many layers counts on a phone that now runs few, and is faster for that.
pub const BUSY_REMEMBERED_SECONDS: i64 = 120;
/// A speed test tells the time of a layer within such a factor; a tiny model's layers are all but arithmetic.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 0.01..=1e6;

/// Which measurements count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    /// Those of plans: near the planned ones they are the planned ones, and elsewhere rounded.
    Settled,
    /// As they were reported last.
    Raw,
}

/// The times of phones in one class, whose `estimates` are in the same order: measured where they can be, else from their speed tests.
/// `known` is what is known of phones with the model of that digest in that class. `elsewhere` is the typical factor of other classes.
pub(super) fn costs(
    now: Timestamp,
    (digest, numerics, known): (&str, &str, &BTreeMap<&str, Known>),
    phones: &[&Counted<'_>],
    (estimates, elsewhere): (&[PhoneCosts], f64),
    figures: Figures,
) -> Vec<PhoneCosts> {
    let times: Vec<Option<&LayerTime>> =
        phones.iter().map(|counted| layer_time(counted.object, digest, numerics)).collect();
    let typical = typical_factor((digest, numerics), phones, estimates).unwrap_or(elsewhere);
    let cost = |(estimate, time): (&PhoneCosts, &Option<&LayerTime>)| {
        let known = known.get(estimate.name.as_str()).copied().unwrap_or_default();
        let remembered = time.filter(|time| now.as_second().saturating_sub(time.at_seconds) <= REMEMBERED_SECONDS);
        cost(estimate, known, remembered, typical, figures)
    };
    let mut costs: Vec<PhoneCosts> = estimates.iter().zip(&times).map(cost).collect();
    let is_first_plan = known.values().all(|known| known.planned_seconds.is_none());
    if figures == Figures::Settled && is_first_plan {
        even_out(&mut costs, estimates);
    }
    costs
}

/// Lets phones of one speed have one time where their measured times differ by noise alone: a first plan would else be
/// made of the noise. Times of a plan that serves are kept near what it was made with instead.
fn even_out(costs: &mut [PhoneCosts], estimates: &[PhoneCosts]) {
    let mut slower: Vec<usize> = (0..costs.len()).filter(|&at| costs[at].seconds_per_layer.is_normal()).collect();
    slower.sort_by(|&a, &b| costs[a].seconds_per_layer.total_cmp(&costs[b].seconds_per_layer));
    while let Some(&fastest) = slower.first() {
        let is_within = |of: &[PhoneCosts], at: usize, factor: f64| {
            let (one, other) = (of[at].seconds_per_layer, of[fastest].seconds_per_layer);
            one.max(other) <= one.min(other) * factor
        };
        let is_alike = |&at: &usize| is_within(costs, at, ALIKE_MEASURED) && is_within(estimates, at, ALIKE_PROMISED);
        let (alike, others): (Vec<usize>, Vec<usize>) = slower.iter().copied().partition(is_alike);
        if alike.is_empty() {
            break;
        }
        let logarithms: f64 = alike.iter().map(|&at| costs[at].seconds_per_layer.ln()).sum();
        let mean = rounded((logarithms / alike.len() as f64).exp());
        for &at in &alike {
            let phone = &mut costs[at];
            let pace = mean / phone.seconds_per_layer;
            phone.seconds_per_layer = mean;
            phone.seconds_per_layer_per_further_row = phone.seconds_per_layer_per_further_row.map(|it| it * pace);
            phone.seconds_embedding *= pace;
            phone.seconds_head *= pace;
            phone.seconds_head_per_further_row = phone.seconds_head_per_further_row.map(|it| it * pace);
        }
        slower = others;
    }
}

/// What is known of a phone and a model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// What it says of its newest segment that has a time, and whether that is a tail.
    report: Option<(Measured, bool)>,
    /// Whether it runs far fewer layers now than when its remembered time was measured, and is faster for that alone.
    is_light: bool,
    /// The time of a layer that its newest plan was made with.
    planned_seconds: Option<f64>,
}

/// A segment, and what its phone measured of it.
type Timed<'a> = (&'a SegmentPlacement, Option<Measured>);

// === impl Known ===

impl Known {
    /// By phone, of segments of one class. A deployment's own segments say most, the later ones more; before it has any, those of others that run the most layers:
    /// where there are few, what a step takes besides counts for more.
    pub(super) fn of_all<'a>(
        observed: &'a Observed,
        (digest, numerics): (&str, &str),
        mut own: Vec<Timed<'a>>,
        mut others: Vec<Timed<'a>>,
    ) -> BTreeMap<&'a str, Self> {
        own.sort_by_key(|(placement, _)| placement.spec.plan_generation);
        others.sort_by_key(|(_, measured)| measured.map_or(0, |measured| measured.layers));
        let has_own = !own.is_empty();
        let mut known: BTreeMap<&str, Self> = BTreeMap::new();
        for (placement, measured) in others.into_iter().chain(own) {
            let spec = &placement.spec;
            let of_phone = known.entry(spec.phone.as_str()).or_default();
            if let Some(measured) = measured {
                of_phone.report = Some((measured, spec.holds.head));
                let object = observed.phones.get(&spec.phone).and_then(|seen| seen.object.as_deref());
                let busy = object
                    .and_then(|phone| layer_time(phone, digest, numerics))
                    .filter(|time| observed.now.as_second().saturating_sub(time.at_seconds) <= BUSY_REMEMBERED_SECONDS);
                of_phone.is_light = busy.is_some_and(|busy| measured.layers.saturating_mul(2) < busy.layers);
            }
            // Until it serves there is no plan of its own that noise could change.
            if spec.planned_layer_microseconds > 0 && has_own {
                of_phone.planned_seconds = Some(spec.planned_layer_microseconds as f64 / 1e6);
            }
        }
        known
    }
}

fn cost(
    estimate: &PhoneCosts,
    known: Known,
    remembered: Option<&LayerTime>,
    typical: f64,
    figures: Figures,
) -> PhoneCosts {
    let measured = known.report.map(|(report, _)| report.seconds_per_layer);
    let remembered = remembered.map(|time| time.milliseconds_per_layer / 1e3);
    let layer = match (measured, figures) {
        (Some(measured), Figures::Raw) => Some(measured),
        (Some(measured), Figures::Settled) => {
            let is_busier = known.is_light && remembered.is_some_and(|busy| busy > measured);
            let counted = if is_busier { remembered.unwrap_or(measured) } else { measured };
            Some(settled(counted, known.planned_seconds))
        }
        (None, _) => remembered,
    };
    let layer = layer.unwrap_or(estimate.seconds_per_layer * typical);
    // All times of a phone go with its speed, of which a layer's is the best measure.
    let pace = if estimate.seconds_per_layer > 0.0 && estimate.seconds_per_layer.is_finite() {
        layer / estimate.seconds_per_layer
    } else {
        1.0
    };
    let mut costs = PhoneCosts {
        seconds_per_layer: layer,
        seconds_per_layer_per_further_row: estimate.seconds_per_layer_per_further_row.map(|further| further * pace),
        seconds_embedding: estimate.seconds_embedding * pace,
        seconds_head: estimate.seconds_head * pace,
        seconds_head_per_further_row: estimate.seconds_head_per_further_row.map(|further| further * pace),
        prefill_seconds_per_layer_per_token: estimate.prefill_seconds_per_layer_per_token * pace,
        ..estimate.clone()
    };
    if let Some((report, is_tail)) = known.report {
        if let Some(prefill) = report.prefill_seconds_per_layer_per_token {
            costs.prefill_seconds_per_layer_per_token = rounded(prefill);
        }
        match report.seconds_besides_layers {
            // Of the same steps as the layer's time, and as far from the planned one.
            Some(besides) if is_tail => {
                let head = besides * measured.map_or(1.0, |measured| layer / measured);
                let further = costs.seconds_head_per_further_row;
                costs.seconds_head_per_further_row = further.map(|further| further.min(head));
                costs.seconds_head = to_step(head);
            }
            Some(besides) => costs.seconds_per_step = to_step(besides),
            None => {}
        }
    }
    costs
}

/// What the phone ever measured of the model in this class. A time of before says of no class: it is of the one that agents had then, which
/// those of now name first.
fn layer_time<'a>(phone: &'a Phone, digest: &str, numerics: &str) -> Option<&'a LayerTime> {
    let status = phone.status.as_ref()?;
    let (times, is_first) = (&status.layer_times, status.numerics.as_deref() == Some(numerics));
    let is_it = |time: &&LayerTime| time.manifest_digest == digest && time.milliseconds_per_layer > 0.0;
    let of_class = times.iter().filter(is_it).find(|time| time.numerics.as_deref() == Some(numerics));
    of_class.or_else(|| times.iter().filter(is_it).find(|time| is_first && time.numerics.is_none()))
}

/// How much longer a layer takes than a speed test promises, by the phone that keeps its promise best; `None` where none has held any of
/// the model in this class. Without it, phones that have held nothing of it would look faster than they are.
pub(super) fn typical_factor(
    (digest, numerics): (&str, &str),
    phones: &[&Counted<'_>],
    estimates: &[PhoneCosts],
) -> Option<f64> {
    let factor = |(counted, estimate): (&&Counted<'_>, &PhoneCosts)| {
        let fastest = layer_time(counted.object, digest, numerics)?.fastest_milliseconds_per_layer / 1e3;
        Some(fastest / estimate.seconds_per_layer).filter(|factor| PLAUSIBLE.contains(factor))
    };
    phones.iter().zip(estimates).filter_map(factor).reduce(f64::min)
}

fn settled(measured: f64, planned: Option<f64>) -> f64 {
    match planned {
        Some(planned) if measured <= planned * NEAR && measured >= planned / NEAR => planned,
        _ => rounded(measured),
    }
}

fn rounded(seconds: f64) -> f64 {
    if seconds > 0.0 && seconds.is_finite() { STEP.powf((seconds.ln() / STEP.ln()).round()) } else { seconds }
}

fn to_step(seconds: f64) -> f64 {
    (seconds / BESIDES_STEP_SECONDS).round() * BESIDES_STEP_SECONDS
}

#[cfg(test)]
mod tests {
    use polyphony_api::phone::{PhoneSpec, PhoneStatus};
    use polyphony_placement::Energy;

    use super::*;

    const HEAD_IN_LAYERS: f64 = 8.0;

    fn phone(name: &str, milliseconds_per_layer: f64) -> PhoneCosts {
        PhoneCosts {
            name: name.to_owned(),
            is_trusted: true,
            allocatable_bytes: 0,
            seconds_per_layer: milliseconds_per_layer / 1e3,
            seconds_per_layer_per_further_row: None,
            seconds_per_step: 0.0,
            seconds_embedding: 0.0,
            seconds_head: HEAD_IN_LAYERS * milliseconds_per_layer / 1e3,
            seconds_head_per_further_row: None,
            prefill_seconds_per_layer_per_token: 0.0,
            energy: Energy::default(),
        }
    }

    #[test]
    fn phones_of_one_speed_begin_with_one_time_unless_they_differ_clearly() {
        // By a speed test, and as measured.
        let table = [
            ([1.0, 1.2, 0.98], [1.19, 1.34, 1.19], [1.24, 1.24, 1.24]),
            ([1.0, 1.2, 0.98], [1.19, 3.80, 1.19], [1.19, 3.80, 1.19]),
            ([1.0, 1.4, 0.98], [1.19, 1.34, 1.19], [1.19, 1.34, 1.19]),
            ([1.0, 1.0, 1.0], [1.0, 1.14, 1.3], [1.07, 1.07, 1.3]),
            ([1.0, 1.0, 1.0], [f64::INFINITY, 1.0, f64::NAN], [f64::INFINITY, 1.0, f64::NAN]),
        ];
        for (speeds, measured, expected) in table {
            let phones = |times: [f64; 3]| times.map(|time| phone("phone", time));
            let (estimates, mut costs) = (phones(speeds), phones(measured));
            even_out(&mut costs, &estimates);
            for (a, b) in [(0, 1), (0, 2), (1, 2)].into_iter().filter(|&(a, b)| expected[a] == expected[b]) {
                assert_eq!(costs[a].seconds_per_layer.to_bits(), costs[b].seconds_per_layer.to_bits(), "{measured:?}");
            }
            for (cost, expected) in costs.iter().zip(expected) {
                let found = cost.seconds_per_layer * 1e3;
                let head_in_layers = cost.seconds_head / cost.seconds_per_layer;
                let goes_along = (head_in_layers - HEAD_IN_LAYERS).abs() < 1e-9;
                assert!(
                    goes_along || !cost.seconds_per_layer.is_finite(),
                    "{measured:?}: a head of {head_in_layers} layers"
                );
                // Half a step of the rounding.
                let is_it = (found - expected).abs() < 0.03 * expected || found.to_bits() == expected.to_bits();
                assert!(is_it || found.is_nan() && expected.is_nan(), "{measured:?}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn noise_is_the_plan_and_a_change_is_news() {
        let table = [(0.011, 0.010), (0.0085, 0.010), (0.030, 0.0296), (0.005, 0.005)];
        for (measured, expected) in table {
            let settled = settled(measured, Some(0.010));
            assert!((settled - expected).abs() < 0.05 * expected, "{measured}: {settled}");
        }
        assert_eq!(settled(0.030, Some(0.010)), settled(0.0303, Some(0.010)), "news are rounded");
    }

    #[test]
    fn a_time_of_before_is_of_the_class_that_an_agent_names_first() {
        let time = |numerics: Option<&str>, milliseconds: f64| LayerTime {
            manifest_digest: "m".into(),
            numerics: numerics.map(str::to_owned),
            milliseconds_per_layer: milliseconds,
            fastest_milliseconds_per_layer: milliseconds,
            layers: 1,
            at_seconds: 0,
        };
        let mut phone = Phone::new("a", PhoneSpec::default());
        phone.status = Some(PhoneStatus {
            numerics: Some("cpu-f32-r1".into()),
            layer_times: vec![time(None, 1.0), time(Some("cpu-int8-r2"), 2.0)],
            ..PhoneStatus::default()
        });
        let found = |numerics| layer_time(&phone, "m", numerics).map(|time| time.milliseconds_per_layer);
        let expected = [("cpu-f32-r1", Some(1.0)), ("cpu-int8-r2", Some(2.0)), ("vulkan-int8-r2", None)];
        assert_eq!(expected.map(|(numerics, _)| (numerics, found(numerics))), expected);
    }
}
