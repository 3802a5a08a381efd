//! Sensors: battery and heat, from the system or, in labs and tests, from a file that plays them.

use std::path::PathBuf;

use serde::Deserialize;
use tokio::sync::watch;

use crate::platform::{self, Battery};
use crate::told::Told;

/// Where battery and temperature are read.
#[derive(Clone, Debug, Default)]
pub struct Sensors {
    /// JSON with `batteryPercent`, `charging`, `dischargeWatts` and `temperatureCelsius`, each of which may be missing; `None` reads the system.
    pub file: Option<PathBuf>,
    /// What an app says besides, where the agent runs in one.
    pub told: Option<watch::Receiver<Told>>,
}

/// What sensors say now. A value that cannot be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub battery: Battery,
    /// Of the shell or of the battery.
    pub temperature_celsius: Option<f64>,
    /// Android's judgement of heat: 0 (none) to 6 (shutdown).
    pub thermal_status: Option<u8>,
    /// Android's forecast of heat: 1 is where throttling is severe.
    pub thermal_headroom: Option<f64>,
    /// Memory that all programs together could still take, and below what the system ends programs.
    pub available_bytes: Option<u64>,
    pub low_memory_bytes: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Played {
    battery_percent: Option<u8>,
    charging: Option<bool>,
    discharge_watts: Option<f64>,
    temperature_celsius: Option<f64>,
}

// === impl Sensors ===

impl Sensors {
    /// Reads everything anew.
    pub fn read(&self) -> Reading {
        let Some(file) = &self.file else { return self.of_system() };
        let played = std::fs::read(file).map_err(|error| error.to_string());
        match played.and_then(|bytes| serde_json::from_slice::<Played>(&bytes).map_err(|error| error.to_string())) {
            Ok(played) => Reading {
                battery: Battery {
                    percent: played.battery_percent.filter(|percent| *percent <= 100),
                    is_charging: played.charging,
                    temperature_celsius: None,
                    discharge_watts: played.discharge_watts.filter(|watts| watts.is_finite() && *watts >= 0.0),
                },
                temperature_celsius: played.temperature_celsius.filter(|celsius| celsius.is_finite()),
                ..Reading::default()
            },
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the file of --sensors cannot be read; nothing is known of battery and heat");
                Reading::default()
            }
        }
    }

    /// All that an app says; nothing where there is none.
    pub fn told(&self) -> Told {
        self.told.as_ref().map(|told| told.borrow().clone()).unwrap_or_default()
    }

    /// What the app says, and for the rest what can be read.
    fn of_system(&self) -> Reading {
        let read = platform::battery();
        let told = self.told();
        let said = told.battery();
        let battery = Battery {
            percent: said.percent.or(read.percent),
            is_charging: said.is_charging.or(read.is_charging),
            temperature_celsius: said.temperature_celsius.or(read.temperature_celsius),
            // Of whom it is told whether it charges, what another says of that does not count.
            discharge_watts: said.discharge_watts.or(read.discharge_watts).filter(|_| said.is_charging != Some(true)),
        };
        Reading {
            battery,
            // A phone that keeps its zones to itself may still tell how warm its battery is.
            temperature_celsius: platform::temperature_celsius().or(battery.temperature_celsius),
            thermal_status: told.thermal_status,
            thermal_headroom: told.thermal_headroom.filter(|part| part.is_finite()),
            available_bytes: told.available_bytes.or_else(platform::available_bytes),
            low_memory_bytes: told.low_memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_app_says_comes_before_what_can_be_read() {
        let told = Told {
            battery_percent: Some(42.0),
            charging: Some(true),
            battery_celsius: Some(33.0),
            thermal_status: Some(2),
            thermal_headroom: Some(f64::NAN),
            available_bytes: Some(1000),
            low_memory_bytes: Some(10),
            ..Told::default()
        };
        let (app, told) = watch::channel(told);
        let sensors = Sensors { file: None, told: Some(told) };
        let reading = sensors.read();
        assert_eq!((reading.battery.percent, reading.battery.is_charging), (Some(42), Some(true)));
        assert_eq!(reading.battery.temperature_celsius, Some(33.0));
        assert_eq!((reading.thermal_status, reading.thermal_headroom), (Some(2), None));
        assert_eq!((reading.available_bytes, reading.low_memory_bytes), (Some(1000), Some(10)));
        app.send_modify(|told| told.available_bytes = None);
        assert!(sensors.read().available_bytes > Some(1000), "the system says it itself");
    }

    #[test]
    fn a_file_plays_the_sensors_and_a_bad_one_plays_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sensors.json");
        let sensors = Sensors { file: Some(file.clone()), told: None };
        assert_eq!(sensors.read(), Reading::default(), "there is no file yet");
        std::fs::write(
            &file,
            r#"{ "batteryPercent": 12, "charging": false, "dischargeWatts": 3, "temperatureCelsius": 51.5 }"#,
        )
        .unwrap();
        let battery = Battery {
            percent: Some(12),
            is_charging: Some(false),
            temperature_celsius: None,
            discharge_watts: Some(3.0),
        };
        assert_eq!(sensors.read(), Reading { battery, temperature_celsius: Some(51.5), ..Reading::default() });
        std::fs::write(&file, r#"{ "temperatureCelsius": 30 }"#).unwrap();
        assert_eq!(sensors.read().temperature_celsius, Some(30.0), "it is read each time");
        for bad in ["{", r#"{ "batterypercent": 1 }"#, r#"{ "batteryPercent": 300 }"#] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(sensors.read(), Reading::default(), "{bad}");
        }
    }
}
