//! Facts: what is known of phones: what they said over their link, else what was written of them. Pure.
//!
//! Decisions look at the first, as far as there is a link; previews have the API alone. Figures of a phone that were said are
//! rounded as they are written, so that both plan with the same ones.

use std::collections::BTreeSet;

use polyphony_api::inference_deployment::InferenceDeploymentSpec;
use polyphony_api::numerics::KvCache;
use polyphony_api::quantity::parse_bytes;
use polyphony_api::{Phone, SegmentPlacement};
use polyphony_placement::Speed;

use super::class;
use super::observe::Observed;

/// Battery and heat of a phone; `None` where it cannot measure them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Power {
    pub battery_percent: Option<u8>,
    pub charging: Option<bool>,
    pub temperature_celsius: Option<f64>,
    /// Watts by which it takes more while it computes, as they are written: they change a plan, and noise must make no new problem.
    pub active_watts: Option<f64>,
}

/// What a phone computes with, and how much it offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub rates: Vec<Rate>,
    /// In what it can keep keys and values.
    pub kv_caches: Vec<KvCache>,
    /// What its agent offers, within what a person allows.
    pub allocatable_bytes: u64,
}

/// How fast a phone computes in a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Backend and arithmetic, such as `cpu-f32-r1`.
    pub numerics: String,
    pub speed: Speed,
}

/// What a phone measured of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    pub seconds_per_layer: f64,
    /// Layers that a step went through.
    pub layers: u32,
    pub prefill_seconds_per_layer_per_token: Option<f64>,
    pub seconds_besides_layers: Option<f64>,
}

// === impl Observed ===

impl Observed {
    pub fn power(&self, phone: &str) -> Power {
        let Some(seen) = self.phones.get(phone) else { return Power::default() };
        let written = seen.object.as_ref().and_then(|object| object.status.as_ref());
        let active_watts = written.and_then(|status| status.active_watts);
        if let Some(heartbeat) = &seen.heartbeat {
            return Power {
                battery_percent: heartbeat.battery_percent.map(|percent| percent.min(100)),
                charging: heartbeat.charging,
                temperature_celsius: heartbeat.temperature_celsius,
                active_watts,
            };
        }
        written.map_or_else(Power::default, |status| Power {
            battery_percent: status.battery_percent,
            charging: status.charging,
            temperature_celsius: status.temperature_celsius,
            active_watts,
        })
    }

    /// `None` of a phone that has no object, or has never said what it computes with.
    pub fn profile(&self, phone: &str) -> Option<Profile> {
        let seen = self.phones.get(phone)?;
        let object = seen.object.as_ref()?;
        let measured = |gflops: f64| Some(three_figures(gflops) * 1e9 / 2.0).filter(|speed| *speed > 0.0);
        let speed = |gflops: f64, batch_gflops: f64, prefill_gflops: f64, gigabytes_per_second: f64| Speed {
            multiply_adds_per_second: three_figures(gflops) * 1e9 / 2.0,
            batch_multiply_adds_per_second: measured(batch_gflops),
            prefill_multiply_adds_per_second: measured(prefill_gflops),
            memory_bytes_per_second: three_figures(gigabytes_per_second) * 1e9,
        };
        if let Some(join) = &seen.join {
            let rate = |numerics: &String, of: &polyphony_protocol::hub::Speed| Rate {
                numerics: numerics.clone(),
                speed: speed(of.gflops, of.batch_gflops, of.prefill_gflops, of.gigabytes_per_second),
            };
            let named = || join.speeds.iter().filter(|speed| !speed.numerics.is_empty());
            let whole = named().filter(|speed| seen.fault_of(&speed.numerics).is_none());
            let rates: Vec<Rate> = whole.map(|of| rate(&of.numerics, of)).collect();
            // An agent of before has one class, and does not say of which of its speeds.
            let of_backend = || join.speeds.iter().find(|speed| speed.backend == join.backend);
            let only = || of_backend().map_or_else(|| unmeasured(&join.numerics), |of| rate(&join.numerics, of));
            let known = join.kv_caches.iter().filter_map(|name| class::kv_cache(name)).collect();
            return Some(Profile {
                rates: if named().next().is_none() { vec![only()] } else { one_a_class(rates) },
                // Who says nothing is of before; who says only what is not known here keeps nothing that is.
                kv_caches: if join.kv_caches.is_empty() { vec![KvCache::F32] } else { known },
                allocatable_bytes: allocatable_bytes(object, seen.offered_bytes(join)),
            });
        }
        let status = object.status.as_ref()?;
        let rate = |numerics: &String, of: &polyphony_api::phone::BackendSpeed| Rate {
            numerics: numerics.clone(),
            speed: speed(
                of.gflops,
                of.batch_gflops.unwrap_or_default(),
                of.prefill_gflops.unwrap_or_default(),
                of.gigabytes_per_second,
            ),
        };
        let named = || status.backends.iter().filter_map(|of| Some((of.numerics.as_ref()?, of)));
        let whole = named().filter(|(_, of)| of.verified != Some(false));
        let rates: Vec<Rate> = whole.map(|(numerics, of)| rate(numerics, of)).collect();
        let numerics = status.numerics.as_ref()?;
        let of_backend = || status.backends.iter().find(|speed| Some(&speed.name) == status.backend.as_ref());
        let only = || of_backend().map_or_else(|| unmeasured(numerics), |of| rate(numerics, of));
        let offered = status.allocatable.as_ref().and_then(|memory| parse_bytes(&memory.memory).ok()).unwrap_or(0);
        Some(Profile {
            rates: if named().next().is_none() { vec![only()] } else { one_a_class(rates) },
            kv_caches: if status.kv_caches.is_empty() { vec![KvCache::F32] } else { status.kv_caches.clone() },
            allocatable_bytes: allocatable_bytes(object, offered),
        })
    }

