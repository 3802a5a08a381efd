//! Phones: their objects, status, conditions and leases. Pure.

use kube::ResourceExt;
use polyphony_api::Phone;
use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::phone::{BackendSpeed, LayerTime, Link, Memory, PhoneStatus};
use polyphony_api::quantity::format_bytes;
use polyphony_protocol::hub::{Heartbeat, Join};

use super::story::{Severity, tell};
use super::{Action, condition_time, failures};
use crate::reconcile::elapsed::seconds_since;
use crate::reconcile::observe::{Health, Observed, PhoneLink, PhoneSeen};
use crate::reconcile::problem::allocatable_bytes;
use crate::reconcile::problem::measured::BUSY_REMEMBERED_SECONDS;

/// A lease is renewed after this.
const LEASE_SECONDS: i64 = 10;
/// A phone is too hot from here on, until it is cooler than the second.
const HOT_CELSIUS: f64 = 45.0;
const COOL_CELSIUS: f64 = 42.0;
/// An uncharged battery is low below this, where its Phone says nothing else.
const LOW_BATTERY_PERCENT: u8 = 15;
/// Smaller changes are not written.
const MEANINGFUL_CELSIUS: f64 = 1.0;
const MEANINGFUL_ROUND_TRIP: f64 = 0.5;
const MEANINGFUL_BANDWIDTH: f64 = 0.25;
const MEANINGFUL_LAYER_TIME: f64 = 0.2;
/// A layer's time that stays the same is dated anew after this.
const REMEMBER_EVERY_SECONDS: i64 = 60;
/// Models whose layer times are kept.
const MAX_LAYER_TIMES: usize = 8;
/// A battery that was low is low until it is so far above its limit.
const BACK_PERCENT: u8 = 5;

pub(super) fn decide(observed: &Observed, name: &str, seen: &PhoneSeen, actions: &mut Vec<Action>) {
    let health = observed.health(name);
    if health == Health::Lost && matches!(seen.link, PhoneLink::Up { .. }) {
        actions.push(Action::CutLink { phone: name.to_owned() });
    }
    let is_up = matches!(seen.link, PhoneLink::Up { .. });
    let Some(phone) = &seen.object else {
        if is_up {
            actions.push(Action::CreatePhone { name: name.to_owned() });
        }
        return;
    };
    let age = seen.lease_renewed.and_then(|renewed| seconds_since(renewed, observed.now));
    if health.takes_segments() && age.is_none_or(|age| age >= LEASE_SECONDS) {
        actions.push(Action::RenewLease { phone: name.to_owned() });
    }
    if health == Health::Awaited {
        return;
    }
    let before = phone.status.clone().unwrap_or_default();
    let after = status_of(observed, phone, seen, health, &before);
    if after != before {
        let story = story_of(phone, &before, &after);
        actions.push(Action::SetPhoneStatus { name: name.to_owned(), status: after });
        actions.extend(story);
    }
}

fn status_of(
    observed: &Observed,
    phone: &Phone,
    seen: &PhoneSeen,
    health: Health,
    before: &PhoneStatus,
) -> PhoneStatus {
    let mut status = before.clone();
    if let Some(join) = &seen.join {
        describe(&mut status, phone, join);
    }
    if let Some(heartbeat) = &seen.heartbeat {
        measure(&mut status, heartbeat);
        remember(&mut status.layer_times, observed, &phone.name_any());
    }
    failures::remember(&mut status, observed, &phone.name_any(), seen);
    let now = condition_time(observed);
    for statement in statements(phone, health, &status) {
        condition::set(&mut status.conditions, &statement, None, &now);
    }
    status
}

