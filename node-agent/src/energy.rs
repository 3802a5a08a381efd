//! Energy: what computing takes out of the battery, beyond what the phone takes anyway. Pure: samples and times come in as arguments.
//!
//! A sample is a window of about a second: the watts at its end, and the part of it in which the agent computed. What the phone takes in windows
//! of rest is its own matter (screen, radios, other apps); what it takes more in windows of work is the work's. One in which the agent did
//! something else, such as loading weights, is neither. Nothing is told before both were seen on battery. What others do meanwhile is noise in it, of which medians bear some; a phone that never rests is never measured.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use polyphony_protocol::hub::LEAST_ACTIVE_WATTS;

/// A window counts as rest with no more of it at work than this, and as work with at least that.
const REST_SHARE: f64 = 0.05;
const WORK_SHARE: f64 = 0.5;
/// Gauges of batteries tell a mean of some seconds: a window counts when those before it were of its kind for so long.
const SETTLING: Duration = Duration::from_secs(4);
/// The most windows that a median is taken of, and the fewest.
const SAMPLES: usize = 64;
const FEWEST: usize = 4;
/// Windows older than this say nothing of now: the screen was on, say.
const FRESH: Duration = Duration::from_secs(30 * 60);
/// A longer window has a pause in it, in which the phone slept.
const LONGEST_WINDOW: Duration = Duration::from_secs(5);

/// What was seen between two samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// What the phone takes out of its battery at the end; `None` while it charges, or does not tell.
    pub watts: Option<f64>,
    /// Time in which the agent computed.
    pub computing: Duration,
    /// Time in which it did something else that takes power, such as loading weights.
    pub otherwise: Duration,
    /// Tokens that it decoded, one for each session in a step.
    pub tokens: u64,
}

/// What is told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Watts by which the phone takes more while it computes; the last that were known, while it charges.
    pub active_watts: Option<f64>,
    /// Joules of computing on battery since those watts were known: watts × seconds at work.
    pub active_joules: f64,
    /// Tokens that were decoded for these.
    pub tokens: u64,
}

/// What is known of one phone.
#[derive(Debug, Default)]
pub struct Energy {
    rest: Level,
    work: Level,
    figures: Figures,
    sampled_at: Option<Instant>,
    /// Of which kind the windows are, and since when.
    kind: Option<(Kind, Instant)>,
}

/// What the agent did in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rest,
    Work,
}

/// Watts of windows of one kind; of work those alone that are the work's.
#[derive(Debug, Default)]
struct Level {
    samples: VecDeque<(Instant, f64)>,
}

// === impl Energy ===

impl Energy {
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Takes in what was seen since the last sample, and tells what is known by now.
    pub fn note(&mut self, sample: &Sample, now: Instant) -> Figures {
        let before = self.sampled_at.replace(now);
        let window = before.map(|before| now.duration_since(before)).filter(|window| !window.is_zero());
        let (Some(watts), Some(window)) = (sample.watts, window.filter(|window| *window <= LONGEST_WINDOW)) else {
            self.kind = None;
            return self.figures;
        };
        let share_of = |time: Duration| (time.as_secs_f64() / window.as_secs_f64()).min(1.0);
        let share = share_of(sample.computing);
        self.count(share * window.as_secs_f64(), sample.tokens);
        let is_pure = share_of(sample.otherwise) <= REST_SHARE;
        let kind = match share {
            share if is_pure && share <= REST_SHARE => Kind::Rest,
            share if is_pure && share >= WORK_SHARE => Kind::Work,
            _ => {
                self.kind = None;
                return self.figures;
            }
        };
        let since = self.kind.filter(|(known, _)| *known == kind).map_or(now - window, |(_, since)| since);
        self.kind = Some((kind, since));
        if now.duration_since(since) >= SETTLING {
            match kind {
                Kind::Rest => self.rest.add(watts, now),
                Kind::Work => {
                    if let Some(rest) = self.rest.median(now) {
                        self.work.add((watts - rest) / share, now);
                    }
                }
            }
            // What was known holds while only one of both is fresh, or nothing can be told from noise.
            let active = self.rest.median(now).and_then(|_| self.work.median(now));
            self.figures.active_watts =
                active.filter(|watts| *watts >= LEAST_ACTIVE_WATTS).or(self.figures.active_watts);
        }
        self.figures
    }

    fn count(&mut self, seconds_at_work: f64, tokens: u64) {
        if let Some(watts) = self.figures.active_watts {
            self.figures.active_joules += watts * seconds_at_work;
            self.figures.tokens += tokens;
        }
    }
}

// === impl Level ===

