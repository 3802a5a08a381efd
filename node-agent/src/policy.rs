//! Policy: when this phone takes no part, whatever a host asks of it. Pure: what the phone senses and when come in as arguments.
//!
//! A host that is there moves layers away at limits of its own, which are reached before these. These are the person's: they hold when the host
//! is away, or wants otherwise.

use std::time::{Duration, Instant};

use polyphony_protocol::hub::{Withdrawal, WithdrawalReason};

use crate::reading::Reading;

/// Beyond these the phone takes no part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// A battery below this that no charger keeps up with.
    pub min_battery_percent: u8,
    /// This and above.
    pub max_temperature_celsius: f64,
}

/// Which limits the phone is beyond. Each is seen by itself at every look, so that none is forgotten while another is told.
#[derive(Debug)]
pub struct Policy {
    limits: Limits,
    is_low: bool,
    charge: Option<Charge>,
    is_hot: bool,
    short_since: Option<Instant>,
}

/// A battery that is charged, and has not fallen since.
#[derive(Clone, Copy, Debug)]
struct Charge {
    since: Instant,
    percent: u8,
}

/// How far within its limits a phone takes part again.
const BACK_PERCENT: u8 = 5;
const BACK_CELSIUS: f64 = 5.0;
/// Or, of charge, after so long on a charger: it is about what a port of 2.5 W takes for that many points, and a phone that spares its battery stops
/// below them.
const CHARGED_FOR: Duration = Duration::from_secs(30 * 60);
/// Android's thermal status from which on a device throttles so much that it is felt, and the one up to which it is not
/// (`PowerManager.THERMAL_STATUS_SEVERE`, `THERMAL_STATUS_LIGHT`).
const SEVERE: u8 = 3;
const LIGHT: u8 = 1;
/// Android's forecast of heat, in parts of what is severe.
const HEADROOM_OF_SEVERE: f64 = 1.0;
const HEADROOM_BACK: f64 = 0.85;
/// Of the memory at which Android begins to end programs: what is free when the phone leaves, and when it takes part again.
const LOW_MEMORY: f64 = 1.25;
const ENOUGH_MEMORY: f64 = 2.0;
/// What took too much memory once would do so again: it stays away at least this long.
const AWAY_FOR_MEMORY: Duration = Duration::from_secs(300);

// === impl Policy ===

impl Policy {
    pub fn new(limits: Limits) -> Self {
        Self { limits, is_low: false, charge: None, is_hot: false, short_since: None }
    }

    /// Whether the phone takes no part from now on, and why. What it cannot sense keeps it from nothing.
    pub fn judge(&mut self, reading: &Reading, now: Instant) -> Option<Withdrawal> {
        let memory = self.low_memory(reading, now);
        let (battery, heat) = (self.low_battery(reading, now), self.heat(reading));
        let wishes = reading.wishes;
        let found = [
            // Before a person's word, too: it leaves the least time.
            memory.map(|why| (WithdrawalReason::MemoryLow, why)),
            wishes.is_leaving.then(|| (WithdrawalReason::Leaving, "its agent ends".to_owned())),
            wishes.is_paused.then(|| (WithdrawalReason::Paused, "its person has paused it".to_owned())),
            battery.map(|why| (WithdrawalReason::BatteryLow, why)),
            heat.map(|why| (WithdrawalReason::TooHot, why)),
        ];
        found.into_iter().flatten().next().map(|(reason, message)| Withdrawal { reason, message })
    }

    /// A charger may give less than the phone computes with, and does not say so: that shows in a charge that falls, or in a word that it charges which
    /// holds only as long as it rests. So that word alone brings nobody back.
    fn low_battery(&mut self, reading: &Reading, now: Instant) -> Option<String> {
        let least = self.limits.min_battery_percent;
        let back = least.saturating_add(BACK_PERCENT).min(100);
        let (before, was_low) = (self.charge.take(), std::mem::take(&mut self.is_low));
        let percent = reading.battery.percent?;
        let has_fallen = before.is_some_and(|charge| percent < charge.percent);
        let since = before.filter(|_| !has_fallen).map_or(now, |charge| charge.since);
        self.charge = (reading.battery.is_charging == Some(true)).then_some(Charge { since, percent });
        let is_charged = self.charge.is_some_and(|charge| now.duration_since(charge.since) >= CHARGED_FOR);
        self.is_low = match was_low {
            true => percent < back && !is_charged,
            false => percent < least && (self.charge.is_none() || has_fallen),
        };
        self.is_low.then(|| {
            let minutes = CHARGED_FOR.as_secs() / 60;
            format!(
                "its battery is at {percent} %, and --min-battery is {least}: it takes part again from {back} % on, or after {minutes} minutes on a charger"
            )
        })
    }