/// What the agent said when it joined.
fn describe(status: &mut PhoneStatus, phone: &Phone, join: &Join) {
    status.agent_version = Some(join.agent_version.clone());
    status.backend = Some(join.backend.clone());
    status.numerics = Some(join.numerics.clone());
    status.device = Some(join.device.clone());
    status.ring_address = Some(join.ring_address.clone());
    status.metrics_address = Some(join.metrics_address.clone()).filter(|address| !address.is_empty());
    status.capacity = Some(Memory { memory: format_bytes(join.capacity_bytes) });
    status.allocatable = Some(Memory { memory: format_bytes(allocatable_bytes(phone, join.allocatable_bytes)) });
    let speed = |speed: &polyphony_protocol::hub::Speed| BackendSpeed {
        name: speed.backend.clone(),
        device: speed.device.clone(),
        gflops: rounded(speed.gflops),
        batch_gflops: Some(rounded(speed.batch_gflops)).filter(|gflops| *gflops > 0.0),
        gigabytes_per_second: rounded(speed.gigabytes_per_second),
    };
    status.backends = join.speeds.iter().map(speed).collect();
    let speeds: Vec<String> = status.backends.iter().map(|one| format!("{} {:.2}", one.name, one.gflops)).collect();
    status.speeds = Some(speeds.join(", ")).filter(|text| !text.is_empty());
}

/// What the agent measured since; changes that mean nothing are left out.
fn measure(status: &mut PhoneStatus, heartbeat: &Heartbeat) {
    status.battery_percent = heartbeat.battery_percent.map(|percent| percent.min(100));
    status.charging = heartbeat.charging;
    let moved = |old: Option<f64>, new: Option<f64>| match (old, new) {
        (Some(old), Some(new)) => (old - new).abs() >= MEANINGFUL_CELSIUS,
        (old, new) => old.is_some() != new.is_some(),
    };
    if moved(status.temperature_celsius, heartbeat.temperature_celsius) {
        status.temperature_celsius = heartbeat.temperature_celsius.map(rounded);
    }
    let mut links: Vec<Link> = heartbeat
        .links
        .iter()
        .filter(|link| link.round_trip_seconds.is_finite())
        .map(|link| Link {
            peer: link.peer.clone(),
            round_trip_milliseconds: rounded(link.round_trip_seconds * 1e3),
            megabits_per_second: link.bytes_per_second.map(|speed| rounded(speed * 8.0 / 1e6)),
        })
        .collect();
    links.sort_by(|a, b| a.peer.cmp(&b.peer));
    let is_alike = links.len() == status.links.len()
        && links.iter().zip(&status.links).all(|(new, old)| {
            let (new_ms, old_ms) = (new.round_trip_milliseconds, old.round_trip_milliseconds);
            let is_as_wide = match (new.megabits_per_second, old.megabits_per_second) {
                (Some(new), Some(old)) => (new - old).abs() <= MEANINGFUL_BANDWIDTH * old,
                (new, old) => new.is_some() == old.is_some(),
            };
            new.peer == old.peer && is_as_wide && (new_ms - old_ms).abs() <= (MEANINGFUL_ROUND_TRIP * old_ms).max(1.0)
        });
    if !is_alike {
        status.links = links;
    }
}

