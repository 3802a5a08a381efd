//! Phones: their objects, status and conditions. Pure.

pub mod measured;

use kube::ResourceExt;
use polyphony_api::Phone;
use polyphony_api::condition::{self, Statement, Truth};
use polyphony_api::phone::{BackendSpeed, Hardware, Memory, PhoneStatus};
use polyphony_api::quantity::format_bytes;
use polyphony_protocol::hub::{self as protocol, Join, WithdrawalReason};

use super::story::{Severity, tell};
use super::{Action, condition_time};
use crate::reconcile::class;
use crate::reconcile::facts::{Power, allocatable_bytes, three_figures as rounded};
use crate::reconcile::failures;
use crate::reconcile::observe::{Health, Observed, PhoneLink, PhoneSeen};
use crate::reconcile::power::{BACK_PERCENT, WITHDRAWN};

/// A phone is too hot from here on, until it is cooler than the second.
const HOT_CELSIUS: f64 = 45.0;
const COOL_CELSIUS: f64 = 42.0;
/// A battery that is not charging is low below this, where its Phone says nothing else.
const LOW_BATTERY_PERCENT: u8 = 15;
/// Characters of what is told of backends that failed.
const MAX_FAULT_MESSAGE: usize = 2000;
/// Reason of a phone that has not come back since the controller started.
const AWAITED: &str = "Awaited";

pub(super) fn decide(observed: &Observed, name: &str, seen: &PhoneSeen, actions: &mut Vec<Action>) {
    let health = observed.health(name);
    if health == Health::Lost && matches!(seen.link, PhoneLink::Up { .. }) {
        actions.push(Action::CutLink { phone: name.to_owned() });
    }
    // Who has no object has been deleted, and is shown out by the hub.
    let Some(phone) = &seen.object else { return };
    let is_called_ready = phone.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, "Ready"));
    // What was told of it stands while it is waited for; but nobody is called ready for long of whom nothing is heard.
    if health == Health::Awaited && !(is_called_ready && observed.is_unheard(name)) {
        return;
    }
    let before = phone.status.clone().unwrap_or_default();
    let after = status_of(observed, phone, seen, health, &before);
    if after != before {
        let story = story_of(phone, &before, &after);
        actions.push(Action::SetPhoneStatus { name: name.to_owned(), status: Box::new(after) });
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
        describe(&mut status, phone, join, seen.offered_bytes(join));
        judge_backends(&mut status, seen, before);
    }
    failures::remember(&mut status, observed, &phone.name_any(), seen);
    let now = condition_time(observed);
    let withdrawn = withdrawn(seen, &status);
    for statement in statements(phone, health, observed.power(&phone.name_any()), &status).into_iter().chain(withdrawn)
    {
        condition::set(&mut status.conditions, &statement, None, &now);
    }
    if let Some(heartbeat) = &seen.heartbeat {
        let is_written_anyway = status != *before;
        measured::write(observed, phone, heartbeat, is_written_anyway, &mut status);
    }
    status
}

/// What the agent said when it joined, and what it offers now.
fn describe(status: &mut PhoneStatus, phone: &Phone, join: &Join, offered_bytes: u64) {
    status.agent_version = Some(join.agent_version.clone());
    let protocol::Hardware { model, soc, system } = join.hardware.clone();
    let hardware = Hardware { model, soc, system };
    status.hardware = (hardware != Hardware::default()).then_some(hardware);
    status.backend = Some(join.backend.clone());
    status.numerics = Some(join.numerics.clone());
    status.device = Some(join.device.clone());
    status.ring_address = Some(join.ring_address.clone());
    status.metrics_address = Some(join.metrics_address.clone()).filter(|address| !address.is_empty());
    status.capacity = Some(Memory { memory: format_bytes(join.capacity_bytes) });
    status.allocatable = Some(Memory { memory: format_bytes(allocatable_bytes(phone, offered_bytes)) });
    let speed = |speed: &protocol::Speed| BackendSpeed {
        name: speed.backend.clone(),
        device: speed.device.clone(),
        numerics: Some(speed.numerics.clone()).filter(|numerics| !numerics.is_empty()),
        gflops: rounded(speed.gflops),
        batch_gflops: Some(rounded(speed.batch_gflops)).filter(|gflops| *gflops > 0.0),
        prefill_gflops: Some(rounded(speed.prefill_gflops)).filter(|gflops| *gflops > 0.0),
        gigabytes_per_second: rounded(speed.gigabytes_per_second),
        verified: None,
        fault: None,
    };
    status.backends = join.speeds.iter().map(speed).collect();
    status.kv_caches = join.kv_caches.iter().filter_map(|name| class::kv_cache(name)).collect();
    let titled = join.speeds.iter().zip(&status.backends);
    let speeds: Vec<String> = titled.map(|(speed, one)| format!("{} {:.2}", speed.title(), one.gflops)).collect();
    status.speeds = Some(speeds.join(", ")).filter(|text| !text.is_empty());
}