    fn heat(&mut self, reading: &Reading) -> Option<String> {
        let most = self.limits.max_temperature_celsius;
        let (celsius, status, headroom) = match self.is_hot {
            true => (most - BACK_CELSIUS, LIGHT + 1, HEADROOM_BACK),
            false => (most, SEVERE, HEADROOM_OF_SEVERE),
        };
        let warm = reading.hottest_celsius().filter(|found| *found >= celsius);
        let throttled = reading.thermal_status.filter(|found| *found >= status);
        let forecast = reading.thermal_headroom.filter(|found| *found >= headroom);
        let why = warm
            .map(|found| format!("it has {found:.1} °C, and --max-temperature is {most}"))
            .or_else(|| throttled.map(|found| format!("its system throttles it for heat (thermal status {found})")))
            .or_else(|| {
                let percent = forecast? * 100.0;
                Some(format!("its system is about to throttle it for heat ({percent:.0} % of what is severe)"))
            });
        self.is_hot = why.is_some();
        why
    }

    fn low_memory(&mut self, reading: &Reading, now: Instant) -> Option<String> {
        let found = reading.available_bytes.zip(reading.low_memory_bytes).filter(|(available, low)| {
            let is_away = self.short_since.is_some_and(|since| now.duration_since(since) < AWAY_FOR_MEMORY);
            let least = *low as f64 * if self.short_since.is_some() { ENOUGH_MEMORY } else { LOW_MEMORY };
            is_away || (*available as f64) < least
        });
        self.short_since = found.map(|_| self.short_since.unwrap_or(now));
        found.map(|(available, low)| {
            format!("{} MiB of memory are free, and its system ends programs at {}", available >> 20, low >> 20)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Battery;
    use crate::told::Wishes;

    const LIMITS: Limits = Limits { min_battery_percent: 10, max_temperature_celsius: 50.0 };

    fn battery(percent: u8, is_charging: bool) -> Reading {
        Reading {
            battery: Battery { percent: Some(percent), is_charging: Some(is_charging), ..Battery::default() },
            ..Reading::default()
        }
    }

    fn heat(celsius: f64) -> Reading {
        Reading { shell_celsius: Some(celsius), ..Reading::default() }
    }

    fn memory(available: u64, low: u64) -> Reading {
        Reading { available_bytes: Some(available << 20), low_memory_bytes: Some(low << 20), ..Reading::default() }
    }

    /// What is judged of one reading after another, a second apart.
    fn judged(readings: &[Reading]) -> Vec<Option<WithdrawalReason>> {
        let mut policy = Policy::new(LIMITS);
        let begun = Instant::now();
        let at = |n: usize| begun + Duration::from_secs(n as u64);
        let judge = |(n, reading)| policy.judge(reading, at(n)).map(|found| found.reason);
        readings.iter().enumerate().map(judge).collect()
    }

    #[test]
    fn a_phone_leaves_at_its_limits_and_is_back_some_way_within_them() {
        let (low, hot) = (Some(WithdrawalReason::BatteryLow), Some(WithdrawalReason::TooHot));
        assert_eq!(
            judged(&[10, 9, 14, 15, 9].map(|percent| battery(percent, false))),
            [None, low, low, None, low],
            "at 10 it is there"
        );
        assert_eq!(judged(&[49.9, 50.0, 45.0, 44.9].map(heat)), [None, hot, hot, None]);
        assert_eq!(judged(&[Reading::default()]), [None], "who senses nothing takes part");
    }

    #[test]
    fn a_charger_that_gives_less_than_the_phone_computes_with_brings_nobody_back_before_it_has_charged() {
        let low = Some(WithdrawalReason::BatteryLow);
        // Its system says that it charges as long as it rests.
        let rests_and_works = [(9, true), (9, false), (9, true), (9, false), (14, true), (15, true), (14, false)];
        let expected = [None, low, low, low, low, None, None];
        assert_eq!(judged(&rests_and_works.map(|(percent, is_charging)| battery(percent, is_charging))), expected);
        // Its system says that it charges, and it falls.
        let falls = [12, 10, 9, 9, 14, 15, 10].map(|percent| battery(percent, true));
        assert_eq!(judged(&falls), [None, None, low, low, low, None, None]);
        let rises = [5, 5, 6, 9].map(|percent| battery(percent, true));
        assert_eq!(judged(&rises), [None; 4], "a charger that keeps up is as good as a charge");
        let unknown = [battery(9, false), Reading::default(), battery(9, true)];
        assert_eq!(judged(&unknown), [low, None, None], "what it cannot sense keeps it from nothing");
    }

    #[test]
    fn a_battery_that_is_charged_no_further_brings_its_phone_back_after_a_while() {
        let (mut policy, begun) = (Policy::new(LIMITS), Instant::now());
        let mut judge = |minutes: u64, percent, is_charging| {
            let now = begun + Duration::from_secs(60 * minutes);
            policy.judge(&battery(percent, is_charging), now).map(|found| found.reason)
        };
        let low = Some(WithdrawalReason::BatteryLow);
        assert_eq!(judge(0, 9, false), low);
        assert_eq!(judge(1, 8, true), low);
        assert_eq!(judge(20, 7, true), low, "it falls: from here on it counts anew");
        assert_eq!(judge(31, 7, true), low);
        assert_eq!(judge(50, 7, true), None);
        assert_eq!(judge(51, 7, false), low);
        assert_eq!(judge(52, 7, true), low, "and again as long");
        assert_eq!(judge(82, 7, true), None);
    }

    #[test]
    fn a_limit_that_another_covers_is_not_forgotten() {
        let (low, hot) = (Some(WithdrawalReason::BatteryLow), Some(WithdrawalReason::TooHot));
        let both =
            |celsius, percent, is_charging| Reading { battery: battery(percent, is_charging).battery, ..heat(celsius) };
        let readings = [both(50.0, 50, false), both(47.0, 5, false), both(47.0, 15, true), both(44.0, 15, true)];
        assert_eq!(judged(&readings), [hot, low, hot, None], "it is not cool enough yet to be back");
        let mut policy = Policy::new(LIMITS);
        let begun = Instant::now();
        let mut judge = |seconds, is_paused, available| {
            let reading = Reading { wishes: Wishes { is_paused, is_leaving: false }, ..memory(available, 200) };
            policy.judge(&reading, begun + Duration::from_secs(seconds)).map(|found| found.reason)
        };
        assert_eq!(judge(0, false, 100), Some(WithdrawalReason::MemoryLow));
        assert_eq!(judge(10, true, 3000), Some(WithdrawalReason::MemoryLow));
        assert_eq!(judge(20, false, 3000), Some(WithdrawalReason::MemoryLow), "a pause between does not shorten it");
        assert_eq!(judge(300, false, 3000), None);
    }

    #[test]
    fn the_warmer_of_shell_and_battery_is_judged() {
        let warm = |shell, of_battery| Reading {
            battery: Battery { temperature_celsius: Some(of_battery), ..Battery::default() },
            ..heat(shell)
        };
        let hot = Some(WithdrawalReason::TooHot);
        assert_eq!(judged(&[warm(40.0, 49.0), warm(40.0, 51.0), warm(51.0, 40.0)]), [None, hot, hot]);
    }

    #[test]
    fn a_phone_believes_its_system_about_heat() {
        let hot = Some(WithdrawalReason::TooHot);
        let status = |status| Reading { thermal_status: Some(status), ..Reading::default() };
        assert_eq!(judged(&[2, 3, 2, 1].map(status)), [None, hot, hot, None]);
        let headroom = |part| Reading { thermal_headroom: Some(part), ..Reading::default() };
        assert_eq!(judged(&[0.99, 1.0, 0.9, 0.8].map(headroom)), [None, hot, hot, None]);
    }

    #[test]
    fn a_phone_that_was_short_of_memory_stays_away_for_a_while() {
        let mut policy = Policy::new(LIMITS);
        let begun = Instant::now();
        let mut judge = |seconds, reading: Reading| {
            let found = policy.judge(&reading, begun + Duration::from_secs(seconds));
            found.map(|found| found.reason)
        };
        let low = Some(WithdrawalReason::MemoryLow);
        assert_eq!(judge(0, memory(250, 200)), None);
        assert_eq!(judge(1, memory(249, 200)), low);
        assert_eq!(judge(2, memory(3000, 200)), low, "what it has let go is free now");
        assert_eq!(judge(301, memory(399, 200)), low);
        assert_eq!(judge(302, memory(400, 200)), None);
    }

    #[test]
    fn a_phone_that_is_low_in_two_ways_goes_for_the_one_that_leaves_the_least_time() {
        let low = Reading { battery: battery(2, false).battery, ..memory(100, 200) };
        let paused = Reading { wishes: Wishes { is_paused: true, is_leaving: false }, ..low };
        assert_eq!(judged(&[low, paused]), [Some(WithdrawalReason::MemoryLow); 2]);
    }

    #[test]
    fn a_person_s_word_comes_before_what_leaves_time() {
        let mut policy = Policy::new(LIMITS);
        let mut judge = |is_paused, is_leaving| {
            let found =
                policy.judge(&Reading { wishes: Wishes { is_paused, is_leaving }, ..heat(70.0) }, Instant::now());
            found.map(|found| found.reason)
        };
        assert_eq!(judge(true, false), Some(WithdrawalReason::Paused));
        assert_eq!(judge(true, true), Some(WithdrawalReason::Leaving));
        assert_eq!(judge(false, false), Some(WithdrawalReason::TooHot));
    }
}
