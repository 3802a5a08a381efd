//! Told: what an app says of the phone that it runs on, since Android keeps it from programs and tells it to apps.

use serde::Deserialize;

use crate::platform::Battery;

/// All that was said last; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    pub battery_percent: Option<f64>,
    pub charging: Option<bool>,
    pub battery_celsius: Option<f64>,
    pub voltage_millivolts: Option<f64>,
    /// Out of the battery or into it: makers differ in the sign.
    pub current_microamps: Option<f64>,
    /// `PowerManager.getCurrentThermalStatus`: 0 (none) to 6 (shutdown).
    pub thermal_status: Option<u8>,
    /// `PowerManager.getThermalHeadroom`: 1 is where throttling is severe.
    pub thermal_headroom: Option<f64>,
    /// `ActivityManager.MemoryInfo`: what is free, and below what Android ends programs.
    pub available_bytes: Option<u64>,
    pub low_memory_bytes: Option<u64>,
    pub network: Option<Network>,
    /// Whether somebody pays for each byte.
    pub metered: Option<bool>,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_an_app_says_is_read_and_nonsense_of_it_left_out() {
        let text = r#"{ "batteryPercent": 72.9, "charging": false, "batteryCelsius": 31.5, "voltageMillivolts": 4000,
            "currentMicroamps": -650000, "thermalStatus": 1, "thermalHeadroom": 0.4, "availableBytes": 9, "lowMemoryBytes": 8,
            "network": "wifi", "metered": false, "paused": true, "somethingNew": [1] }"#;
        let told: Told = serde_json::from_str(text).unwrap();
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
        assert_eq!(serde_json::from_str::<Told>("{}").unwrap(), Told::default());
        let later: Told = serde_json::from_str(r#"{ "network": "satellite" }"#).unwrap();
        assert_eq!(later.network, Some(Network::Other));
    }
}
