//! Lanes: what waits for a link. Frames of the link itself overtake; those of sessions keep their order, within a bound of frames and bytes.
//!
//! Rows of a session that is closed meanwhile do not go out: a link that is slower than its clients change their minds carries what is wanted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_protocol::{Frame, RouteKey};
use tokio::sync::Notify;

/// How much of sessions may wait for a link at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    pub frames: usize,
    /// Of rows: all else is small.
    pub bytes: usize,
}

/// Where frames go in. Clones are the same entrance.
#[derive(Clone)]
pub struct Entrance {
    shared: Arc<Shared>,
    limits: LaneLimits,
    _open: Arc<Open>,
}

/// Where they come out.
pub struct Lanes {
    shared: Arc<Shared>,
}

/// Why a frame does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    /// As much waits as may.
    Full,
    /// Nobody takes frames out any more.
    Closed,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Told of whatever changes there.
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    overtaking: VecDeque<Frame>,
    frames: VecDeque<Frame>,
    /// Of rows.
    n_bytes: usize,
    /// Nobody puts frames in any more.
    has_no_entrance: bool,
    /// Nobody takes them out.
    has_no_exit: bool,
}

/// Dropped with the last entrance.
struct Open(Arc<Shared>);

/// Frames of the link itself that may wait: a link that does not take them is told so by its pongs that are missing.
const OVERTAKING_FRAMES: usize = 4;

/// An entrance, and where its frames come out.
pub fn lanes(limits: LaneLimits) -> (Entrance, Lanes) {
    let shared = Arc::<Shared>::default();
    let open = Arc::new(Open(shared.clone()));
    (Entrance { shared: shared.clone(), limits, _open: open }, Lanes { shared })
}

// === impl Entrance ===

impl Entrance {
    /// Queues a frame of a session behind all others; never waits.
    ///
    /// # Errors
    /// When as much waits as may, or nobody takes it.
    pub fn queue(&self, frame: Frame) -> Result<(), NoEntry> {
        let mut waiting = self.shared.lock();
        if let Frame::Close { key } = frame {
            waiting.forget_rows(key);
        }
        let n_bytes = waiting.n_bytes.saturating_add(row_bytes(&frame));
        if waiting.has_no_exit {
            return Err(NoEntry::Closed);
        }
        if waiting.frames.len() >= self.limits.frames || n_bytes > self.limits.bytes {
            return Err(NoEntry::Full);
        }
        waiting.n_bytes = n_bytes;
        waiting.frames.push_back(frame);
        drop(waiting);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Lets a frame of the link itself go before all that waits; never waits.
    ///
    /// # Errors
    /// When a few of them wait already, or nobody takes it.
    pub fn overtake(&self, frame: Frame) -> Result<(), NoEntry> {
        let mut waiting = self.shared.lock();
        if waiting.has_no_exit {
            return Err(NoEntry::Closed);
        }
        if waiting.overtaking.len() >= OVERTAKING_FRAMES {
            return Err(NoEntry::Full);
        }
        waiting.overtaking.push_back(frame);
        drop(waiting);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Rows of a session that wait need not go out: it is over.
    pub fn forget_rows(&self, key: RouteKey) {
        self.shared.lock().forget_rows(key);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().has_no_entrance = true;
        self.0.changed.notify_one();
    }
}

// === impl Lanes ===

impl Lanes {
    /// The next frame; `None` when every entrance is closed and nothing waits. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.try_next() {
                return Some(frame);
            }
            if self.shared.lock().has_no_entrance {
                // What came in just before that.
                return self.try_next();
            }
            self.shared.changed.notified().await;
        }
    }

    /// The next frame, if one waits.
    pub fn try_next(&mut self) -> Option<Frame> {
        let mut waiting = self.shared.lock();
        if let Some(frame) = waiting.overtaking.pop_front() {
            return Some(frame);
        }
        let frame = waiting.frames.pop_front()?;
        waiting.n_bytes -= row_bytes(&frame);
        Some(frame)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        *self.shared.lock() = Waiting { has_no_exit: true, ..Waiting::default() };
    }
}

// === impl Shared ===

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nobody panics while half a change is made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn forget_rows(&mut self, key: RouteKey) {
        let is_over = |frame: &Frame| {
            let Frame::Hidden(hidden) = frame else { return false };
            let of = hidden.key;
            (of.ring, of.generation, of.session) == (key.ring, key.generation, key.session) && of.epoch <= key.epoch
        };
        self.frames.retain(|frame| !is_over(frame));
        self.n_bytes = self.frames.iter().map(row_bytes).sum();
    }
}

