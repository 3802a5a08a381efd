//! Awaited: how long the body of a request may keep its reader waiting. Pure: time comes in.
//!
//! Only time counts in which the reader waits: that it has no room for more yet is not the client's fault.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::Limits;

#[derive(Clone, Debug, Default)]
pub(crate) struct Awaited {
    /// Since when the next part is waited for.
    since: Option<Instant>,
    /// How long the parts before it were.
    waited: Duration,
    n_bytes: u64,
}

// === impl Awaited ===

impl Awaited {
    /// The next part is not there; until when it may come.
    pub(crate) fn wait(&mut self, now: Instant, limits: &Limits) -> Instant {
        let since = *self.since.get_or_insert(now);
        let earned = Duration::from_secs(self.n_bytes / limits.body_bytes_per_second.max(1));
        let left = (limits.body_within + earned).saturating_sub(self.waited);
        since + left.min(limits.body_pause)
    }

    pub(crate) fn come(&mut self, n_bytes: usize, now: Instant) {
        self.n_bytes += n_bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_the_time_in_which_somebody_waits_for_a_body_counts() {
        let limits = Limits {
            body_pause: 10 * SECOND,
            body_within: 30 * SECOND,
            body_bytes_per_second: 100,
            ..Default::default()
        };
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut awaited = Awaited::default();
        type Step<'a> = (&'a str, u32, u32, usize, u32);
        let table: [Step<'_>; 6] = [
            ("a part may take its pause", 0, 10, 50, 9),
            ("whatever the reader does before it asks for the next one", 300, 310, 50, 309),
            ("so may each", 309, 319, 0, 318),
            ("but all together have their time, and a second for what came", 318, 322, 400, 321),
            ("or more, for more", 321, 326, 0, 324),
            ("and no longer", 324, 326, 0, 326),
        ];
        for (what, asked, deadline, n_bytes, comes) in table {
            assert_eq!(awaited.wait(at(asked), &limits), at(deadline), "{what}");
            assert_eq!(awaited.wait(at(comes), &limits), at(deadline), "{what}: to ask again gives it no more time");
            awaited.come(n_bytes, at(comes));
        }
    }
}
