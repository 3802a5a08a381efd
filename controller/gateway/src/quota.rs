//! Quotas: how much a key may ask in a minute. Buckets that fill evenly; pure, time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// So much a minute, a minute's worth at once at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    per_minute: u32,
    left: f64,
    at: Instant,
}

/// What a bucket says of itself in the headers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Until it is full.
    pub(crate) reset: Duration,
}

// === impl Bucket ===

impl Bucket {
    pub(crate) fn full(per_minute: u32, now: Instant) -> Self {
        Self { per_minute, left: f64::from(per_minute), at: now }
    }

    /// Another limit from now on; what was used stays used.
    pub(crate) fn resize(&mut self, per_minute: u32, now: Instant) {
        self.fill(now);
        if self.per_minute != per_minute {
            self.left += f64::from(per_minute) - f64::from(self.per_minute);
            self.per_minute = per_minute;
        }
    }

    /// Takes one, or says when there will be one.
    pub(crate) fn take_one(&mut self, now: Instant) -> Result<(), Duration> {
        self.check(now)?;
        self.left -= 1.0;
        Ok(())
    }

    /// Whether there is anything left, or when there will be.
    pub(crate) fn check(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.left >= 1.0 {
            return Ok(());
        }
        Err(self.until(1.0))
    }

    /// Takes what was used, more than there is if need be: it is known only afterwards.
    pub(crate) fn charge(&mut self, amount: u32, now: Instant) {
        self.fill(now);
        self.left -= f64::from(amount);
    }

    pub(crate) fn level(&mut self, now: Instant) -> Level {
        self.fill(now);
        let remaining = self.left.max(0.0).floor() as u32;
        Level { limit: self.per_minute, remaining, reset: self.until(f64::from(self.per_minute)) }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let most = f64::from(self.per_minute);
        self.left = (self.left + passed * most / 60.0).min(most);
        self.at = now;
    }

    fn until(&self, level: f64) -> Duration {
        let rate = f64::from(self.per_minute.max(1)) / 60.0;
        Duration::try_from_secs_f64(((level - self.left) / rate).max(0.0)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_minutes_worth_at_once_and_fills_evenly() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::full(6, start);
        for _ in 0..6 {
            assert_eq!(bucket.take_one(start), Ok(()));
        }
        assert_eq!(bucket.take_one(start), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take_one(at(9)), Err(Duration::from_secs(1)));
        assert_eq!(bucket.take_one(at(10)), Ok(()));
        assert_eq!(bucket.level(at(40)), Level { limit: 6, remaining: 3, reset: Duration::from_secs(30) });
        bucket.charge(10, at(40));
        assert_eq!(bucket.check(at(40)), Err(Duration::from_secs(80)), "what was used beyond it is paid back first");
        assert_eq!(bucket.level(at(1000)), Level { limit: 6, remaining: 6, reset: Duration::ZERO });
        bucket.resize(3, at(1000));
        assert_eq!(bucket.level(at(1000)).remaining, 3);
    }
}
