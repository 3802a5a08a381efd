//! Power: which state of battery and heat, or which word of its own, keeps segments of a deployment off a phone. Pure.
//!
//! A limit that the deployment's policy names stands in place of the usual one, whether it is stricter or looser. With
//! hysteresis: a phone that holds a segment leaves at the limit, one that holds none comes back some way within it.

use polyphony_api::inference_deployment::PowerPolicy;
use polyphony_api::{Phone, condition};

use super::facts::Power;

/// The condition of a phone that takes no part.
pub const WITHDRAWN: &str = "Withdrawn";
/// How far within the limits a phone is taken again.
pub const BACK_PERCENT: u8 = 5;
const BACK_CELSIUS: f64 = 3.0;

/// Whether the phone holds a segment of the deployment now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Inside,
    Outside,
}

/// What keeps segments off a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has the condition `Withdrawn`: it takes no part, whatever a policy allows.
    Withdrawn,
    /// It has the condition `ThermalPressure`, and the policy names no temperature.
    TooHot,
    /// It has the condition `BatteryLow`, and the policy names no charge.
    BatteryLow,
    NotCharging,
    ChargeUnderPolicy,
    HeatOverPolicy,
}

/// Why segments are kept off this phone; what the phone cannot measure keeps nothing off.
pub fn refusal(phone: &Phone, power: Power, policy: &PowerPolicy, side: Side) -> Option<Refusal> {
    let (percent_back, celsius_back) = match side {
        Side::Inside => (0, 0.0),
        Side::Outside => (BACK_PERCENT, BACK_CELSIUS),
    };
    let conditions = phone.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if condition::is_true(conditions, WITHDRAWN) {
        return Some(Refusal::Withdrawn);
    }
    // Only a phone with a battery can be charging.
    if policy.charging_only && power.battery_percent.is_some() && power.charging == Some(false) {
        return Some(Refusal::NotCharging);
    }
    let is_low = |minimum: u8| {
        power.battery_percent.is_some_and(|percent| percent < minimum.saturating_add(percent_back).min(100))
    };
    match policy.min_battery_percent {
        Some(minimum) if is_low(minimum) => return Some(Refusal::ChargeUnderPolicy),
        None if condition::is_true(conditions, "BatteryLow") => return Some(Refusal::BatteryLow),
        _ => {}
    }
    let is_hot = |most: f64| power.temperature_celsius.is_some_and(|celsius| celsius >= most - celsius_back);
    match policy.max_temperature_celsius {
        Some(most) if is_hot(most) => Some(Refusal::HeatOverPolicy),
        None if condition::is_true(conditions, "ThermalPressure") => Some(Refusal::TooHot),
        _ => None,
    }
}

// === impl Refusal ===

impl Refusal {
    /// Why a phone that holds nothing gets nothing.
    pub fn why_not(self) -> &'static str {
        match self {
            Refusal::Withdrawn => {
                "it takes no part for now, by its own limits or its person's word: `polyctl describe phone` says why"
            }
            Refusal::TooHot => "it is too hot",
            Refusal::BatteryLow => "its battery is low",
            Refusal::NotCharging => "it is not being charged, and spec.placement.powerPolicy asks for that",
            Refusal::ChargeUnderPolicy => {
                "its charge is below spec.placement.powerPolicy.minBatteryPercent, or not 5 points above it yet"
            }
            Refusal::HeatOverPolicy => {
                "it is hotter than spec.placement.powerPolicy.maxTemperatureCelsius allows, or not 3 °C below it yet"
            }
        }
    }

    /// Why a phone that holds something is left.
    pub fn why_left(self) -> &'static str {
        match self {
            Refusal::Withdrawn => "takes no part any more",
            Refusal::TooHot => "is too hot",
            Refusal::BatteryLow => "is low on battery",
            Refusal::NotCharging | Refusal::ChargeUnderPolicy | Refusal::HeatOverPolicy => {
                "does not meet spec.placement.powerPolicy"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use polyphony_api::condition::{Statement, Truth, set};
    use polyphony_api::{PhoneSpec, PhoneStatus};

    use super::*;

    fn phone(of: &[&'static str]) -> Phone {
        let mut status = PhoneStatus::default();
        for type_ in of.iter().copied() {
            let statement = Statement { type_, status: Truth::True, reason: "Test".into(), message: String::new() };
            set(&mut status.conditions, &statement, None, &Time(Timestamp::UNIX_EPOCH));
        }
        Phone { status: Some(status), ..Phone::new("a", PhoneSpec::default()) }
    }

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
            let power = Power {
                battery_percent: Some(percent),
                temperature_celsius: Some(celsius),
                charging: Some(charging),
                ..Power::default()
            };
            let is_free = |policy: &PowerPolicy, side| refusal(&phone(&[]), power, policy, side).is_none();
            assert_eq!(is_free(&policy, Side::Inside), may_stay, "{percent} % {celsius} °C inside");
            assert_eq!(is_free(&policy, Side::Outside), may_come, "{percent} % {celsius} °C outside");
            let charging_only = PowerPolicy { charging_only: true, ..PowerPolicy::default() };
            assert_eq!(is_free(&charging_only, Side::Inside), charging);
        }
    }

    #[test]
    fn a_policy_stands_in_place_of_the_usual_limits_stricter_or_looser() {
        let hot = (phone(&["ThermalPressure"]), Power { temperature_celsius: Some(50.0), ..Power::default() });
        let low = (phone(&["BatteryLow"]), Power { battery_percent: Some(12), ..Power::default() });
        let heat = |most| PowerPolicy { max_temperature_celsius: Some(most), ..PowerPolicy::default() };
        let charge = |least| PowerPolicy { min_battery_percent: Some(least), ..PowerPolicy::default() };
        let table = [
            (&hot, PowerPolicy::default(), Some(Refusal::TooHot)),
            (&hot, heat(60.0), None),
            (&hot, heat(40.0), Some(Refusal::HeatOverPolicy)),
            (&hot, charge(5), Some(Refusal::TooHot)),
            (&low, PowerPolicy::default(), Some(Refusal::BatteryLow)),
            (&low, charge(5), None),
            (&low, charge(20), Some(Refusal::ChargeUnderPolicy)),
            (&low, heat(60.0), Some(Refusal::BatteryLow)),
        ];
        for ((phone, power), policy, expected) in table {
            for side in [Side::Inside, Side::Outside] {
                assert_eq!(refusal(phone, *power, &policy, side), expected, "{policy:?} {side:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_measured_is_not_held_against_a_phone() {
        let policy =
            PowerPolicy { charging_only: true, min_battery_percent: Some(30), max_temperature_celsius: Some(40.0) };
        assert_eq!(refusal(&phone(&[]), Power::default(), &policy, Side::Outside), None);
        assert_eq!(refusal(&Phone::new("a", PhoneSpec::default()), Power::default(), &policy, Side::Outside), None);
    }
}
