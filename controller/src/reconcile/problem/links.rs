//! Links: what is believed of the ways between phones. Pure.
//!
//! What was written of a link counts until the measured figure has clearly left it, so that noise makes no new problem; what is
//! news is rounded. A way that nobody has measured is made of the accesses of its two ends, which are fitted to all that was
//! measured, and judged with caution; of a phone that nobody has measured a way of, the worst of the others is believed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use polyphony_api::phone::Link as WrittenLink;
use polyphony_placement::{Access, Link, Links, Measured};
use polyphony_protocol::hub::LinkReport;

use crate::reconcile::observe::{Observed, PhoneSeen};
use crate::reconcile::ways::Ways;

/// What is believed of a link where nothing at all was measured: a slow Wi-Fi.
const DEFAULT_LINK: Link = Link { latency_seconds: 0.005, bytes_per_second: 6.25e6 };
/// Delays are rounded to this, those of an access to half of it, and bandwidths to powers of the second.
const LATENCY_STEP_SECONDS: f64 = 0.0005;
const BANDWIDTH_STEP: f64 = 1.25;
/// Rounds in which accesses are fitted: each halves what is left of the error, as a rule.
const FITS: usize = 12;

/// All links of all phones, looked at once a round. Phones go by their places among all that were observed.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// Both ways.
    measured: Measured,
    access: Vec<Option<Access>>,
    /// What was told of which phones: most deployments ask about the same ones.
    told: RefCell<HashMap<Vec<usize>, Links>>,
}

// === impl Survey ===

impl Survey {
    pub(super) fn of(observed: &Observed) -> Self {
        let places: HashMap<&str, usize> =
            observed.phones.keys().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
        let mut measured: Vec<((usize, usize), Link)> = Vec::new();
        for (from, seen) in observed.phones.values().enumerate() {
            for (peer, link) in known_links(seen) {
                if let Some(&to) = places.get(peer).filter(|to| **to != from) {
                    measured.push(((from, to), link));
                }
            }
        }
        // Where only one end has measured, the other way counts as the same: what comes later counts.
        let back: Vec<_> = measured.iter().map(|&((from, to), link)| ((to, from), link)).collect();
        let mut measured: BTreeMap<(usize, usize), Link> = back.into_iter().chain(measured).collect();
        let access = accesses(places.len(), &measured);
        // What cannot be opened is none, whatever was measured of it before.
        for (one, other) in Ways::of(observed).none() {
            if let (Some(&from), Some(&to)) = (places.get(one), places.get(other)) {
                measured.insert((from, to), Link::UNREACHABLE);
            }
        }
        Self { measured: measured.into_iter().collect(), access, told: RefCell::default() }
    }

    /// The links between the phones at `places`, which are rising.
    pub(super) fn between(&self, places: Vec<usize>) -> Links {
        self.told.borrow_mut().entry(places).or_insert_with_key(|places| self.links_between(places)).clone()
    }

    fn links_between(&self, places: &[usize]) -> Links {
        let access = places.iter().map(|&place| self.access.get(place).copied().flatten()).collect();
        let n_ways = places.len() * places.len();
        let measured: Measured = if n_ways < self.measured.len() / 8 {
            let ways = (0..places.len()).flat_map(|from| (0..places.len()).map(move |to| (from, to)));
            let link =
                |(from, to): (usize, usize)| Some(((from, to), *self.measured.get(&(places[from], places[to]))?));
            ways.filter_map(link).collect()
        } else {
            let mut new_places: Vec<Option<usize>> = vec![None; self.access.len()];
            for (new_place, &place) in places.iter().enumerate() {
                new_places[place] = Some(new_place);
            }
            let link =
                |&((from, to), link): &((usize, usize), Link)| Some(((new_places[from]?, new_places[to]?), link));
            self.measured.iter().filter_map(link).collect()
        };
        Links { default: DEFAULT_LINK, access, measured }
    }
}

/// The links of a phone, as they are written; and those that are not yet, or lead another way by now, as it reported them.
fn known_links(seen: &PhoneSeen) -> impl Iterator<Item = (&str, Link)> {
    let written: &[WrittenLink] = (seen.object.as_ref())
        .and_then(|object| object.status.as_ref())
        .map(|status| status.links.as_slice())
        .unwrap_or_default();
    let reported = seen.heartbeat.iter().flat_map(|heartbeat| &heartbeat.links);
    let leads_elsewhere = |link: &&WrittenLink| {
        let mut now = seen.heartbeat.iter().flat_map(|heartbeat| &heartbeat.links);
        now.any(|report| report.peer == link.peer && report.is_relayed != link.relayed)
    };
    let of_written = written.iter().filter(move |link| !leads_elsewhere(link)).filter_map(|link| {
        let bytes_per_second = link.megabits_per_second.map(|megabits| megabits * 1e6 / 8.0);
        Some((link.peer.as_str(), believed(link.round_trip_milliseconds / 1e3, bytes_per_second)?))
    });
    let is_written =
        |report: &LinkReport| written.iter().any(|link| link.peer == report.peer && link.relayed == report.is_relayed);
    let of_reported = reported.filter(move |report| !is_written(report)).filter_map(|report| {
        Some((report.peer.as_str(), believed(report.round_trip_seconds, report.bytes_per_second)?))
    });
    of_written.chain(of_reported)
}

