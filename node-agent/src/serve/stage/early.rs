//! Early frames: an encoder's output that came before its session did, since a skip edge is shorter than the way through the ring. Pure.
//!
//! Kept for so many sessions at most and so many rows of each; the oldest makes room. A session that misses them later is replayed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use polyphony_protocol::RouteKey;
use polyphony_protocol::frame::Hidden;

/// The frames that came early.
pub(super) struct Early {
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    max_sessions: usize,
    max_rows: usize,
}

struct Waiting {
    key: RouteKey,
    frames: Vec<Hidden>,
    n_rows: usize,
    since: Instant,
}

// === impl Early ===

impl Early {
    /// Room for so many sessions, of so many rows each.
    pub(super) fn new(max_sessions: usize, max_rows: usize) -> Self {
        Self { waiting: VecDeque::new(), max_sessions: max_sessions.max(1), max_rows }
    }

    /// Keeps a frame. One of a later epoch takes the place of what was kept of the session; what is over a bound is dropped.
    pub(super) fn keep(&mut self, hidden: Hidden, now: Instant) {
        let key = hidden.key;
        let n_rows = hidden.n_tokens as usize;
        self.forget_before(key);
        if n_rows > self.max_rows {
            return;
        }
        match self.waiting.iter_mut().find(|it| it.key.session == key.session) {
            Some(it) if it.key == key && it.n_rows + n_rows <= self.max_rows => {
                it.n_rows += n_rows;
                it.frames.push(hidden);
            }
            Some(_) => {}
            None => {
                if self.waiting.len() == self.max_sessions {
                    self.waiting.pop_front();
                }
                self.waiting.push_back(Waiting { key, frames: vec![hidden], n_rows, since: now });
            }
        }
    }

    /// The frames of a session that has come; those of its earlier epochs go.
    pub(super) fn take(&mut self, key: RouteKey) -> Vec<Hidden> {
        self.forget_before(key);
        let index = self.waiting.iter().position(|it| it.key == key);
        index.and_then(|index| self.waiting.remove(index)).map(|it| it.frames).unwrap_or_default()
    }

    /// The session has ended in this epoch.
    pub(super) fn forget(&mut self, key: RouteKey) {
        self.waiting.retain(|it| it.key.session != key.session || it.key.epoch > key.epoch);
    }

    /// Since when the oldest has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.iter().map(|it| it.since).min()
    }

    pub(super) fn expire(&mut self, now: Instant, deadline: Duration) {
        self.waiting.retain(|it| now.duration_since(it.since) <= deadline);
    }

    fn forget_before(&mut self, key: RouteKey) {
        self.waiting.retain(|it| it.key.session != key.session || it.key.epoch >= key.epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyphony_protocol::frame::HiddenKind;
    use polyphony_protocol::{ActivationType, Epoch, PlanGeneration, RingId, SessionId};

    fn hidden(session: u64, epoch: u32, n_tokens: u32) -> Hidden {
        let key = RouteKey {
            ring: RingId(1),
            generation: PlanGeneration(1),
            session: SessionId(session),
            epoch: Epoch(epoch),
        };
        let (dtype, kind) = (ActivationType::F32, HiddenKind::Encoded);
        Hidden { key, position: 0, n_tokens, dtype, kind, sample: false, payload: vec![0; 4].into() }
    }

    #[test]
    fn frames_wait_for_their_session_in_order_and_within_bounds() {
        let (mut early, now) = (Early::new(2, 5), Instant::now());
        for n_tokens in [2, 3, 1] {
            early.keep(hidden(1, 1, n_tokens), now);
        }
        early.keep(hidden(2, 1, 6), now);
        assert_eq!(early.take(hidden(2, 1, 0).key), [], "more rows than a session has");
        assert_eq!(early.take(hidden(1, 1, 0).key), [hidden(1, 1, 2), hidden(1, 1, 3)]);
        assert_eq!(early.take(hidden(1, 1, 0).key), []);
        for session in [3, 4, 5] {
            early.keep(hidden(session, 1, 1), now);
        }
        assert_eq!(early.take(hidden(3, 1, 0).key), [], "the oldest made room");
        assert_eq!(early.take(hidden(5, 1, 0).key).len(), 1);
    }

    #[test]
    fn an_ended_an_older_and_a_forgotten_session_leave_nothing() {
        let (mut early, now) = (Early::new(9, 9), Instant::now());
        early.keep(hidden(1, 1, 1), now);
        early.keep(hidden(1, 2, 2), now);
        early.keep(hidden(1, 1, 3), now);
        early.forget(hidden(1, 1, 0).key);
        assert_eq!(early.take(hidden(1, 2, 0).key), [hidden(1, 2, 2)]);
        early.keep(hidden(2, 1, 1), now);
        early.forget(hidden(2, 1, 0).key);
        assert_eq!(early.take(hidden(2, 1, 0).key), []);
        early.keep(hidden(3, 1, 1), now);
        early.expire(now + Duration::from_secs(9), Duration::from_secs(8));
        assert_eq!(early.take(hidden(3, 1, 0).key), []);
    }
}
