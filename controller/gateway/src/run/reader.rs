//! Reader: how long a client may leave its answer unread. Pure.
//!
//! Each piece has its time. All together have that time once more, and as long again as the ring took to compute: who takes one piece
//! at each last moment would hold a place for hours otherwise.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Reader {
    patience: Duration,
    /// Said, and not taken by the client's queue.
    n_unread: u32,
    /// When the first of these came to be the first.
    unread_since: Option<Instant>,
    /// How long something lay unread before that.
    waited: Duration,
    /// How long the ring computed.
    computed: Duration,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, n_unread: 0, unread_since: None, waited: Duration::ZERO, computed: Duration::ZERO }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn n_unread(&self) -> u32 {
        self.n_unread
    }

    /// The ring took so long for a token.
    pub(super) fn computed(&mut self, took: Duration) {
        self.computed += took;
    }

    pub(super) fn told(&mut self, now: Instant) {
        self.n_unread += 1;
        self.unread_since.get_or_insert(now);
    }

    pub(super) fn took(&mut self, now: Instant) {
        self.n_unread = self.n_unread.saturating_sub(1);
        if let Some(since) = self.unread_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.unread_since = (self.n_unread > 0).then_some(now);
    }

    /// When the client has had its time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.unread_since?;
        let left = (self.patience + self.computed).saturating_sub(self.waited);
        Some(since + left.min(self.patience))
    }

    /// What is not taken yet is forgotten; the last word has the whole time again.
    pub(super) fn give_up(&mut self) {
        *self = Self::new(self.patience);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_piece_has_its_time() {
        let now = Instant::now();
        let mut reader = Reader::new(10 * SECOND);
        assert_eq!(reader.deadline(), None);
        reader.told(now);
        reader.told(now + 5 * SECOND);
        assert_eq!(reader.deadline(), Some(now + 10 * SECOND), "of the first");
        reader.took(now + SECOND);
        assert_eq!(reader.deadline(), Some(now + 10 * SECOND), "of all, where the ring took no time");
        reader.took(now + 2 * SECOND);
        assert_eq!(reader.deadline(), None);
    }

    #[test]
    fn who_takes_each_piece_at_the_last_moment_loses_its_place_after_a_few() {
        let mut now = Instant::now();
        let mut reader = Reader::new(10 * SECOND);
        let mut n_taken = 0;
        loop {
            reader.computed(SECOND);
            reader.told(now);
            let last_moment = now + 9 * SECOND;
            if reader.deadline().unwrap() <= last_moment {
                break;
            }
            reader.took(last_moment);
            now = last_moment;
            n_taken += 1;
        }
        assert_eq!(n_taken, 1);
    }

    #[test]
    fn who_keeps_up_with_the_ring_may_read_for_ever() {
        let mut now = Instant::now();
        let mut reader = Reader::new(10 * SECOND);
        for _ in 0..10_000 {
            reader.computed(SECOND);
            reader.told(now);
            now += SECOND;
            assert!(reader.deadline().unwrap() > now);
            reader.took(now);
        }
    }
}
