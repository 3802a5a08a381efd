//! Told: what an app says of the phone that it runs on, since Android keeps it from programs and tells it to apps.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::platform::Battery;

/// All that was said last; what is not known is absent, and so is what cannot be what it is called.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    #[serde(deserialize_with = "sound")]
    pub battery_percent: Option<f64>,
    #[serde(deserialize_with = "sound")]
    pub charging: Option<bool>,
    #[serde(deserialize_with = "sound")]
    pub battery_celsius: Option<f64>,
    #[serde(deserialize_with = "sound")]
    pub voltage_millivolts: Option<f64>,
    /// Out of the battery or into it: makers differ in the sign.
    #[serde(deserialize_with = "sound")]
    pub current_microamps: Option<f64>,
    /// `PowerManager.getCurrentThermalStatus`: 0 (none) to 6 (shutdown).
    #[serde(deserialize_with = "sound")]
    pub thermal_status: Option<u8>,
    /// `PowerManager.getThermalHeadroom`: 1 is where throttling is severe.
    #[serde(deserialize_with = "sound")]
    pub thermal_headroom: Option<f64>,
    /// `ActivityManager.MemoryInfo`: what is free, and below what Android ends programs.
    #[serde(deserialize_with = "sound")]
    pub available_bytes: Option<u64>,
    #[serde(deserialize_with = "sound")]
    pub low_memory_bytes: Option<u64>,
    #[serde(deserialize_with = "sound")]
    pub network: Option<Network>,
    /// Whether somebody pays for each byte.
    #[serde(deserialize_with = "sound")]
    pub metered: Option<bool>,
    #[serde(deserialize_with = "sound_or_no")]
    pub paused: bool,
    #[serde(skip)]
    pub leaving: bool,
}

/// What a person wants of the phone now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub is_paused: bool,
    pub is_leaving: bool,
}

/// The network that a phone would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    Wifi,
    Ethernet,
    Cellular,
    None,
    /// One of a later app.
    #[serde(other)]
    Other,
}

// === impl Network ===

impl Network {
    /// As apps and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wifi => "wifi",
            Self::Ethernet => "ethernet",
            Self::Cellular => "cellular",
            Self::None => "none",
            Self::Other => "other",
        }
    }
}

// === impl Told ===

impl Told {
    /// What `json` says, after `before`. Each field is read by itself: one that is nonsense takes none of the others with it. A `paused` that is
    /// nonsense leaves things as they were, since a fault of an app's is not to undo what its person wants.
    ///
    /// # Errors
    /// When it is no object of JSON.
    pub fn read(json: &str, before: &Self) -> Result<Self, serde_json::Error> {
        let Value::Object(fields) = serde_json::from_str(json)? else {
            return Err(serde_json::Error::custom("it is no object"));
        };
        let is_garbled = fields.get("paused").is_some_and(|paused| !paused.is_boolean());
        let told: Self = serde_json::from_value(Value::Object(fields))?;
        let paused = if is_garbled { before.paused } else { told.paused };
        Ok(Self { paused, leaving: before.leaving, ..told })
    }

    pub fn wishes(&self) -> Wishes {
        Wishes { is_paused: self.paused, is_leaving: self.leaving }
    }

    /// As the system itself would say it.
    pub fn battery(&self) -> Battery {
        let within = |value: Option<f64>, most: f64| value.filter(|value| (0.0..=most).contains(value));
        let watts = || Some(self.current_microamps?.abs() / 1e6 * self.voltage_millivolts? / 1e3);
        Battery {
            // Below a limit it is below.
            percent: within(self.battery_percent, 100.0).map(|percent| percent as u8),
            is_charging: self.charging,
            temperature_celsius: within(self.battery_celsius, 150.0),
            discharge_watts: watts().filter(|_| self.charging == Some(false)).filter(Battery::is_a_power),
        }
    }
}

/// A value, or none where it cannot be read as one.
fn sound<'de, D: Deserializer<'de>, T: DeserializeOwned>(field: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(field)?).ok())
}

