//! The phone itself: memory, sensors, speed. A value that the phone cannot tell is absent.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, GaugeVec, Opts};

use super::{Labels, VALID, gauge, gauges};
use crate::budget::Budget;
use crate::duty::Duty;
use crate::energy::Figures;
use crate::reading::Reading;
use crate::told::Network;

pub(super) fn memory_families(memory: &Budget) -> Vec<MetricFamily> {
    let allocatable = gauge(
        "polyphony_memory_allocatable_bytes",
        "Memory that segments of this phone may take together.",
        Some(memory.limit_bytes() as f64),
    );
    let reserved = gauge(
        "polyphony_memory_reserved_bytes",
        "Memory that segments of this phone have taken.",
        Some(memory.reserved_bytes() as f64),
    );
    [allocatable, reserved].concat()
}

/// As the last reading was, which is what the phone withdraws by.
pub(super) fn sensor_families(reading: &Reading) -> Vec<MetricFamily> {
    let battery = &reading.battery;
    let charge = gauge(
        "polyphony_battery_ratio",
        "Charge of the battery from 0 to 1; absent on a device without one.",
        battery.percent.map(|percent| f64::from(percent) / 100.0),
    );
    let discharge = gauge(
        "polyphony_battery_discharge_watts",
        "Power that the whole phone takes out of its battery; absent while it charges, and where the system does not tell.",
        battery.discharge_watts,
    );
    let temperature = gauge(
        "polyphony_temperature_celsius",
        "Temperature of the shell, or else of the battery; absent on a device that tells neither.",
        reading.temperature_celsius(),
    );
    let available = gauge(
        "polyphony_memory_available_bytes",
        "Memory that all programs of this phone together could still take without driving others out; absent where the system does not tell.",
        reading.available_bytes.map(|bytes| bytes as f64),
    );
    [charge, discharge, temperature, available].concat()
}

/// What an app says of the phone's network; nothing elsewhere.
pub(super) fn network_families(network: Option<Network>, metered: Option<bool>) -> Vec<MetricFamily> {
    let Some(kind) = network else { return Vec::new() };
    let options = Opts::new(
        "polyphony_network_info",
        "Always 1; the labels say which kind of network this phone uses, and whether somebody pays for each byte. In the app alone.",
    );
    let info = GaugeVec::new(options, &["kind", "metered"]).expect(VALID);
    let metered = metered.map_or("", |metered| if metered { "true" } else { "false" });
    info.with_label_values(&[kind.name(), metered]).set(1.0);
    info.collect()
}

pub(super) fn policy_families(duty: &Duty, is_withdrawn: bool) -> Vec<MetricFamily> {
    let duty = gauge(
        "polyphony_duty_ratio",
        "Part of its time in which this phone computes when it is asked to, from 0.2 to 1: less where it would get too warm.",
        Some(duty.now()),
    );
    let withdrawn = gauge(
        "polyphony_withdrawn",
        "1 while this phone takes no part, by its own limits or its person's word, else 0.",
        Some(f64::from(u8::from(is_withdrawn))),
    );
    [duty, withdrawn].concat()
}

pub(super) fn energy_families(energy: &Figures) -> Vec<MetricFamily> {
    let watts = gauge(
        "polyphony_active_watts",
        "Power by which the whole phone takes more out of its battery while it computes; absent until work and rest were seen on battery.",
        energy.active_watts,
    );
    let counter = |name: &str, help: &str, value: f64| {
        let counter = Counter::new(name, help).expect(VALID);
        counter.inc_by(value);
        counter.collect()
    };
    let joules = counter(
        "polyphony_active_joules_total",
        "Energy that computing took out of the battery since its power was known: that power by the seconds of work on battery.",
        energy.active_joules,
    );
    let tokens = counter(
        "polyphony_active_tokens_total",
        "Tokens that were decoded for these joules on this phone's layers: one for each session in a step.",
        energy.tokens as f64,
    );
    [joules, tokens, watts].concat()
}

pub(super) fn label_families(labels: &Labels) -> Vec<MetricFamily> {
    let mut families = gauges(
        "polyphony_backend_gflops",
        "10^9 operations a second of a matrix-vector product, a multiply-add counted as two, as measured at start, by backend and arithmetic.",
        "backend",
        labels.speeds.iter().map(|speed| (speed.title(), speed.gflops)),
    );
    let options =
        Opts::new("polyphony_agent_info", "Always 1; the labels say which agent this is and what it runs on.");
    let info = GaugeVec::new(options, &["version", "backend", "device"]).expect(VALID);
    info.with_label_values(&[&labels.version, &labels.backend, &labels.device]).set(1.0);
    families.extend(info.collect());
    families
}
