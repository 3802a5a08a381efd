//! Early frames: an encoder's output that came before its session did, since a skip edge is shorter than the way through the ring. Pure.
//!
//! So many rows are kept at most, and of a session no more than it has positions; the oldest makes room. A session that misses them later
//! is replayed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use polyphony_protocol::RouteKey;
use polyphony_protocol::frame::Hidden;

/// The frames that came early.
pub(super) struct Early {
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    /// Of all sessions.
    max_rows: usize,
    /// Of one.
    n_positions: usize,
}

struct Waiting {
    key: RouteKey,
    frames: Vec<Hidden>,
    n_rows: usize,
    since: Instant,
}

// === impl Early ===

impl Early {
    /// Room for so many rows in all, and for so many of a session.
    pub(super) fn new(max_rows: usize, n_positions: usize) -> Self {
        Self { waiting: VecDeque::new(), max_rows, n_positions }
    }

    /// Keeps a frame. One of a later epoch takes the place of what was kept of the session; what is over a bound is dropped.
    pub(super) fn keep(&mut self, hidden: Hidden, now: Instant) {
        let key = hidden.key;
        let n_rows = hidden.n_tokens as usize;
        self.forget_before(key);
        if !(1..=self.n_positions.min(self.max_rows)).contains(&n_rows) {
            return;
        }
        // As it came it is a part of all that came with it, and would keep that in memory.
        let hidden = Hidden { payload: Bytes::copy_from_slice(&hidden.payload), ..hidden };
        match self.waiting.iter_mut().find(|it| it.key.session == key.session) {
            Some(it) if it.key == key && it.n_rows + n_rows <= self.n_positions => {
                it.n_rows += n_rows;
                it.frames.push(hidden);
            }
            Some(_) => {}
            None => self.waiting.push_back(Waiting { key, frames: vec![hidden], n_rows, since: now }),
        }
        while self.n_rows() > self.max_rows {
            self.waiting.pop_front();
        }
    }

    fn n_rows(&self) -> usize {
        self.waiting.iter().map(|it| it.n_rows).sum()
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

    #[cfg(test)]
    pub(super) fn n_bytes(&self) -> usize {
        self.waiting.iter().flat_map(|it| &it.frames).map(|hidden| hidden.payload.len()).sum()
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
        let (mut early, now) = (Early::new(10, 5), Instant::now());
        for n_tokens in [2, 3, 1, 0] {
            early.keep(hidden(1, 1, n_tokens), now);
        }
        early.keep(hidden(2, 1, 6), now);
        assert_eq!(early.take(hidden(2, 1, 0).key), [], "more rows than a session has");
        assert_eq!(early.take(hidden(1, 1, 0).key), [hidden(1, 1, 2), hidden(1, 1, 3)]);
        assert_eq!(early.take(hidden(1, 1, 0).key), []);
        for session in [3, 4, 5] {
            early.keep(hidden(session, 1, 4), now);
        }
        assert_eq!(early.take(hidden(3, 1, 0).key), [], "the oldest made room");
        assert_eq!([4, 5].map(|session| early.take(hidden(session, 1, 0).key).len()), [1, 1]);
        early.keep(hidden(6, 1, 0), now);
        assert_eq!(early.oldest(), None, "frames without rows would be without end");
    }

    #[test]
    fn an_ended_an_older_and_a_forgotten_session_leave_nothing() {
        let (mut early, now) = (Early::new(99, 9), Instant::now());
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
