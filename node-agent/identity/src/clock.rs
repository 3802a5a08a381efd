//! Clocks: the installation's time. A host's is its system's; an agent's is what the hub tells it, since phones' clocks are wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::time_provider::TimeProvider;

/// The time that certificates are judged by. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Kind>);

#[derive(Debug)]
enum Kind {
    System,
    Told(Mutex<Told>),
}

/// What was told last, and when that was by a clock that nobody sets and that goes on while the device sleeps.
#[derive(Clone, Copy, Debug)]
struct Told {
    seconds: u64,
    at: Duration,
}

// === impl Clock ===

impl Clock {
    /// This machine's own.
    pub fn system() -> Self {
        Self(Arc::new(Kind::System))
    }

    /// One that begins at `least`, a time that has surely passed, in seconds of Unix; a hub tells it more.
    pub fn told(least: u64) -> Self {
        Self(Arc::new(Kind::Told(Mutex::new(Told { seconds: least, at: since_boot() }))))
    }

    /// Seconds of Unix. Of a clock that is told: never more than the hub's own, and never less than it once was.
    pub fn now(&self) -> u64 {
        match self.0.as_ref() {
            Kind::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            Kind::Told(told) => {
                let told = *lock(told);
                told.seconds.saturating_add(since_boot().saturating_sub(told.at).as_secs())
            }
        }
    }

    /// The hub says that it is `seconds`. Time does not run back: what has passed has passed. Of the system's clock nothing changes.
    pub fn tell(&self, seconds: u64) {
        let now = self.now();
        if let Kind::Told(told) = self.0.as_ref() {
            *lock(told) = Told { seconds: seconds.max(now), at: since_boot() };
        }
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now())))
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    // Nobody panics while half of it is written.
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_clock_goes_by_the_hub_and_never_back() {
        let clock = Clock::told(1000);
        assert!((1000..1010).contains(&clock.now()));
        clock.tell(5000);
        assert!((5000..5010).contains(&clock.clone().now()));
        clock.tell(3000);
        assert!((5000..5010).contains(&clock.now()), "a host whose clock was set back is no younger for it");
    }
}