fn row_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Hidden(hidden) => hidden.payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_protocol::frame::{Hidden, HiddenKind};
    use polyphony_protocol::{ActivationType, Epoch, PlanGeneration, RingId, SessionId};

    use super::*;

    fn key(session: u64, epoch: u32) -> RouteKey {
        let (ring, generation) = (RingId(1), PlanGeneration(1));
        RouteKey { ring, generation, session: SessionId(session), epoch: Epoch(epoch) }
    }

    fn rows_of(key: RouteKey, n_bytes: usize) -> Frame {
        let (dtype, kind, payload) = (ActivationType::F32, HiddenKind::Decoding, vec![0; n_bytes].into());
        Frame::Hidden(Hidden { key, position: 0, n_tokens: 1, dtype, kind, sample: false, payload })
    }

    fn rows(n_bytes: usize) -> Frame {
        rows_of(key(1, 1), n_bytes)
    }

    #[tokio::test]
    async fn frames_of_the_link_overtake_and_the_others_keep_their_order() {
        let (entrance, mut waiting) = lanes(LaneLimits { frames: 8, bytes: 100 });
        entrance.queue(rows(1)).unwrap();
        entrance.queue(rows(2)).unwrap();
        entrance.overtake(Frame::Ping { nonce: 1 }).unwrap();
        assert_eq!(waiting.next().await, Some(Frame::Ping { nonce: 1 }));
        assert_eq!(waiting.try_next(), Some(rows(1)));
        entrance.overtake(Frame::Ping { nonce: 2 }).unwrap();
        assert_eq!(waiting.try_next(), Some(Frame::Ping { nonce: 2 }));
        let other = entrance.clone();
        drop(entrance);
        assert_eq!(waiting.next().await, Some(rows(2)));
        // Who waits already is told of what comes, and of the end.
        let (end, ()) = tokio::join!(async { (waiting.next().await, waiting.next().await) }, async {
            tokio::task::yield_now().await;
            other.queue(rows(3)).unwrap();
            drop(other);
        });
        assert_eq!(end, (Some(rows(3)), None));
    }

    #[tokio::test]
    async fn rows_wait_up_to_a_bound_of_bytes_and_all_frames_up_to_one_of_frames() {
        let (entrance, mut waiting) = lanes(LaneLimits { frames: 3, bytes: 10 });
        assert_eq!([6, 5, 4].map(|n_bytes| entrance.queue(rows(n_bytes))), [Ok(()), Err(NoEntry::Full), Ok(())]);
        assert_eq!([(); 2].map(|()| entrance.queue(Frame::Accepted)), [Ok(()), Err(NoEntry::Full)]);
        assert_eq!(waiting.next().await, Some(rows(6)));
        assert_eq!(entrance.queue(rows(6)), Ok(()), "what is out leaves its place");
        let pings = [(); OVERTAKING_FRAMES + 1].map(|()| entrance.overtake(Frame::Ping { nonce: 1 }));
        assert_eq!(pings.into_iter().filter(Result::is_err).count(), 1, "full or not, some pings find room");
        drop(waiting);
        assert_eq!(entrance.queue(Frame::Accepted), Err(NoEntry::Closed));
    }

    #[test]
    fn rows_of_a_session_that_is_closed_neither_go_out_nor_take_room() {
        let (entrance, mut waiting) = lanes(LaneLimits { frames: 9, bytes: 10 });
        // Session after session is begun and given up, on a link that carries nothing.
        for session in 1..=5 {
            entrance.queue(rows_of(key(session, 1), 10)).unwrap();
            entrance.queue(Frame::Close { key: key(session, 1) }).unwrap();
        }
        entrance.queue(rows_of(key(1, 2), 6)).unwrap();
        entrance.queue(rows_of(key(6, 1), 4)).unwrap();
        entrance.queue(Frame::Close { key: key(1, 1) }).unwrap();
        entrance.forget_rows(key(6, 1));
        let left: Vec<Frame> = std::iter::from_fn(|| waiting.try_next()).collect();
        let close = |session| Frame::Close { key: key(session, 1) };
        let closes = (1..=5).map(close);
        let expected: Vec<Frame> = closes.chain([rows_of(key(1, 2), 6), close(1)]).collect();
        assert_eq!(left, expected, "a later epoch is another session");
    }
}
