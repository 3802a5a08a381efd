//! Power: which state of battery and heat keeps segments of a deployment off a phone. Pure.
//!
//! With hysteresis: a phone that holds a segment leaves at the limit, one that holds none comes back some way within it.

use polyphony_api::Phone;
use polyphony_api::inference_deployment::PowerPolicy;

/// How far within the limits a phone is taken again.
const BACK_PERCENT: u8 = 5;
const BACK_CELSIUS: f64 = 3.0;

/// Whether the phone holds a segment of the deployment now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Inside,
    Outside,
}

/// Why the deployment's power policy keeps its segments off this phone; what the phone cannot measure keeps nothing off.
pub fn refusal(phone: &Phone, policy: &PowerPolicy, side: Side) -> Option<&'static str> {
    let status = phone.status.as_ref()?;
    let (percent_back, celsius_back) = match side {
        Side::Inside => (0, 0.0),
        Side::Outside => (BACK_PERCENT, BACK_CELSIUS),
    };
    // Only a phone with a battery can be charging.
    let discharges = status.battery_percent.is_some() && status.charging == Some(false);
    let is_low = |minimum: u8| {
        status.battery_percent.is_some_and(|percent| percent < minimum.saturating_add(percent_back).min(100))
    };
    let is_hot = |most: f64| status.temperature_celsius.is_some_and(|celsius| celsius >= most - celsius_back);
    let reasons = [
        (policy.charging_only && discharges, "it is not being charged, and spec.placement.powerPolicy asks for that"),
        (
            policy.min_battery_percent.is_some_and(is_low),
            "its charge is below spec.placement.powerPolicy.minBatteryPercent, or not 5 points above it yet",
        ),
        (
            policy.max_temperature_celsius.is_some_and(is_hot),
            "it is hotter than spec.placement.powerPolicy.maxTemperatureCelsius allows, or not 3 °C below it yet",
        ),
    ];
    reasons.into_iter().find_map(|(holds, why)| holds.then_some(why))
}

#[cfg(test)]
mod tests {
    use polyphony_api::{PhoneSpec, PhoneStatus};

    use super::*;

    #[test]
    fn a_phone_leaves_at_the_limit_and_comes_back_within_it() {
        let policy =
            PowerPolicy { charging_only: false, min_battery_percent: Some(30), max_temperature_celsius: Some(40.0) };
        let table = [
            (30, 20.0, true, true, false),
            (29, 20.0, true, false, false),
            (34, 20.0, true, true, false),
            (35, 20.0, true, true, true),
            (80, 40.0, true, false, false),
            (80, 39.0, true, true, false),
            (80, 36.9, true, true, true),
            (80, 20.0, false, true, true),
        ];
        for (percent, celsius, charging, may_stay, may_come) in table {
            let mut phone = Phone::new("a", PhoneSpec::default());
            phone.status = Some(PhoneStatus {
                battery_percent: Some(percent),
                temperature_celsius: Some(celsius),
                charging: Some(charging),
                ..PhoneStatus::default()
            });
            let is_free = |policy: &PowerPolicy, side| refusal(&phone, policy, side).is_none();
            assert_eq!(is_free(&policy, Side::Inside), may_stay, "{percent} % {celsius} °C inside");
            assert_eq!(is_free(&policy, Side::Outside), may_come, "{percent} % {celsius} °C outside");
            let charging_only = PowerPolicy { charging_only: true, ..PowerPolicy::default() };
            assert_eq!(is_free(&charging_only, Side::Inside), charging);
        }
    }

    #[test]
    fn what_cannot_be_measured_is_not_held_against_a_phone() {
        let policy =
            PowerPolicy { charging_only: true, min_battery_percent: Some(30), max_temperature_celsius: Some(40.0) };
        let mut phone = Phone::new("a", PhoneSpec::default());
        assert_eq!(refusal(&phone, &policy, Side::Outside), None);
        phone.status = Some(PhoneStatus::default());
        assert_eq!(refusal(&phone, &policy, Side::Outside), None);
    }
}
