//! Running: since when a thread computes without a pause, for who waits to give it up. Nobody is woken for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A step that runs, or none.
pub(super) struct Running {
    epoch: Instant,
    /// Nanoseconds after the epoch, and one; 0 while nothing runs.
    since: AtomicU64,
}

/// Something runs as long as this lives.
pub(super) struct Run<'a>(&'a Running);

// === impl Running ===

impl Running {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), since: AtomicU64::new(0) }
    }

    pub(super) fn begin(&self) -> Run<'_> {
        let nanoseconds = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.since.store(nanoseconds + 1, Ordering::Relaxed);
        Run(self)
    }

    /// How long what runs now has run.
    pub(super) fn elapsed(&self) -> Duration {
        match self.since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.epoch.elapsed().saturating_sub(Duration::from_nanos(since - 1)),
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.0.since.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_while_something_does() {
        let running = Running::new();
        assert_eq!(running.elapsed(), Duration::ZERO);
        let run = running.begin();
        std::thread::sleep(Duration::from_millis(5));
        assert!(running.elapsed() >= Duration::from_millis(5));
        drop(run);
        assert_eq!(running.elapsed(), Duration::ZERO);
    }
}
