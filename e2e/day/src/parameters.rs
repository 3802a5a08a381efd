//! Parameters: what a day is made of, as `phones.yaml` has it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use polyphony_api::InferenceDeploymentSpec;
use serde::Deserialize;
use serde_json::Value;

/// The file beside this crate, which says where each figure comes from.
const PHONES: &str = include_str!("../phones.yaml");

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    pub hours: f64,
    pub step_seconds: f64,
    pub deployment: InferenceDeploymentSpec,
    pub limits: PhoneLimits,
    pub model: ModelSize,
    pub network: Network,
    pub demand: Demand,
    pub room: Room,
    pub body: BodyFigures,
    pub kinds: BTreeMap<String, Kind>,
    pub computing: Computing,
    /// Watts by name.
    pub chargers: BTreeMap<String, f64>,
    pub people: BTreeMap<String, Person>,
    pub phones: Vec<Owned>,
}

/// The phone's own limits, as its agent's flags have them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PhoneLimits {
    pub min_battery_percent: u8,
    pub max_temperature_celsius: f64,
    pub hold_temperature_celsius: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSize {
    /// As a manifest has them.
    pub hyperparameters: Value,
    /// The type of its matrices; vectors are F32.
    pub matrices: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    pub megabits_per_second: f64,
    pub hop_seconds: f64,
    pub flash_megabytes_per_second: f64,
    pub suspected_after_seconds: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Demand {
    /// By hour of the day.
    pub requests_an_hour: [f64; 24],
    /// Means.
    pub prompt_tokens: f64,
    pub answer_tokens: f64,
    pub batches: Vec<Batch>,
}

/// Requests that come at once.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    pub hour: f64,
    pub requests: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Room {
    pub celsius: f64,
    pub swing_celsius: f64,
    pub away_celsius: f64,
}

/// What all bodies have in common.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyFigures {
    pub kelvin_per_watt: f64,
    pub shell_joules_per_kelvin: f64,
    pub core_joules_per_kelvin: f64,
    pub core_kelvin_per_watt: f64,
    pub charge_efficiency: f64,
    pub charge_stops_celsius: f64,
    pub full_faster_percent: f64,
    pub throttles_from_celsius: f64,
    pub throttled_to_celsius: f64,
    /// What is left of its speed there.
    pub throttled_part: f64,
    pub ring_watts: f64,
    pub boot_seconds: f64,
    pub boot_percent: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kind {
    pub milliamp_hours: f64,
    pub memory_gibibytes: f64,
    pub peak_gigabytes_per_second: f64,
    pub gflops: f64,
    /// Above what it takes at rest.
    pub computing_watts: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Computing {
    pub part_of_bandwidth: f64,
    pub part_of_memory: f64,
    pub prefill_part: f64,
    pub spread: f64,
    pub beside_person: f64,
    pub idle_watts: f64,
}

/// What somebody does with a phone on a day.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Person {
    #[serde(default)]
    pub away: Vec<Hours>,
    #[serde(default)]
    pub plugged: Vec<Plugged>,
    #[serde(default)]
    pub jitter_hours: f64,
    pub screen: Option<Screen>,
    pub game: Option<Game>,
    pub sun: Option<Sun>,
    /// How likely it is that a charger is forgotten.
    #[serde(default)]
    pub forgets_charger: f64,
    /// At midnight, from and to.
    pub charge_percent: [f64; 2],
}

/// Of the clock; over midnight where the end comes before the start.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hours {
    pub from: f64,
    pub to: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plugged {
    pub from: f64,
    pub to: f64,
    /// The charger.
    pub by: String,
}

/// Use of minutes at a time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Screen {
    pub from: f64,
    pub to: f64,
    pub minutes_an_hour: f64,
    pub watts: f64,
}

/// One long use, on some days.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Game {
    pub chance: f64,
    pub from: f64,
    pub to: f64,
    pub minutes: f64,
    pub watts: f64,
    /// How likely it is that its person pauses the agent for it.
    pub pauses: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sun {
    pub from: f64,
    pub to: f64,
    pub watts: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owned {
    pub name: String,
    pub kind: String,
    pub person: String,
}

// === impl Parameters ===

impl Parameters {
    /// Those of `phones.yaml`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of_the_file() -> Result<Self> {
        Self::parse(PHONES).context("e2e/day/phones.yaml")
    }

    /// # Errors
    /// What cannot be read, by line and field; a kind, a person or a charger that is named and is not there.
    pub fn parse(text: &str) -> Result<Self> {
        let found: Self = serde_yaml::from_str(text)?;
        for phone in &found.phones {
            if !found.kinds.contains_key(&phone.kind) {
                bail!("phone {} is of the kind {}, which `kinds` does not have", phone.name, phone.kind);
            }
            if !found.people.contains_key(&phone.person) {
                bail!("phone {} is of {}, whom `people` does not have", phone.name, phone.person);
            }
        }
        for (name, person) in &found.people {
            if let Some(stranger) = person.plugged.iter().find(|plugged| !found.chargers.contains_key(&plugged.by)) {
                bail!("{name} plugs into {}, which `chargers` does not have", stranger.by);
            }
        }
        if found.step_seconds <= 0.0 {
            bail!("stepSeconds is {}; it has to be above 0", found.step_seconds);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_file_is_read_and_what_it_names_is_there() {
        let found = Parameters::of_the_file().unwrap();
        assert_eq!(found.phones.len(), 20);
        let policy = &found.deployment.placement.power_policy;
        assert!(policy.min_battery_percent > Some(found.limits.min_battery_percent), "the host's limits come first");
        assert!(policy.max_temperature_celsius.unwrap() < found.limits.max_temperature_celsius);
        let typo = PHONES.replace("kind: pixel-7, person", "kind: pixel-77, person");
        let error = Parameters::parse(&typo).unwrap_err().to_string();
        assert!(error.contains("pixel-77"), "{error}");
        let typo = PHONES.replace("stepSeconds", "stepsSeconds");
        assert!(Parameters::parse(&typo).unwrap_err().to_string().contains("stepsSeconds"));
    }
}