/// What the agent found of its backends by their known answers: those that joined, and those that had failed before.
fn judge_backends(status: &mut PhoneStatus, seen: &PhoneSeen, before: &PhoneStatus) {
    let Some(heartbeat) = &seen.heartbeat else {
        // The first one is on its way.
        let same_life = status.agent_instance == seen.join.as_ref().map(|join| join.instance.clone());
        if same_life {
            status.backends = before.backends.clone();
        }
        return;
    };
    let Some(faults) = &heartbeat.faults else { return };
    for backend in &mut status.backends {
        let fault = faults.iter().find(|fault| Some(&fault.numerics) == backend.numerics.as_ref());
        backend.verified = Some(fault.is_none());
        backend.fault = fault.map(|fault| fault.reason.clone());
    }
    for fault in faults {
        if status.backends.iter().any(|backend| backend.numerics.as_ref() == Some(&fault.numerics)) {
            continue;
        }
        status.backends.push(BackendSpeed {
            name: fault.backend.clone(),
            device: fault.device.clone(),
            numerics: Some(fault.numerics.clone()).filter(|numerics| !numerics.is_empty()),
            gflops: 0.0,
            batch_gflops: None,
            prefill_gflops: None,
            gigabytes_per_second: 0.0,
            verified: Some(false),
            fault: Some(fault.reason.clone()),
        });
    }
}

fn statements(phone: &Phone, health: Health, power: Power, status: &PhoneStatus) -> [Statement; 5] {
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
        Health::Awaited => (
            Truth::Unknown,
            Truth::False,
            AWAITED,
            format!("{} has not come back yet: {}", phone.name_any(), health.story()),
        ),
        Health::Gone => {
            (Truth::False, Truth::False, "Gone", format!("{} is gone: {}", phone.name_any(), health.story()))
        }
    };
    let hot = match power.temperature_celsius {
        Some(celsius) if condition::is_true(&status.conditions, "ThermalPressure") => celsius >= COOL_CELSIUS,
        Some(celsius) => celsius >= HOT_CELSIUS,
        None => false,
    };
    let was_low = condition::is_true(&status.conditions, "BatteryLow");
    let back = if was_low { BACK_PERCENT } else { 0 };
    let is_below = |percent: u8, minimum: u8| percent < minimum.saturating_add(back).min(100);
    let low = match (power.battery_percent, phone.spec.min_battery_percent) {
        (None, _) => false,
        (Some(percent), Some(minimum)) => is_below(percent, minimum),
        // A weak charger keeps up only as long as nothing is computed: that it charges is no reason to be back.
        (Some(percent), None) => is_below(percent, LOW_BATTERY_PERCENT) && (was_low || power.charging != Some(true)),
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
    let whys = status.backends.iter().filter(|backend| backend.verified == Some(false)).map(|backend| {
        let class = backend.numerics.as_ref().unwrap_or(&backend.name);
        format!(
            "{class} is set aside until the agent is started anew: {}",
            backend.fault.as_deref().unwrap_or_default()
        )
    });
    let fault_message: String = whys.collect::<Vec<_>>().join("; ").chars().take(MAX_FAULT_MESSAGE).collect();
    let is_faulty = !fault_message.is_empty();
    let fault_reason = match status.backends.iter().all(|backend| backend.verified.is_none()) {
        true => "NotVerified",
        false if is_faulty => "SetAside",
        false => "AnswersKnown",
    };
    let statement =
        |type_, status, reason: &str, message| Statement { type_, status, reason: reason.to_owned(), message };
    [
        statement("Ready", ready, reason, message.clone()),
        statement("Reachable", reachable, reason, message),
        statement("ThermalPressure", hot.into(), if hot { "TooHot" } else { "NotHot" }, hot_message),
        statement("BackendFaulty", is_faulty.into(), fault_reason, fault_message),
        statement("BatteryLow", low.into(), if low { "ChargeBelowLimit" } else { "ChargeSufficient" }, low_message),
    ]
}

