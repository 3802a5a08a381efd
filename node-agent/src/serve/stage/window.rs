//! The window: how many chunks of a session may be on their way through a ring at a time. Pure.
//!
//! The tail acknowledges each chunk that it has computed, by an acknowledgement or by the token that it draws; so no stage ever holds more
//! rows of a session than the window, however slow it is beside the one that sends.

use std::collections::VecDeque;
use std::time::Instant;

use polyphony_model::MAX_CHUNKS;

/// The chunks of one session that the tail has not acknowledged.
#[derive(Debug)]
pub(super) struct Window {
    /// The positions that they end before, in order.
    ends: VecDeque<u32>,
    size: usize,
    /// Since when the ring owes an answer.
    since: Option<Instant>,
}

/// Chunks that keep every stage of a ring busy: one each, and one on its way.
pub(super) fn window_of(n_stages: usize) -> usize {
    (n_stages + 1).min(MAX_CHUNKS as usize)
}

// === impl Window ===

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self { ends: VecDeque::new(), size: size.max(1), since: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.ends.len() < self.size
    }

    /// Whether all that was handed over is computed.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Since when the ring has owed an answer: the first chunk of those on their way, or the last acknowledgement.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// A chunk that ends before position `end` is handed over.
    pub(super) fn hand_over(&mut self, end: u32, now: Instant) {
        self.ends.push_back(end);
        self.since.get_or_insert(now);
    }

    /// The tail has computed all positions below `position`. The rest of what is on its way has as long again.
    pub(super) fn acknowledge(&mut self, position: u32, now: Instant) {
        let before = self.ends.len();
        while self.ends.front().is_some_and(|end| *end <= position) {
            self.ends.pop_front();
        }
        if self.ends.is_empty() {
            self.since = None;
        } else if self.ends.len() < before {
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_window_opens_by_what_is_acknowledged_and_each_acknowledgement_gives_the_rest_its_time_anew() {
        let (mut window, now) = (Window::new(window_of(1)), Instant::now());
        window.hand_over(4, now);
        assert!(window.is_open());
        window.hand_over(8, now + Duration::from_secs(1));
        assert!(!window.is_open());
        assert_eq!(window.since(), Some(now));
        window.acknowledge(3, now + Duration::from_secs(2));
        assert_eq!((window.is_open(), window.since()), (false, Some(now)), "half a chunk is none");
        window.acknowledge(4, now + Duration::from_secs(3));
        assert_eq!((window.is_open(), window.since()), (true, Some(now + Duration::from_secs(3))));
        window.acknowledge(9, now + Duration::from_secs(4));
        assert!(window.is_empty() && window.since().is_none());
    }

    #[test]
    fn a_long_ring_has_a_bounded_window() {
        assert_eq!([1, 2, 3, 64].map(window_of), [2, 3, 4, MAX_CHUNKS as usize]);
    }
}
