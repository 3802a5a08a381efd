//! Energy: what of a phone's battery its work takes, what a joule of it counts, and what is taken of a phone that tells nothing.

use serde::{Deserialize, Serialize};

use super::PhoneCosts;

/// What computing adds to what a phone takes, if nobody has measured any: some phone's processor at work. An assumption, and no
/// measurement; it chooses nothing, since all phones are taken alike then, and only the joules that are told follow it.
pub const ASSUMED_WATTS: f64 = 3.0;
/// What is believed of a phone's measured watts. Less is what no work takes, more what no device of ours does.
pub const BELIEVED_WATTS: std::ops::RangeInclusive<f64> = 0.01..=1000.0;
/// What is believed of a weight; another counts as 1.
const BELIEVED_WEIGHTS: std::ops::RangeInclusive<f64> = 1e-3..=1e3;
/// What is believed of a share; another counts as 1.
const BELIEVED_SHARES: std::ops::RangeInclusive<f64> = 1e-6..=1.0;

/// What a phone's work takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// Watts by which the phone takes more while it computes than while it does not. None where nobody has measured them: the phone counts as
    /// the middle one of those that were, and where none was, as [`ASSUMED_WATTS`].
    #[serde(default)]
    pub active_watts: Option<f64>,
    /// What a joule of this phone counts beside one out of a battery, as a part of that: 1 on battery, less while the phone charges.
    #[serde(default = "one")]
    pub joule_weight: f64,
    /// The part of its seconds in which the phone works for this deployment: 1 ÷ n where it takes turns among n.
    #[serde(default = "one")]
    pub busy_share: f64,
}

/// Watts of a phone, and whether they are taken for granted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Watts {
    /// Over the phone's seconds for this deployment.
    pub(crate) watts: f64,
    /// The same as they count.
    pub(crate) weighted: f64,
    pub(crate) is_assumed: bool,
}

fn one() -> f64 {
    1.0
}

/// The watts of each phone. One whose watts nobody knows counts as the middle one of those that are known, the higher of two.
pub(crate) fn watts_of(phones: &[PhoneCosts]) -> Vec<Watts> {
    let measured = |phone: &PhoneCosts| phone.energy.active_watts.filter(|watts| BELIEVED_WATTS.contains(watts));
    let mut known: Vec<f64> = phones.iter().filter_map(measured).collect();
    known.sort_by(f64::total_cmp);
    let typical = known.get(known.len() / 2).copied().unwrap_or(ASSUMED_WATTS);
    let of = |phone: &PhoneCosts| {
        let believed =
            |value: f64, range: std::ops::RangeInclusive<f64>| if range.contains(&value) { value } else { 1.0 };
        let watts = measured(phone).unwrap_or(typical) * believed(phone.energy.busy_share, BELIEVED_SHARES);
        let weighted = watts * believed(phone.energy.joule_weight, BELIEVED_WEIGHTS);
        Watts { watts, weighted, is_assumed: measured(phone).is_none() }
    };
    phones.iter().map(of).collect()
}

// === impl Energy ===

impl Default for Energy {
    /// On battery, nobody has measured it, and it works for nobody else.
    fn default() -> Self {
        Self { active_watts: None, joule_weight: 1.0, busy_share: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{ModelCosts, Speed};

    fn phones(energies: &[Energy]) -> Vec<PhoneCosts> {
        let of = |energy: &Energy| {
            let costs = PhoneCosts::from_speed("phone", 1, &Speed::default(), &ModelCosts::default());
            PhoneCosts { energy: *energy, ..costs }
        };
        energies.iter().map(of).collect()
    }

    fn measured(watts: f64) -> Energy {
        Energy { active_watts: Some(watts), ..Energy::default() }
    }

    #[test]
    fn who_tells_no_watts_counts_as_the_middle_one_of_those_who_do() {
        let found = watts_of(&phones(&[measured(2.0), Energy::default(), measured(8.0), measured(3.0)]));
        let watts: Vec<(f64, bool)> = found.iter().map(|of| (of.watts, of.is_assumed)).collect();
        assert_eq!(watts, [(2.0, false), (3.0, true), (8.0, false), (3.0, false)]);
        assert_eq!(watts_of(&phones(&[Energy::default()]))[0].watts, ASSUMED_WATTS, "nobody tells any");
        for broken in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            let found = watts_of(&phones(&[measured(broken), measured(5.0)]));
            assert_eq!((found[0].watts, found[0].is_assumed), (5.0, true), "{broken} is no phone's");
        }
    }

    #[test]
    fn weight_and_turns_lessen_what_a_joule_counts_and_broken_ones_change_nothing() {
        let of = |joule_weight, busy_share| {
            let found = watts_of(&phones(&[Energy { active_watts: Some(4.0), joule_weight, busy_share }]))[0];
            (found.watts, found.weighted)
        };
        assert_eq!(of(0.25, 0.5), (2.0, 0.5));
        for broken in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(of(broken, broken), (4.0, 4.0), "{broken}");
        }
    }
}
