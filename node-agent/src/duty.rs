//! Duty: in which part of its time a phone computes, so that it stays below a temperature. Pure: who computes asks how long to rest after it.
//!
//! A phone that waits to be throttled is slow in bursts, and one that reaches its host's limit is drained. This one sees from the slope of the
//! last minute where its heat is going, and computes less before it is there. Its steps count with their rests in them, so that plans give it as
//! many layers as it can bear.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::reading::{WarmPart, Warmth};

/// The part of its time that a phone computes, from [`LEAST`] to 1, and its rest; all of its holders see the same, so that one does not compute
/// while another rests.
#[derive(Clone, Debug)]
pub struct Duty(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    part: AtomicU64,
    rests_until: Mutex<Option<Instant>>,
}

/// Finds the duty that holds a temperature.
#[derive(Debug)]
pub struct Governor {
    /// Is not to be passed.
    hold_celsius: f64,
    /// Of what the samples are.
    of: Option<WarmPart>,
    samples: VecDeque<(Instant, f64)>,
    judged_at: Option<Instant>,
    duty: f64,
}

/// Below this a ring is better off without the phone, and its host sees that by its steps.
pub const LEAST: f64 = 0.2;
/// A slope is that of so long: sensors tell half degrees, and a phone warms by few of them in a minute.
const WINDOW: Duration = Duration::from_secs(60);
/// No slope is told by less.
const LEAST_WINDOW: Duration = Duration::from_secs(10);
/// How far ahead it looks: a phone's shell follows what it computes within about two minutes.
const HORIZON_SECONDS: f64 = 90.0;
/// It aims at so much below what it is to hold.
const MARGIN_CELSIUS: f64 = 1.0;
/// How often the duty changes.
const JUDGE_EVERY: Duration = Duration::from_secs(5);
/// How much less it computes for each degree that it would be too warm, and how much more for each that it could be warmer.
const LESS_A_DEGREE: f64 = 0.06;
const MORE_A_DEGREE: f64 = 0.01;
/// The most that the duty changes by at once, as a part of itself.
const LARGEST_CUT: f64 = 0.3;
const LARGEST_RISE: f64 = 0.05;

// === impl Duty ===

impl Default for Duty {
    fn default() -> Self {
        Self(Arc::new(Shared { part: AtomicU64::new(1.0_f64.to_bits()), rests_until: Mutex::default() }))
    }
}

impl Duty {
    pub fn now(&self) -> f64 {
        f64::from_bits(self.0.part.load(Ordering::Relaxed))
    }

    pub fn set(&self, part: f64) {
        self.0.part.store(part.clamp(LEAST, 1.0).to_bits(), Ordering::Relaxed);
    }

    /// Rests after so much work that ends now, behind what is left of others' rest; how long that is by itself. Where it would be longer than
    /// `longest`, the phone has work that is not to wait.
    pub fn rest_after(&self, computing: Duration, longest: Duration, now: Instant) -> Duration {
        let rest = computing.mul_f64(1.0 / self.now() - 1.0).min(longest);
        if !rest.is_zero() {
            let mut rests_until = self.lock();
            let begins = rests_until.map_or(now, |until| until.max(now));
            *rests_until = Some((begins + rest).min(now + longest));
        }
        rest
    }

    /// Until when nothing is computed; `None` where there is no rest now.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.lock().filter(|until| now < *until)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A time is never half-way changed.
        self.0.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Governor ===

impl Governor {
    pub fn new(hold_celsius: f64) -> Self {
        Self { hold_celsius, of: None, samples: VecDeque::new(), judged_at: None, duty: 1.0 }
    }

    /// Takes a temperature in, and says the duty from now on. A phone that does not sense heat computes all of its time.
    pub fn judge(&mut self, warmth: Option<Warmth>, now: Instant) -> f64 {
        let Some(Warmth { of, celsius }) = warmth else {
            *self = Self::new(self.hold_celsius);
            return self.duty;
        };
        // From one thermometer to another there is no slope.
        if self.of.replace(of).is_some_and(|before| before != of) {
            self.samples.clear();
        }
        self.samples.push_back((now, celsius));
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        let is_due = self.judged_at.is_none_or(|at| now.duration_since(at) >= JUDGE_EVERY);
        if let Some(slope) = self.slope().filter(|_| is_due) {
            self.judged_at = Some(now);
            // What cools does so by itself: it may compute more only when it is cool.
            let expected = celsius + slope.max(0.0) * HORIZON_SECONDS;
            let excess = expected - (self.hold_celsius - MARGIN_CELSIUS);
            let change = if excess > 0.0 {
                -(LESS_A_DEGREE * excess).min(LARGEST_CUT)
            } else {
                (MORE_A_DEGREE * -excess).min(LARGEST_RISE)
            };
            self.duty = (self.duty * (1.0 + change)).clamp(LEAST, 1.0);
        }
        self.duty
    }

