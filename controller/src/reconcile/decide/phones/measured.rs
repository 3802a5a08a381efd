//! Measured: which of what a phone measured is written into its status, and when. Pure.
//!
//! Heartbeats come each second and mostly say the same. A figure is written when it has left the written one by a step, and then
//! all are, at most once in a while; decisions that cannot wait look at the heartbeat itself.

use kube::ResourceExt;
use polyphony_api::phone::{LayerTime, Link, PhoneStatus};
use polyphony_api::segment_placement::SegmentPlacementStatus;
use polyphony_api::{Phone, SegmentPlacement};
use polyphony_placement::BELIEVED_WATTS;
use polyphony_protocol::hub::{Heartbeat, SegmentReport};

use super::super::condition_time;
use crate::reconcile::class;
use crate::reconcile::facts::three_figures;
use crate::reconcile::observe::Observed;
use crate::reconcile::problem::measured::BUSY_REMEMBERED_SECONDS;

/// Measurements of a phone are written at most this often.
const WRITE_EVERY_SECONDS: i64 = 30;
/// The steps. A round trip over Wi-Fi is noise to half of itself, and so is a quarter of a bandwidth.
const STEP_PERCENT: u8 = 5;
const STEP_CELSIUS: f64 = 2.0;
const STEP_TIME: f64 = 0.1;
/// Of watts: what else the phone does is noise in them.
const STEP_WATTS: f64 = 0.2;
const STEP_ROUND_TRIP: f64 = 0.5;
const STEP_ROUND_TRIP_MILLISECONDS: f64 = 1.0;
const STEP_BANDWIDTH: f64 = 0.25;
/// A layer's time that stays the same is dated anew after this, as a kubelet tells of a node.
const DATE_EVERY_SECONDS: i64 = 300;
/// Models whose layer times are kept.
const MAX_LAYER_TIMES: usize = 8;

/// Whether measurements of the phone may be written now.
pub fn may_write(observed: &Observed, phone: &Phone) -> bool {
    let written = phone.status.as_ref().and_then(|status| status.last_measured_time.as_ref());
    written.is_none_or(|written| observed.now.duration_since(written.0).as_secs() >= WRITE_EVERY_SECONDS)
}

/// Writes what the phone measured into `status`, when it may be written and there is something to write. `is_written_anyway`:
/// something else of the status is.
pub(super) fn write(
    observed: &Observed,
    phone: &Phone,
    heartbeat: &Heartbeat,
    is_written_anyway: bool,
    status: &mut PhoneStatus,
) {
    if !is_written_anyway && !may_write(observed, phone) {
        return;
    }
    let mut measured = status.clone();
    measure(&mut measured, heartbeat);
    remember(&mut measured.layer_times, observed, &phone.name_any());
    if measured != *status || has_news_of_placements(observed, phone) {
        measured.last_measured_time = Some(condition_time(observed));
        *status = measured;
    }
}

fn measure(status: &mut PhoneStatus, heartbeat: &Heartbeat) {
    let percent = heartbeat.battery_percent.map(|percent| percent.min(100));
    let has_power_news = match (status.battery_percent, percent) {
        (Some(old), Some(new)) => old.abs_diff(new) >= STEP_PERCENT,
        (old, new) => old.is_some() != new.is_some(),
    };
    if has_power_news || status.charging != heartbeat.charging {
        status.battery_percent = percent;
        status.charging = heartbeat.charging;
    }
    let has_heat_news = match (status.temperature_celsius, heartbeat.temperature_celsius) {
        (Some(old), Some(new)) => (old - new).abs() >= STEP_CELSIUS,
        (old, new) => old.is_some() != new.is_some(),
    };
    if has_heat_news {
        status.temperature_celsius = heartbeat.temperature_celsius.map(three_figures);
    }
    // While the phone charges, and until it has been seen at work and at rest again, what was measured before holds.
    if let Some(watts) = heartbeat.active_watts.filter(|watts| BELIEVED_WATTS.contains(watts))
        && status.active_watts.is_none_or(|written| is_a_step(written, watts, STEP_WATTS))
    {
        status.active_watts = Some(three_figures(watts));
    }
    let reports = heartbeat.links.iter().filter(|link| link.round_trip_seconds.is_finite());
    let mut links: Vec<Link> = reports
        .map(|link| Link {
            peer: link.peer.clone(),
            round_trip_milliseconds: three_figures(link.round_trip_seconds * 1e3),
            megabits_per_second: link.bytes_per_second.map(|speed| three_figures(speed * 8.0 / 1e6)),
            relayed: link.is_relayed,
        })
        .collect();
    links.sort_by(|a, b| a.peer.cmp(&b.peer));
    // Each link has a memory of its own: what has not left its written figure stays, whatever else is news.
    for link in &mut links {
        let written = status.links.binary_search_by(|written| written.peer.cmp(&link.peer));
        if let Some(written) = written.ok().map(|at| &status.links[at]).filter(|written| is_alike(written, link)) {
            link.clone_from(written);
        }
    }
    status.links = links;
}

