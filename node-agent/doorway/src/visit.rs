//! Visit: what a connection does now, and until when it may. Pure: time comes in.

use tokio::time::Instant;

use crate::limits::Limits;

/// One connection's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    phase: Phase,
    since: Instant,
    /// Since when something that was written lies unread.
    unread_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Has not shown what it speaks, or is in its handshake.
    Entering,
    /// The head of a request is awaited, or a part of it is here.
    Asking,
    /// A request is being answered.
    Answered,
    /// An answer is over, and nothing has come since.
    Resting,
}

// === impl Visit ===

impl Visit {
    pub(crate) fn new(now: Instant) -> Self {
        Self { phase: Phase::Entering, since: now, unread_since: None }
    }

    /// It has shown what it speaks.
    pub(crate) fn enter(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Asking, now);
    }

    /// Bytes have come.
    pub(crate) fn hear(&mut self, now: Instant) {
        if self.phase == Phase::Resting {
            (self.phase, self.since) = (Phase::Asking, now);
        }
    }

    /// The head of a request is whole.
    pub(crate) fn ask(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Answered, now);
    }

    /// Its answer is over.
    pub(crate) fn rest(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Resting, now);
    }

    /// What still came of a body that its answer did not need is over: it was no request's head.
    pub(crate) fn pass(&mut self, now: Instant) {
        if self.phase == Phase::Asking {
            self.rest(now);
        }
    }

    /// Whether what was written now could be handed on, or lies unread.
    pub(crate) fn write(&mut self, went: bool, now: Instant) {
        match went {
            true => self.unread_since = None,
            false => self.unread_since = self.unread_since.or(Some(now)),
        }
    }

    /// When it is shown out, unless something happens before.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Entering => Some(self.since + limits.enter_within),
            Phase::Asking => Some(self.since + limits.head_within),
            Phase::Answered => None,
            Phase::Resting => Some(self.since + limits.keep_alive),
        };
        let unread = self.unread_since.map(|since| since + limits.unread_within);
        [phase, unread].into_iter().flatten().min()
    }

    /// Whether a request is awaited whose head is not whole.
    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.phase, Phase::Entering | Phase::Asking)
    }

    /// Since when it has nothing to do here; `None` where it is being answered, or has an answer to read.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        (self.phase != Phase::Answered && self.unread_since.is_none()).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_phase_has_its_own_deadline_and_an_answer_none() {
        let limits = Limits {
            enter_within: SECOND,
            head_within: 2 * SECOND,
            keep_alive: 60 * SECOND,
            unread_within: 30 * SECOND,
            ..Default::default()
        };
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut visit = Visit::new(start);
        type Step<'a> = (&'a str, u32, fn(&mut Visit, Instant), Option<u32>, Option<u32>);
        let table: [Step<'_>; 13] = [
            ("more bytes of a handshake are no progress", 0, Visit::hear, Some(1), Some(0)),
            ("a head is awaited from the entry on", 1, Visit::enter, Some(3), Some(1)),
            ("the first of it gives it no more time", 2, Visit::hear, Some(3), Some(1)),
            ("an answer may take as long as it takes", 3, Visit::ask, None, None),
            ("so may its body", 50, Visit::hear, None, None),
            ("but not lie unread", 50, |visit, now| visit.write(false, now), Some(80), None),
            ("nor does trying again give it more time", 60, |visit, now| visit.write(false, now), Some(80), None),
            ("it is read", 70, |visit, now| visit.write(true, now), None, None),
            ("the next request may take its time", 70, Visit::rest, Some(130), Some(70)),
            ("until it begins", 100, Visit::hear, Some(102), Some(100)),
            ("or that was the rest of a body", 101, Visit::pass, Some(161), Some(101)),
            ("an answer", 110, Visit::ask, None, None),
            ("is not over with the rest of the body before", 111, Visit::pass, None, None),
        ];
        for (what, now, step, deadline, idle_since) in table {
            step(&mut visit, at(now));
            assert_eq!(visit.deadline(&limits), deadline.map(at), "{what}");
            assert_eq!(visit.idle_since(), idle_since.map(at), "{what}");
        }
    }
}