impl Level {
    fn add(&mut self, watts: f64, now: Instant) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, watts));
    }

    /// Of the fresh samples, where they are enough.
    fn median(&mut self, now: Instant) -> Option<f64> {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > FRESH) {
            self.samples.pop_front();
        }
        let mut sorted: Vec<f64> = self.samples.iter().map(|(_, watts)| *watts).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().filter(|_| sorted.len() >= FEWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A phone that is sampled each second.
    struct Phone {
        energy: Energy,
        now: Instant,
    }

    impl Phone {
        fn new() -> Self {
            Self { energy: Energy::default(), now: Instant::now() }
        }

        /// So many windows with this part of each at work, and ten tokens in each.
        fn spend(&mut self, seconds: u32, watts: Option<f64>, share: f64) -> Figures {
            self.spend_busy(seconds, watts, share, 0.0)
        }

        /// The same with this part of each spent otherwise.
        fn spend_busy(&mut self, seconds: u32, watts: Option<f64>, share: f64, otherwise: f64) -> Figures {
            let [computing, otherwise] = [share, otherwise].map(Duration::from_secs_f64);
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                let sample = Sample { watts, computing, otherwise, tokens: 10 };
                self.energy.note(&sample, self.now);
            }
            self.energy.figures()
        }
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn nothing_is_told_until_rest_and_work_were_seen_and_then_their_difference() {
        let mut phone = Phone::new();
        assert_eq!(phone.spend(60, Some(1.5), 0.0).active_watts, None, "rest alone");
        let found = phone.spend(60, Some(6.5), 1.0);
        assert!(near(found.active_watts, 5.0), "{found:?}");
        let mut other = Phone::new();
        assert_eq!(other.spend(300, Some(6.5), 1.0).active_watts, None, "work alone");
    }

    #[test]
    fn work_that_fills_a_part_of_its_windows_takes_as_much_as_work_that_fills_them() {
        let mut phone = Phone::new();
        phone.spend(20, Some(1.0), 0.02);
        // 4 W for three quarters of the time.
        let found = phone.spend(20, Some(4.0), 0.75);
        assert!(near(found.active_watts, 4.0), "{found:?}");
        let before = phone.energy.figures().active_watts;
        assert_eq!(phone.spend(50, Some(9.0), 0.3).active_watts, before, "neither rest nor work");
    }

    #[test]
    fn a_phone_that_loads_neither_rests_nor_works() {
        let mut phone = Phone::new();
        phone.spend_busy(60, Some(7.0), 0.0, 1.0);
        phone.spend(20, Some(1.0), 0.0);
        phone.spend_busy(60, Some(9.0), 0.8, 0.2);
        let found = phone.spend(20, Some(4.0), 1.0);
        assert!(near(found.active_watts, 3.0), "{found:?}");
    }

    #[test]
    fn a_gauge_that_lags_spoils_nothing() {
        let mut phone = Phone::new();
        for _ in 0..6 {
            // It tells of the kind before for three seconds.
            phone.spend(3, Some(6.0), 0.0);
            phone.spend(7, Some(1.0), 0.0);
            phone.spend(3, Some(1.0), 1.0);
            phone.spend(7, Some(6.0), 1.0);
        }
        let found = phone.energy.figures();
        assert!(near(found.active_watts, 5.0), "{found:?}");
    }

    #[test]
    fn while_it_charges_nothing_is_counted_and_what_was_known_holds() {
        let mut phone = Phone::new();
        phone.spend(20, Some(1.0), 0.0);
        let known = phone.spend(20, Some(3.0), 1.0);
        let charging = phone.spend(500, None, 1.0);
        assert_eq!(charging, known);
        // The first seconds on battery again are no settled ones, but their joules count.
        let again = phone.spend(3, Some(50.0), 1.0);
        assert!(near(again.active_watts, 2.0), "{again:?}");
        assert!((again.active_joules - known.active_joules - 6.0).abs() < 1e-9 && again.tokens == known.tokens + 30);
    }

    #[test]
    fn joules_and_tokens_are_of_the_same_time() {
        let mut phone = Phone::new();
        phone.spend(20, Some(1.0), 0.0);
        let unknown = phone.spend(6, Some(3.0), 1.0);
        assert_eq!((unknown.active_joules, unknown.tokens), (0.0, 0), "tokens count from when watts are known");
        let first = phone.spend(4, Some(3.0), 1.0);
        let then = phone.spend(10, Some(2.0), 0.5);
        let (joules, tokens) = (then.active_joules - first.active_joules, then.tokens - first.tokens);
        // 2 W for half of ten seconds.
        assert!((joules - 10.0).abs() < 1e-9 && tokens == 100, "{joules} J for {tokens}");
    }

    #[test]
    fn work_that_takes_no_more_than_rest_is_noise_and_a_pause_is_no_window() {
        let mut phone = Phone::new();
        phone.spend(20, Some(2.0), 0.0);
        assert_eq!(phone.spend(30, Some(2.01), 1.0).active_watts, None);
        let mut phone = Phone::new();
        phone.spend(20, Some(1.0), 0.0);
        let known = phone.spend(20, Some(3.0), 1.0);
        phone.now += Duration::from_secs(600);
        let (computing, otherwise) = (Duration::from_secs(600), Duration::ZERO);
        let sample = Sample { watts: Some(3.0), computing, otherwise, tokens: 9 };
        assert_eq!(phone.energy.note(&sample, phone.now), known);
    }
}