fn believed(round_trip_seconds: f64, bytes_per_second: Option<f64>) -> Option<Link> {
    let one_way = round_trip_seconds / 2.0;
    if !one_way.is_finite() || one_way < 0.0 {
        return None;
    }
    let latency_seconds = (one_way / LATENCY_STEP_SECONDS).round() * LATENCY_STEP_SECONDS;
    let measured = bytes_per_second.filter(|speed| speed.is_finite() && *speed >= 1.0);
    let rounded = |speed: f64| BANDWIDTH_STEP.powf((speed.ln() / BANDWIDTH_STEP.ln()).round());
    Some(Link { latency_seconds, bytes_per_second: measured.map_or(DEFAULT_LINK.bytes_per_second, rounded) })
}

/// The accesses of all phones, such that the delays of two add up to what was measured between them, as nearly as can be
/// (least squares, one phone after another); by how much they miss it comes on top. The bandwidth is the middle one of the
/// phone's links. `None` for all where nothing was measured.
fn accesses(n_phones: usize, measured: &BTreeMap<(usize, usize), Link>) -> Vec<Option<Access>> {
    let mut of_phone: Vec<Vec<(usize, Link)>> = vec![Vec::new(); n_phones];
    for (&(from, to), &link) in measured.iter().filter(|(_, link)| link.latency_seconds.is_finite()) {
        of_phone[from].push((to, link));
    }
    let mean = |of: &mut dyn Iterator<Item = f64>| {
        let (n, sum) = of.fold((0.0, 0.0), |(n, sum), one| (n + 1.0, sum + one));
        if n > 0.0 { sum / n } else { 0.0 }
    };
    let mut delays: Vec<f64> =
        of_phone.iter().map(|links| mean(&mut links.iter().map(|(_, link)| link.latency_seconds)) / 2.0).collect();
    for _ in 0..FITS {
        for (phone, links) in of_phone.iter().enumerate() {
            let rests = &mut links.iter().map(|(peer, link)| (link.latency_seconds - delays[*peer]).max(0.0));
            delays[phone] = mean(rests);
        }
    }
    let fitted = |phone: usize| {
        let links = &of_phone[phone];
        if links.is_empty() {
            return None;
        }
        let misses =
            &mut links.iter().map(|(peer, link)| (link.latency_seconds - delays[phone] - delays[*peer]).powi(2));
        let mut widths: Vec<f64> = links.iter().map(|(_, link)| link.bytes_per_second).collect();
        widths.sort_by(f64::total_cmp);
        let steps = (delays[phone] + mean(misses).sqrt()) / (LATENCY_STEP_SECONDS / 2.0);
        // A hair less, so that what is a whole step but for rounding stays one.
        let delay_seconds = (steps - 1e-6).ceil().max(0.0) * LATENCY_STEP_SECONDS / 2.0;
        Some(Access { delay_seconds, bytes_per_second: widths[(widths.len() - 1) / 2] })
    };
    let mut accesses: Vec<Option<Access>> = (0..n_phones).map(fitted).collect();
    let worst = accesses.iter().flatten().copied().reduce(|a, b| Access {
        delay_seconds: a.delay_seconds.max(b.delay_seconds),
        bytes_per_second: a.bytes_per_second.min(b.bytes_per_second),
    });
    if let Some(worst) = worst {
        let unknown = Access {
            delay_seconds: worst.delay_seconds.max(DEFAULT_LINK.latency_seconds / 2.0),
            bytes_per_second: worst.bytes_per_second.min(DEFAULT_LINK.bytes_per_second),
        };
        accesses.iter_mut().for_each(|access| *access = Some(access.unwrap_or(unknown)));
    }
    accesses
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use polyphony_api::{Phone, PhoneSpec, PhoneStatus};
    use polyphony_protocol::hub::Heartbeat;

    use super::*;

    /// Phones with these delays and bandwidths of their own, of which only some pairs were measured.
    fn measured(accesses: &[(f64, f64)], is_measured: impl Fn(usize, usize) -> bool) -> BTreeMap<(usize, usize), Link> {
        let n = accesses.len();
        let pairs = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        let link = |(from, to): (usize, usize)| {
            let ((d, b), (e, c)) = (accesses[from], accesses[to]);
            ((from, to), Link { latency_seconds: d + e, bytes_per_second: b.min(c) })
        };
        pairs.filter(|&(from, to)| from != to && is_measured(from.min(to), from.max(to))).map(link).collect()
    }

    #[test]
    fn a_way_that_nobody_measured_is_made_of_the_accesses_at_its_ends() {
        // The fourth is far away, and three pairs were measured by nobody.
        let own = [(0.001, 2e7), (0.002, 2e7), (0.001, 1e7), (0.050, 1e6), (0.001, 2e7)];
        let unknown = [(0, 3), (1, 4), (2, 3)];
        let known = measured(&own, |from, to| !unknown.contains(&(from, to)));
        let access = accesses(own.len(), &known);
        let links = Links { default: DEFAULT_LINK, access, measured: known.into_iter().collect() };
        for (from, to) in unknown {
            let (truth, believed) = (own[from].0 + own[to].0, links.between(from, to));
            let is_near = believed.latency_seconds > truth * 0.9 && believed.latency_seconds < truth * 1.5 + 0.001;
            assert!(is_near, "{from} {to}: {believed:?} instead of {truth}");
            assert!(believed.bytes_per_second <= own[from].1.min(own[to].1), "{from} {to}: {believed:?}");
        }
    }

    #[test]
    fn what_fits_no_access_is_judged_with_caution_and_what_is_unknown_as_the_worst() {
        // Two houses: near within, far between. An access for each phone cannot tell that.
        let house = |phone: usize| phone / 3;
        let known: BTreeMap<_, _> = measured(&[(0.0, 1e7); 6], |from, to| (from, to) != (0, 4) && (from, to) != (1, 2))
            .into_iter()
            .map(|((from, to), link)| {
                let latency_seconds = if house(from) == house(to) { 0.001 } else { 0.040 };
                ((from, to), Link { latency_seconds, ..link })
            })
            .collect();
        // A seventh phone, of which nothing is known.
        let access = accesses(7, &known);
        let links = Links { default: DEFAULT_LINK, access, measured: known.into_iter().collect() };
        assert!(links.between(0, 4).latency_seconds >= 0.035, "{:?}", links.between(0, 4));
        let worst = links.access.iter().flatten().map(|access| access.delay_seconds).fold(0.0, f64::max);
        let strange = links.between(0, 6);
        assert!(strange.latency_seconds >= worst, "{strange:?}");
        assert!(strange.bytes_per_second <= DEFAULT_LINK.bytes_per_second, "{strange:?}");
        assert_eq!(accesses(2, &BTreeMap::new()), [None, None], "nothing was measured: the default counts");
    }

    #[test]
    fn few_phones_and_many_are_told_the_same_of_the_links_between_them() {
        let own = [(0.001, 2e7); 40];
        let known = measured(&own, |from, to| (from + to) % 3 != 0);
        let survey =
            Survey { access: accesses(own.len(), &known), measured: known.into_iter().collect(), ..Survey::default() };
        let (few, many) = (vec![3, 4, 20], (0..40).filter(|place| *place != 7).collect::<Vec<usize>>());
        let (of_few, of_many) = (survey.between(few.clone()), survey.between(many.clone()));
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2)] {
            let place = |at: usize| many.iter().position(|place| *place == few[at]).unwrap();
            assert_eq!(of_few.between(from, to), of_many.between(place(from), place(to)), "{from} {to}");
            assert_eq!(of_few.access_of(from), of_many.access_of(place(from)));
        }
        assert_eq!(
            (of_few.access.len(), of_few.measured.len()),
            (3, 4),
            "3 and 4 sum to 7, 3 and 20 to 23, 4 and 20 to 24"
        );
        assert_eq!(survey.between(many), of_many);
    }

    #[test]
    fn what_was_written_of_a_link_counts_and_else_what_was_reported() {
        let mut phone = Phone::new("a", PhoneSpec::default());
        let written =
            WrittenLink { peer: "b".into(), round_trip_milliseconds: 4.0, megabits_per_second: None, relayed: false };
        phone.status = Some(PhoneStatus { links: vec![written], ..PhoneStatus::default() });
        let report = |peer: &str, round_trip_seconds| LinkReport {
            peer: peer.into(),
            round_trip_seconds,
            bytes_per_second: None,
            is_relayed: false,
        };
        let mut seen = PhoneSeen { object: Some(Arc::new(phone)), ..PhoneSeen::default() };
        for round_trip_seconds in [0.0039, 0.0051] {
            let links = vec![report("b", round_trip_seconds), report("c", 0.008), report("d", f64::NAN)];
            seen.heartbeat = Some(Heartbeat { links, ..Heartbeat::default() });
            let known: Vec<_> = known_links(&seen).map(|(peer, link)| (peer, link.latency_seconds)).collect();
            assert_eq!(known, [("b", 0.002), ("c", 0.004)]);
        }
        let relayed = LinkReport { is_relayed: true, ..report("b", 0.012) };
        seen.heartbeat = Some(Heartbeat { links: vec![relayed], ..Heartbeat::default() });
        let known: Vec<_> = known_links(&seen).map(|(peer, link)| (peer, link.latency_seconds)).collect();
        assert_eq!(known, [("b", 0.006)], "another way is news, however near its figure is");
    }
}