fn is_alike(old: &Link, new: &Link) -> bool {
    let (old_ms, new_ms) = (old.round_trip_milliseconds, new.round_trip_milliseconds);
    let is_as_wide = match (old.megabits_per_second, new.megabits_per_second) {
        (Some(old), Some(new)) => (new - old).abs() <= STEP_BANDWIDTH * old,
        (old, new) => new.is_some() == old.is_some(),
    };
    old.relayed == new.relayed
        && is_as_wide
        && (new_ms - old_ms).abs() <= (STEP_ROUND_TRIP * old_ms).max(STEP_ROUND_TRIP_MILLISECONDS)
}

/// Keeps the times of a layer that the phone reports now, one entry a model and class, the newest first.
fn remember(times: &mut Vec<LayerTime>, observed: &Observed, phone: &str) {
    let now = observed.now.as_second();
    for (placement, report) in reported(observed, phone) {
        let digest = &placement.spec.manifest_digest;
        let Some(seconds) = report.seconds_per_layer else { continue };
        let held = placement.spec.holds.to.saturating_sub(placement.spec.holds.from);
        let layers = if report.layers_timed > 0 { report.layers_timed } else { held };
        let milliseconds = three_figures(seconds * 1e3);
        let numerics = class::numerics(&placement.spec.numerics_class);
        let is_it = |time: &LayerTime| time.manifest_digest == *digest && time.numerics.as_deref() == Some(numerics);
        let known = times.iter().position(is_it);
        let fastest = known.map_or(milliseconds, |at| times[at].fastest_milliseconds_per_layer.min(milliseconds));
        if let Some(old) = known.map(|at| &times[at]) {
            let age = now - old.at_seconds;
            let is_alike = !is_a_step(old.milliseconds_per_layer, milliseconds, STEP_TIME);
            let says_less = layers.saturating_mul(2) < old.layers && milliseconds < old.milliseconds_per_layer;
            let is_kept = if says_less {
                age <= BUSY_REMEMBERED_SECONDS
            } else {
                is_alike && old.layers == layers && age < DATE_EVERY_SECONDS
            };
            if is_kept {
                continue;
            }
        }
        if let Some(at) = known {
            times.remove(at);
        }
        let time = LayerTime {
            manifest_digest: digest.clone(),
            numerics: Some(numerics.to_owned()),
            milliseconds_per_layer: milliseconds,
            fastest_milliseconds_per_layer: fastest,
            layers,
            at_seconds: now,
        };
        times.insert(0, time);
        times.truncate(MAX_LAYER_TIMES);
    }
}

fn reported<'a>(
    observed: &'a Observed,
    phone: &str,
) -> impl Iterator<Item = (&'a SegmentPlacement, &'a SegmentReport)> {
    let of_phone = observed.placements.values().filter(move |placement| placement.spec.phone == phone);
    of_phone.filter_map(|placement| Some((placement.as_ref(), observed.report_of(placement)?)))
}

fn is_a_step(old: f64, new: f64, part: f64) -> bool {
    (old - new).abs() > part * old
}

// --- What its placements say ---

/// Whether a time of one of the phone's placements has left the one that is written in that placement's status.
fn has_news_of_placements(observed: &Observed, phone: &Phone) -> bool {
    let mut reported = reported(observed, phone.metadata.name.as_deref().unwrap_or_default());
    reported.any(|(placement, report)| {
        let mut status = placement.status.clone().unwrap_or_default();
        write_times(&mut status, report)
    })
}

/// Writes the measured times of a segment that have left what is written; says whether any has.
pub fn write_times(status: &mut SegmentPlacementStatus, report: &SegmentReport) -> bool {
    let figures = [
        (&mut status.milliseconds_per_layer, report.seconds_per_layer, 2),
        (&mut status.milliseconds_besides_layers, report.seconds_besides_layers, 2),
        (&mut status.prefill_milliseconds_per_layer_per_token, report.prefill_seconds_per_layer_per_token, 4),
    ];
    let mut has_news = false;
    for (written, seconds, n_decimals) in figures {
        let Some(milliseconds) = seconds.map(|seconds| seconds * 1e3) else { continue };
        let before = written.as_deref().and_then(|text| text.parse::<f64>().ok());
        if before.is_none_or(|before| is_a_step(before, milliseconds, STEP_TIME)) {
            let now = format!("{milliseconds:.n_decimals$}");
            has_news |= written.as_deref() != Some(now.as_str());
            *written = Some(now);
        }
    }
    has_news
}
