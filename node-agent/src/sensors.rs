//! Sensors: battery and heat, from the system or, in labs and tests, from a file that plays them.

use std::path::PathBuf;

use serde::Deserialize;

use crate::platform::{self, Battery};

/// Where battery and temperature are read.
#[derive(Clone, Debug, Default)]
pub struct Sensors {
    /// JSON with `batteryPercent`, `charging`, `dischargeWatts` and `temperatureCelsius`, each of which may be missing; `None` reads the system.
    pub file: Option<PathBuf>,
}

/// What sensors say now. A value that cannot be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    pub battery: Battery,
    pub temperature_celsius: Option<f64>,
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
        let Some(file) = &self.file else {
            let battery = platform::battery();
            // A phone that keeps its zones to itself may still tell how warm its battery is.
            let temperature_celsius = platform::temperature_celsius().or(battery.temperature_celsius);
            return Reading { battery, temperature_celsius };
        };
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
            },
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the file of --sensors cannot be read; nothing is known of battery and heat");
                Reading::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_plays_the_sensors_and_a_bad_one_plays_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sensors.json");
        let sensors = Sensors { file: Some(file.clone()) };
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
        assert_eq!(sensors.read(), Reading { battery, temperature_celsius: Some(51.5) });
        std::fs::write(&file, r#"{ "temperatureCelsius": 30 }"#).unwrap();
        assert_eq!(sensors.read().temperature_celsius, Some(30.0), "it is read each time");
        for bad in ["{", r#"{ "batterypercent": 1 }"#, r#"{ "batteryPercent": 300 }"#] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(sensors.read(), Reading::default(), "{bad}");
        }
    }
}
