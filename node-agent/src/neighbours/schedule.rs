//! Schedules: when a neighbour is probed next, by how the last probes ended. Has no clock of its own.

use std::time::{Duration, Instant};

/// A phone that is new is probed this often.
const FIRST_PROBES: u32 = 3;
/// Between looks at who is due, and between two probes of a phone that is known.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// A phone that could not be reached is tried again after this.
const RETRY_EVERY: Duration = Duration::from_secs(15);
/// A phone whose way was lost, and of which no other is known, is tried again after this.
const SEEK_EVERY: Duration = Duration::from_secs(3);

/// Who is probed when.
pub(super) struct Schedule {
    /// Those that measured something, and those since then that were answered by something else.
    n_probes: u32,
    n_refused: u32,
    tried_at: Instant,
    due: Instant,
    /// When the way over the hub was measured last.
    led_at: Option<Instant>,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer was dialled, and the way measured.
    Dialled,
    /// It cannot be dialled; the way over the hub was measured.
    Led,
    /// The same, and what is known of that way is good for a while.
    LedAsKnown,
    /// The peer is there, and did not let itself be measured: the hub may not have told it of this phone yet.
    Refused,
    Nothing,
}

// === impl Schedule ===

impl Schedule {
    pub fn new(now: Instant) -> Self {
        Self { n_probes: 0, n_refused: 0, tried_at: now, due: now, led_at: None }
    }

    /// Whether the way over the hub need not be measured again yet.
    pub fn knows_way(&self, now: Instant) -> bool {
        self.n_probes >= FIRST_PROBES && self.led_at.is_some_and(|at| now < at + PROBE_EVERY)
    }

    /// Whether the next probe is due; it is sooner of a phone to which a way is sought.
    pub fn is_due(&self, seeks: bool, now: Instant) -> bool {
        self.due <= now || (seeks && self.tried_at + SEEK_EVERY <= now)
    }

    /// A probe has ended at `now`: when the next one is due.
    pub fn go_on(&mut self, end: End, now: Instant) {
        let is_measured = matches!(end, End::Dialled | End::Led);
        self.n_probes += u32::from(is_measured);
        self.n_refused = if is_measured { 0 } else { self.n_refused + u32::from(end == End::Refused) };
        match end {
            End::Led => self.led_at = Some(now),
            End::Dialled | End::Nothing => self.led_at = None,
            End::LedAsKnown | End::Refused => {}
        }
        let pause = match end {
            End::Dialled | End::Led if self.n_probes < FIRST_PROBES => PAUSE,
            End::Refused if self.n_refused < FIRST_PROBES => PAUSE,
            End::Dialled => PROBE_EVERY,
            End::Led | End::LedAsKnown | End::Refused | End::Nothing => RETRY_EVERY,
        };
        (self.tried_at, self.due) = (now, now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies between may go at any time, and each frame over the hub travels twice until it is noticed.
    #[test]
    fn whoever_is_led_over_the_hub_is_dialled_often_and_measured_seldom() {
        let began = Instant::now();
        let mut schedule = Schedule::new(began);
        let mut now = began;
        for _ in 0..FIRST_PROBES {
            assert!(schedule.is_due(false, now) && !schedule.knows_way(now));
            schedule.go_on(End::Led, now);
            now = schedule.due;
        }
        let (mut n_dialled, mut n_measured) = (0, 0);
        let until = now + 4 * PROBE_EVERY;
        while now < until {
            let end = if schedule.knows_way(now) { End::LedAsKnown } else { End::Led };
            n_dialled += 1;
            n_measured += u32::from(end == End::Led);
            schedule.go_on(end, now);
            assert!(schedule.due - now <= RETRY_EVERY);
            now = schedule.due;
        }
        assert_eq!((n_dialled, n_measured), (16, 4));
        // The way is there again, and holds; when it is lost, what was known of the other is old.
        schedule.go_on(End::Dialled, now);
        assert_eq!(schedule.due, now + PROBE_EVERY);
        assert!(!schedule.knows_way(now));
    }

    /// Two phones that are told of each other are not told in the same moment.
    #[test]
    fn whoever_refuses_is_asked_again_soon_but_not_for_ever() {
        let mut schedule = Schedule::new(Instant::now());
        let mut pauses = Vec::new();
        for end in [End::Refused, End::Refused, End::Refused, End::Refused, End::Dialled, End::Refused] {
            let now = schedule.due;
            schedule.go_on(end, now);
            pauses.push(schedule.due - now);
        }
        assert_eq!(pauses, [PAUSE, PAUSE, RETRY_EVERY, RETRY_EVERY, PAUSE, PAUSE]);
    }
}
