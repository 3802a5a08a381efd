//! Gaps: what a sensor fails to tell for a moment is as it was, each sensor's by itself. Pure: times come in as arguments.
//!
//! A file of `/sys` that cannot be read once must not end a withdrawal, and one thermometer in the place of another for a second is no slope.

use std::time::Instant;

use crate::last::Last;
use crate::platform::Battery;
use crate::reading::Reading;

/// What each sensor told last.
#[derive(Debug, Default)]
pub struct Gaps {
    percent: Last<u8>,
    is_charging: Last<bool>,
    battery_celsius: Last<f64>,
    shell_celsius: Last<f64>,
    thermal_status: Last<u8>,
    thermal_headroom: Last<f64>,
    available_bytes: Last<u64>,
    low_memory_bytes: Last<u64>,
}

// === impl Gaps ===

impl Gaps {
    /// The reading with its gaps bridged. Power is never bridged: it may have gone with what was plugged in.
    pub fn bridge(&mut self, found: Reading, now: Instant) -> Reading {
        Reading {
            battery: Battery {
                percent: self.percent.or_last(found.battery.percent, now),
                is_charging: self.is_charging.or_last(found.battery.is_charging, now),
                temperature_celsius: self.battery_celsius.or_last(found.battery.temperature_celsius, now),
                discharge_watts: found.battery.discharge_watts,
            },
            shell_celsius: self.shell_celsius.or_last(found.shell_celsius, now),
            thermal_status: self.thermal_status.or_last(found.thermal_status, now),
            thermal_headroom: self.thermal_headroom.or_last(found.thermal_headroom, now),
            available_bytes: self.available_bytes.or_last(found.available_bytes, now),
            low_memory_bytes: self.low_memory_bytes.or_last(found.low_memory_bytes, now),
            ..found
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_that_does_not_come_is_as_it_was_for_a_while() {
        let begun = Instant::now();
        let mut gaps = Gaps::default();
        let battery = Battery {
            percent: Some(2),
            is_charging: Some(false),
            temperature_celsius: Some(40.0),
            discharge_watts: Some(3.0),
        };
        let all = Reading {
            battery,
            shell_celsius: Some(61.0),
            thermal_status: Some(3),
            thermal_headroom: Some(1.0),
            available_bytes: Some(9),
            low_memory_bytes: Some(8),
            ..Reading::default()
        };
        let mut at = |seconds, reading: Reading| gaps.bridge(reading, begun + Duration::from_secs(seconds));
        assert_eq!(at(0, all), all);
        let without_power = Reading { battery: Battery { discharge_watts: None, ..battery }, ..all };
        assert_eq!(at(9, Reading::default()), without_power);
        assert_eq!(at(10, Reading::default()), Reading::default(), "it is known no more");
        // Each by itself: a shell that says nothing is no reason to take the battery's word for it.
        let cold = Reading { shell_celsius: Some(30.0), ..Reading::default() };
        assert_eq!(at(11, cold), cold);
        let battery_alone = Reading {
            battery: Battery { temperature_celsius: Some(50.0), ..Battery::default() },
            ..Reading::default()
        };
        assert_eq!(at(12, battery_alone).shell_celsius, Some(30.0));
        assert_eq!(at(21, battery_alone).shell_celsius, None);
    }
}