fn sound_or_no<'de, D: Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
    Ok(sound(field)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Map;

    use super::*;

    #[test]
    fn what_an_app_says_is_read_and_nonsense_of_it_left_out() {
        let text = r#"{ "batteryPercent": 72.9, "charging": false, "batteryCelsius": 31.5, "voltageMillivolts": 4000,
            "currentMicroamps": -650000, "thermalStatus": 1, "thermalHeadroom": 0.4, "availableBytes": 9, "lowMemoryBytes": 8,
            "network": "wifi", "metered": false, "paused": true, "somethingNew": [1] }"#;
        let told = Told::read(text, &Told::default()).unwrap();
        let battery = Battery {
            percent: Some(72),
            is_charging: Some(false),
            temperature_celsius: Some(31.5),
            discharge_watts: Some(2.6),
        };
        assert_eq!(told.battery(), battery);
        assert_eq!(told.wishes(), Wishes { is_paused: true, is_leaving: false });
        let charging = Told { charging: Some(true), ..told.clone() };
        assert_eq!(charging.battery().discharge_watts, None, "what flows in is nobody's work");
        assert_eq!((told.network, told.metered), (Some(Network::Wifi), Some(false)));
        let nonsense =
            Told { battery_percent: Some(-3.0), battery_celsius: Some(1e9), voltage_millivolts: Some(4.0), ..told };
        let battery = Battery { percent: None, temperature_celsius: None, discharge_watts: None, ..battery };
        assert_eq!(nonsense.battery(), battery);
        assert_eq!(Told::read("{}", &told).unwrap(), Told::default());
        let later = Told::read(r#"{ "network": "satellite" }"#, &told).unwrap();
        assert_eq!(later.network, Some(Network::Other));
    }

    #[test]
    fn a_field_that_is_nonsense_takes_no_other_with_it() {
        let sound = r#"{ "batteryPercent": 50, "charging": true, "batteryCelsius": 30, "voltageMillivolts": 4000, "currentMicroamps": 9,
            "thermalStatus": 1, "thermalHeadroom": 0.5, "availableBytes": 9, "lowMemoryBytes": 8, "network": "wifi", "metered": true,
            "paused": true }"#;
        let before = Told { leaving: true, ..Told::default() };
        let sound: Map<String, Value> = serde_json::from_str(sound).unwrap();
        let read = |fields: &Map<String, Value>, before: &Told| {
            Told::read(&serde_json::to_string(fields).unwrap(), before).unwrap()
        };
        let whole = read(&sound, &before);
        assert!(whole.paused && whole.leaving && whole.metered == Some(true), "{whole:?}");
        for name in sound.keys().filter(|name| *name != "paused") {
            let without: Map<_, _> = sound.clone().into_iter().filter(|(other, _)| other != name).collect();
            let expected = read(&without, &before);
            assert_ne!(expected, whole, "{name}");
            for nonsense in [Value::Null, Value::from("NaN"), Value::from(vec![1]), Value::Object(Map::new())] {
                let mut garbled = sound.clone();
                garbled.insert(name.clone(), nonsense.clone());
                let mut found = read(&garbled, &before);
                // Any word is the name of a network, of a later app perhaps.
                found.network = found.network.filter(|network| *network != Network::Other);
                assert_eq!(found, expected, "{name}: {nonsense}");
            }
        }
        for negative in ["thermalStatus", "availableBytes", "lowMemoryBytes"] {
            let mut garbled = sound.clone();
            garbled.insert(negative.into(), Value::from(-1));
            assert!(read(&garbled, &before).paused, "{negative}");
        }
    }

    #[test]
    fn a_pause_that_cannot_be_read_leaves_things_as_they_were() {
        for was in [false, true] {
            let before = Told { paused: was, ..Told::default() };
            let paused = |text: &str| Told::read(text, &before).unwrap().paused;
            for nonsense in [r#"{ "paused": "yes" }"#, r#"{ "paused": 1 }"#, r#"{ "paused": null }"#] {
                assert_eq!(paused(nonsense), was, "{nonsense}");
            }
            assert!(paused(r#"{ "paused": true }"#) && !paused(r#"{ "paused": false }"#) && !paused("{}"));
        }
        for text in ["", "[]", "null", "{", r#"{ "thermalHeadroom": NaN }"#] {
            assert!(Told::read(text, &Told::default()).is_err(), "{text}");
        }
    }
}