/// Keeps the times of a layer that the phone reports now, one entry a model, the newest first.
fn remember(times: &mut Vec<LayerTime>, observed: &Observed, phone: &str) {
    let now = observed.now.as_second();
    for placement in observed.placements.values().filter(|placement| placement.spec.phone == phone) {
        let digest = &placement.spec.manifest_digest;
        let Some(report) = observed.report_of(placement) else { continue };
        let Some(seconds) = report.seconds_per_layer else { continue };
        let held = placement.spec.holds.to.saturating_sub(placement.spec.holds.from);
        let layers = if report.layers_timed > 0 { report.layers_timed } else { held };
        let milliseconds = rounded(seconds * 1e3);
        let known = times.iter().position(|time| time.manifest_digest == *digest);
        let fastest = known.map_or(milliseconds, |at| times[at].fastest_milliseconds_per_layer.min(milliseconds));
        if let Some(old) = known.map(|at| &times[at]) {
            let age = now - old.at_seconds;
            let is_alike =
                (old.milliseconds_per_layer - milliseconds).abs() <= MEANINGFUL_LAYER_TIME * old.milliseconds_per_layer;
            let says_less = layers.saturating_mul(2) < old.layers && milliseconds < old.milliseconds_per_layer;
            let is_kept = if says_less {
                age <= BUSY_REMEMBERED_SECONDS
            } else {
                is_alike && old.layers == layers && age < REMEMBER_EVERY_SECONDS
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
            milliseconds_per_layer: milliseconds,
            fastest_milliseconds_per_layer: fastest,
            layers,
            at_seconds: now,
        };
        times.insert(0, time);
        times.truncate(MAX_LAYER_TIMES);
    }
}

fn statements(phone: &Phone, health: Health, status: &PhoneStatus) -> [Statement; 4] {
    let (ready, reachable, reason, message) = match health {
        Health::Well | Health::Suspected => {
            (Truth::True, Truth::True, "AgentConnected", "the agent is linked to the controller".to_owned())
        }
        Health::Silent | Health::Lost => (
            Truth::Unknown,
            Truth::False,
            "Silent",
            format!("nothing was heard of {}: {}", phone.name_any(), health.story()),
        ),
        Health::Gone | Health::Awaited => {
            (Truth::False, Truth::False, "Gone", format!("{} is gone: {}", phone.name_any(), health.story()))
        }
    };
    let hot = match status.temperature_celsius {
        Some(celsius) if condition::is_true(&status.conditions, "ThermalPressure") => celsius >= COOL_CELSIUS,
        Some(celsius) => celsius >= HOT_CELSIUS,
        None => false,
    };
    let back = if condition::is_true(&status.conditions, "BatteryLow") { BACK_PERCENT } else { 0 };
    let is_below = |percent: u8, minimum: u8| percent < minimum.saturating_add(back).min(100);
    let low = match (status.battery_percent, phone.spec.min_battery_percent) {
        (None, _) => false,
        (Some(percent), Some(minimum)) => is_below(percent, minimum),
        (Some(percent), None) => is_below(percent, LOW_BATTERY_PERCENT) && status.charging != Some(true),
    };
    let hot_message = if hot {
        format!("{HOT_CELSIUS} °C or more were measured: its layers move to others until it is below {COOL_CELSIUS} °C")
    } else {
        String::new()
    };
    let low_message = if low {
        "the charge is below its limit: its layers move to others until it is 5 points above".to_owned()
    } else {
        String::new()
    };
    let statement =
        |type_, status, reason: &str, message| Statement { type_, status, reason: reason.to_owned(), message };
    [
        statement("Ready", ready, reason, message.clone()),
        statement("Reachable", reachable, reason, message),
        statement("ThermalPressure", hot.into(), if hot { "TooHot" } else { "NotHot" }, hot_message),
        statement("BatteryLow", low.into(), if low { "ChargeBelowLimit" } else { "ChargeSufficient" }, low_message),
    ]
}

fn story_of(phone: &Phone, before: &PhoneStatus, after: &PhoneStatus) -> Option<Action> {
    let ready = condition::find(&after.conditions, "Ready")?;
    let was = condition::find(&before.conditions, "Ready");
    if was.is_some_and(|was| was.status == ready.status) {
        return None;
    }
    Some(match (ready.status.as_str(), was) {
        ("True", None) => tell(phone, Severity::Normal, "Joined", joined_note(after)),
        ("True", Some(_)) => tell(phone, Severity::Normal, "Rejoined", joined_note(after)),
        (_, _) => tell(phone, Severity::Warning, ready.reason.clone(), ready.message.clone()),
    })
}

fn joined_note(status: &PhoneStatus) -> String {
    let backend = status.backend.as_deref().unwrap_or("no backend");
    let memory = status.allocatable.as_ref().map_or("0", |memory| memory.memory.as_str());
    let device = status.device.as_deref().unwrap_or("an unknown device");
    format!("linked: {backend} on {device}, {memory} for segments")
}

/// Three significant figures are enough for people and planner; what is beyond writing with them is nothing.
fn rounded(value: f64) -> f64 {
    if !value.is_normal() {
        return 0.0;
    }
    let scale = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_and_what_cannot_be_written_is_nothing() {
        for (value, expected) in [
            (1234.5, 1230.0),
            (-0.001_236, -0.001_24),
            (0.0, 0.0),
            (1e-310, 0.0),
            (f64::NAN, 0.0),
            (f64::INFINITY, 0.0),
        ] {
            assert_eq!(rounded(value), expected, "{value}");
        }
    }
}
