//! At work: for how long the agent has computed, and how many tokens it has decoded, whichever segment's. One for all segments.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Told by whoever computes.
#[derive(Clone, Debug, Default)]
pub struct AtWork {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Steps that are being computed: segments may have theirs at the same time.
    n_running: u32,
    since: Option<Instant>,
    /// Before that.
    computed: Duration,
    tokens: u64,
}

/// A step; over when it is dropped.
pub struct Running {
    at_work: AtWork,
}

// === impl AtWork ===

impl AtWork {
    /// A step begins.
    pub fn begin(&self, now: Instant) -> Running {
        let mut state = self.lock();
        state.n_running += 1;
        state.since.get_or_insert(now);
        Running { at_work: self.clone() }
    }

    pub fn decoded(&self, n_tokens: usize) {
        self.lock().tokens += n_tokens as u64;
    }

    /// Time in which at least one step was computed until now, and tokens.
    pub fn until(&self, now: Instant) -> (Duration, u64) {
        let state = self.lock();
        let running = state.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (state.computed + running, state.tokens)
    }

    fn end(&self, now: Instant) {
        let mut state = self.lock();
        state.n_running = state.n_running.saturating_sub(1);
        if state.n_running == 0
            && let Some(since) = state.since.take()
        {
            state.computed += now.saturating_duration_since(since);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        self.at_work.end(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_at_the_same_time_count_once_and_one_that_runs_counts_as_far_as_it_is() {
        let at_work = AtWork::default();
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let (one, other) = (at_work.begin(began), at_work.begin(began + second));
        assert_eq!(at_work.until(began + 3 * second).0, 3 * second);
        // What ends, ends now: less than a second after it began.
        drop(one);
        assert_eq!(at_work.until(began + 5 * second).0, 5 * second, "the other runs on");
        drop(other);
        let (computed, tokens) = at_work.until(began + 50 * second);
        assert!(computed < second, "{computed:?}");
        assert_eq!(tokens, 0);
        at_work.decoded(3);
        assert_eq!(at_work.until(began), (computed, 3));
    }
}
