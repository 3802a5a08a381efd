//! Links: what phones measured of the ways between them, rounded so that noise makes no new problem. Pure.

use std::collections::BTreeMap;

use polyphony_placement::{Link, Links, PhoneCosts};
use polyphony_protocol::hub::LinkReport;

use crate::reconcile::decide::failures;
use crate::reconcile::observe::Observed;

/// What is believed of a link that nobody has measured: a fair Wi-Fi.
const DEFAULT_LINK: Link = Link { latency_seconds: 0.002, bytes_per_second: 12.5e6 };
/// Latencies are rounded to this, and bandwidths to powers of the second.
const LATENCY_STEP_SECONDS: f64 = 0.0005;
const BANDWIDTH_STEP: f64 = 1.25;

/// The links between `phones`. Where only one end has measured, the other way counts as the same.
pub(super) fn between(observed: &Observed, phones: &[PhoneCosts]) -> Links {
    let index: BTreeMap<&str, usize> =
        phones.iter().enumerate().map(|(index, phone)| (phone.name.as_str(), index)).collect();
    let mut links = Links::uniform(DEFAULT_LINK);
    for (from, phone) in phones.iter().enumerate() {
        let heartbeat = observed.phones.get(&phone.name).and_then(|seen| seen.heartbeat.as_ref());
        for report in heartbeat.map(|heartbeat| &heartbeat.links).into_iter().flatten() {
            if let (Some(&to), Some(link)) = (index.get(report.peer.as_str()), link(report)) {
                links.measured.insert((from, to), link);
            }
        }
    }
    let one_way: Vec<_> = links.measured.iter().map(|(&(from, to), &link)| ((to, from), link)).collect();
    for (back, link) in one_way {
        links.measured.entry(back).or_insert(link);
    }
    // What cannot be opened is none, whatever was measured of it before.
    for (one, other) in failures::links_down(observed).into_keys() {
        if let (Some(&from), Some(&to)) = (index.get(one), index.get(other)) {
            links.measured.insert((from, to), Link::UNREACHABLE);
        }
    }
    links
}

fn link(report: &LinkReport) -> Option<Link> {
    let one_way = report.round_trip_seconds / 2.0;
    if !one_way.is_finite() || one_way < 0.0 {
        return None;
    }
    let latency_seconds = (one_way / LATENCY_STEP_SECONDS).round() * LATENCY_STEP_SECONDS;
    let measured = report.bytes_per_second.filter(|speed| speed.is_finite() && *speed >= 1.0);
    let rounded = |speed: f64| BANDWIDTH_STEP.powf((speed.ln() / BANDWIDTH_STEP.ln()).round());
    Some(Link { latency_seconds, bytes_per_second: measured.map_or(DEFAULT_LINK.bytes_per_second, rounded) })
}