/// Whether it takes part, as it said last; nothing of who has never said anything. Of one reason its first words stand: figures in them change all
/// the time.
fn withdrawn(seen: &PhoneSeen, status: &PhoneStatus) -> Option<Statement> {
    let withdrawal = &seen.heartbeat.as_ref()?.withdrawal;
    let reason = match withdrawal.as_ref().map(|withdrawal| withdrawal.reason) {
        None => "TakesPart",
        Some(WithdrawalReason::Paused) => "Paused",
        Some(WithdrawalReason::Leaving) => "Leaving",
        Some(WithdrawalReason::BatteryLow) => "BatteryLow",
        Some(WithdrawalReason::TooHot) => "TooHot",
        Some(WithdrawalReason::MemoryLow) => "MemoryLow",
        Some(WithdrawalReason::Other) => "Other",
    };
    let before = condition::find(&status.conditions, WITHDRAWN).filter(|before| before.reason == reason);
    let said = || withdrawal.as_ref().map(|withdrawal| withdrawal.message.clone()).unwrap_or_default();
    Some(Statement {
        type_: WITHDRAWN,
        status: withdrawal.is_some().into(),
        reason: reason.to_owned(),
        message: before.map_or_else(said, |before| before.message.clone()),
    })
}

/// What happened to it: to its link, to its backends, and by its own word.
fn story_of(phone: &Phone, before: &PhoneStatus, after: &PhoneStatus) -> Vec<Action> {
    let stories =
        [link_story(phone, before, after), fault_story(phone, before, after), withdrawal_story(phone, before, after)];
    stories.into_iter().flatten().collect()
}

/// A backend was set aside, or another one.
fn fault_story(phone: &Phone, before: &PhoneStatus, after: &PhoneStatus) -> Option<Action> {
    let faulty = condition::find(&after.conditions, "BackendFaulty").filter(|faulty| faulty.status == "True")?;
    let known = condition::find(&before.conditions, "BackendFaulty").is_some_and(|was| was.message == faulty.message);
    (!known).then(|| tell(phone, Severity::Warning, "BackendFaulty", faulty.message.clone()))
}

/// It takes no part any more, or takes part again.
fn withdrawal_story(phone: &Phone, before: &PhoneStatus, after: &PhoneStatus) -> Option<Action> {
    let now = condition::find(&after.conditions, WITHDRAWN)?;
    let was = condition::find(&before.conditions, WITHDRAWN);
    match (was.is_some_and(|was| was.status == "True"), now.status == "True") {
        (false, true) => Some(tell(phone, Severity::Normal, WITHDRAWN, format!("takes no part: {}", now.message))),
        (true, false) => Some(tell(phone, Severity::Normal, "TakesPart", "takes part again".to_owned())),
        _ => None,
    }
}

fn link_story(phone: &Phone, before: &PhoneStatus, after: &PhoneStatus) -> Option<Action> {
    let ready = condition::find(&after.conditions, "Ready")?;
    let was = condition::find(&before.conditions, "Ready");
    if was.is_some_and(|was| was.status == ready.status) {
        return None;
    }
    // Nothing has happened to it that anybody knows of.
    if ready.reason == AWAITED {
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