    /// What a phone's segments may take together; `None` while it has not said what it has.
    pub fn budget_bytes(&self, phone: &str, fraction: f64) -> Option<u64> {
        Some((self.profile(phone)?.allocatable_bytes as f64 * fraction) as u64)
    }

    /// `None` while the phone has not timed a layer of it.
    pub fn measured(&self, placement: &SegmentPlacement) -> Option<Measured> {
        let holds = &placement.spec.holds;
        let held = holds.to.saturating_sub(holds.from);
        if self.phones.get(&placement.spec.phone).is_some_and(|seen| seen.heartbeat.is_some()) {
            let report = self.report_of(placement)?;
            return Some(Measured {
                seconds_per_layer: report.seconds_per_layer?,
                layers: if report.layers_timed > 0 { report.layers_timed } else { held },
                prefill_seconds_per_layer_per_token: report.prefill_seconds_per_layer_per_token,
                seconds_besides_layers: report.seconds_besides_layers,
            });
        }
        let status = placement.status.as_ref()?;
        let seconds = |text: &Option<String>| text.as_ref()?.parse::<f64>().ok().map(|milliseconds| milliseconds / 1e3);
        Some(Measured {
            seconds_per_layer: seconds(&status.milliseconds_per_layer)?,
            layers: held,
            prefill_seconds_per_layer_per_token: seconds(&status.prefill_milliseconds_per_layer_per_token),
            seconds_besides_layers: seconds(&status.milliseconds_besides_layers),
        })
    }
}

// === impl Profile ===

impl Profile {
    /// What the phone can compute in for a deployment.
    pub fn usable(&self, spec: &InferenceDeploymentSpec) -> impl Iterator<Item = &Rate> {
        let keeps = self.kv_caches.contains(&spec.numerics.kv_cache);
        self.rates.iter().filter(move |rate| keeps && class::is_asked_for(&rate.numerics, spec))
    }

    /// Whether it can compute in a class.
    pub fn computes_in(&self, class: &str) -> bool {
        let keeps = class::kept(class).is_none_or(|kept| self.kv_caches.contains(&kept));
        keeps && self.rates.iter().any(|rate| rate.numerics == class::numerics(class))
    }
}

fn unmeasured(numerics: &str) -> Rate {
    Rate { numerics: numerics.to_owned(), speed: Speed::default() }
}

/// A phone is in each problem once, whatever its status or its agent says twice; the first counts.
fn one_a_class(rates: Vec<Rate>) -> Vec<Rate> {
    let mut seen = BTreeSet::new();
    rates.into_iter().filter(|rate| seen.insert(rate.numerics.clone())).collect()
}

/// What the agent offers, within what a person allows.
pub fn allocatable_bytes(phone: &Phone, offered: u64) -> u64 {
    let limit = phone.spec.max_memory.as_deref().and_then(|text| parse_bytes(text).ok());
    limit.map_or(offered, |limit| offered.min(limit))
}

/// Three significant figures are enough for people and planner; what is beyond writing with them is nothing.
pub fn three_figures(value: f64) -> f64 {
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
            assert_eq!(three_figures(value), expected, "{value}");
        }
    }
}