    /// Degrees a second, by least squares over the window; none before there is enough of it.
    fn slope(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        if last.0.duration_since(first.0) < LEAST_WINDOW {
            return None;
        }
        let points = || self.samples.iter().map(|(at, celsius)| (at.duration_since(first.0).as_secs_f64(), *celsius));
        let n = self.samples.len() as f64;
        let (sum_x, sum_y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (above, below) = points().fold((0.0, 0.0), |(above, below), (x, y)| {
            (above + (x - mean_x) * (y - mean_y), below + (x - mean_x).powi(2))
        });
        (below > 0.0).then(|| above / below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(celsius: f64) -> Option<Warmth> {
        Some(Warmth { of: WarmPart::Shell, celsius })
    }

    /// A body that is warmed by what it computes, and cools towards the room: one time constant, degrees above the room at rest and at full work.
    struct Body {
        room: f64,
        at_full: f64,
        seconds: f64,
        celsius: f64,
    }

    impl Body {
        fn after_a_second(&mut self, duty: f64) -> f64 {
            let settles_at = self.room + self.at_full * duty;
            self.celsius += (settles_at - self.celsius) / self.seconds;
            // As sensors tell it.
            (self.celsius * 2.0).round() / 2.0
        }
    }

    /// The hottest that a body gets in two hours, and its mean duty in the second.
    fn hottest_and_duty(mut body: Body, governor: Option<f64>) -> (f64, f64) {
        let mut governor = governor.map(Governor::new);
        let begun = Instant::now();
        let (mut hottest, mut duty, mut sum) = (body.celsius, 1.0, 0.0);
        for second in 0..7200 {
            let told = body.after_a_second(duty);
            hottest = hottest.max(body.celsius);
            let now = begun + Duration::from_secs(second);
            duty = governor.as_mut().map_or(1.0, |governor| governor.judge(shell(told), now));
            sum += if second >= 3600 { duty } else { 0.0 };
        }
        (hottest, sum / 3600.0)
    }

    #[test]
    fn a_phone_that_would_get_too_warm_stays_below_and_computes_nearly_as_much_as_it_can_bear() {
        for (seconds, at_full) in [(120.0, 25.0), (300.0, 25.0), (300.0, 40.0), (600.0, 20.0)] {
            let body = || Body { room: 25.0, at_full, seconds, celsius: 30.0 };
            let (free, _) = hottest_and_duty(body(), None);
            assert!(free > 43.0, "it has something to hold: {free}");
            let (hottest, duty) = hottest_and_duty(body(), Some(43.0));
            assert!(hottest < 43.0, "{hottest} °C, {seconds} s, {at_full} °C");
            let bearable = ((43.0 - 25.0) / at_full).max(LEAST);
            assert!(duty > 0.75 * bearable && duty <= bearable, "{duty} of {bearable}, {seconds} s, {at_full} °C");
        }
    }

    #[test]
    fn a_phone_that_stays_cool_or_senses_nothing_computes_all_the_time() {
        let body = Body { room: 20.0, at_full: 12.0, seconds: 200.0, celsius: 20.0 };
        let (_, duty) = hottest_and_duty(body, Some(43.0));
        assert!(duty > 0.999, "{duty}");
        let mut governor = Governor::new(43.0);
        let begun = Instant::now();
        for second in 0..600 {
            assert!((governor.judge(None, begun + Duration::from_secs(second)) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_thermometer_that_takes_the_place_of_another_is_no_slope() {
        let (mut governor, begun) = (Governor::new(43.0), Instant::now());
        for second in 0..120 {
            let of = if second < 60 { WarmPart::Shell } else { WarmPart::Battery };
            // Ten degrees apart, and neither would ever be too warm.
            let celsius = if second < 60 { 28.0 } else { 38.0 };
            let duty = governor.judge(Some(Warmth { of, celsius }), begun + Duration::from_secs(second));
            assert!((duty - 1.0).abs() < 1e-9, "{duty} after {second} s");
        }
    }

    #[test]
    fn a_duty_is_kept_by_resting_after_work() {
        let (work, second, now) = (Duration::from_millis(30), Duration::from_secs(1), Instant::now());
        let duty = Duty::default();
        assert_eq!((duty.now(), duty.rest_after(work, second, now)), (1.0, Duration::ZERO));
        assert_eq!(duty.rests_until(now), None);
        duty.set(0.5);
        assert_eq!(duty.rest_after(work, second, now), work);
        assert_eq!((duty.rests_until(now), duty.rests_until(now + work)), (Some(now + work), None));
        duty.set(0.01);
        assert!((duty.now() - LEAST).abs() < 1e-9, "it is never nothing");
        assert_eq!(duty.rest_after(60 * second, second, now), second, "nobody waits for ever");
    }

    #[test]
    fn two_that_compute_on_one_phone_rest_together_and_for_both() {
        let (ours, now) = (Duty::default(), Instant::now());
        let theirs = ours.clone();
        let at = |millis| now + Duration::from_millis(millis);
        ours.set(0.25);
        let (work, longest) = (Duration::from_millis(10), Duration::from_secs(1));
        ours.rest_after(work, longest, at(10));
        assert_eq!(theirs.rests_until(at(11)), Some(at(40)), "its rest is the phone's");
        // It had begun before.
        theirs.rest_after(work, longest, at(15));
        assert_eq!(ours.rests_until(at(16)), Some(at(70)), "20 ms of work in 80");
        theirs.rest_after(Duration::from_secs(60), longest, at(20));
        assert_eq!(ours.rests_until(at(20)), Some(at(1020)), "nobody waits longer than a rest may be");
    }
}
