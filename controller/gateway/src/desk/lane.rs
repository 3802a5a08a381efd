//! Lane: bytes that are given out in a fair order. Who asks for little goes before who asks for much at the same time, and yet much is not
//! put off for ever.
//!
//! Fair queueing by start and size: a request is due at the lane's clock when it comes and as much later as it is long; the least is next, and
//! sets the clock. Nobody overtakes who is next, however long that waits for room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

pub(super) struct Lane {
    n_bytes: usize,
    queue: Mutex<Queue>,
    n_waiting: watch::Sender<usize>,
}

#[derive(Default)]
struct Queue {
    n_free: usize,
    /// When who was let in last was due.
    clock: u64,
    /// By when they are due, and who came first.
    waiting: BTreeMap<(u64, u64), Waits>,
    n_came: u64,
}

struct Waits {
    n_bytes: usize,
    /// Takes what the lane gives, if it is still wanted.
    give: oneshot::Sender<Taken>,
}

/// What is taken of a lane; given back when dropped.
pub(super) struct Taken {
    lane: Arc<Lane>,
    n_bytes: usize,
}

/// A place in the queue, left when dropped.
struct Ticket<'a> {
    lane: &'a Arc<Lane>,
    due: (u64, u64),
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(n_bytes: usize) -> Arc<Self> {
        let queue = Mutex::new(Queue { n_free: n_bytes, ..Queue::default() });
        Arc::new(Self { n_bytes, queue, n_waiting: watch::Sender::new(0) })
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Takes so many bytes, or all where there are no more. Cancelling loses nothing.
    pub(super) async fn take(self: &Arc<Self>, n_bytes: usize) -> Taken {
        let n_bytes = n_bytes.min(self.n_bytes);
        let (give, given) = oneshot::channel();
        let due = self.lock().enter(Waits { n_bytes, give });
        let _ticket = Ticket { lane: self, due };
        self.settle();
        given.await.expect("only who waits leaves its place in the queue")
    }

    /// Lets in who can be, and says how many wait.
    fn settle(self: &Arc<Self>) {
        let mut let_in = Vec::new();
        let n_waiting = {
            let mut queue = self.lock();
            while let Some(next) = queue.next() {
                let_in.push(next);
            }
            queue.waiting.len()
        };
        self.n_waiting.send_if_modified(|known| std::mem::replace(known, n_waiting) != n_waiting);
        for Waits { n_bytes, give } in let_in {
            // Who is gone gives it back by that.
            drop(give.send(Taken { lane: self.clone(), n_bytes }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No method leaves it half-written.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Queue ===

impl Queue {
    fn enter(&mut self, waits: Waits) -> (u64, u64) {
        let due = (self.clock.saturating_add(waits.n_bytes as u64), self.n_came);
        self.n_came += 1;
        self.waiting.insert(due, waits);
        due
    }

    /// Who is let in now.
    fn next(&mut self) -> Option<Waits> {
        let first = self.waiting.first_entry().filter(|first| first.get().n_bytes <= self.n_free)?;
        let ((clock, _), waits) = first.remove_entry();
        self.clock = self.clock.max(clock);
        self.n_free -= waits.n_bytes;
        Some(waits)
    }
}

// === impl Taken ===

impl Taken {
    /// Gives back all but so many bytes.
    pub(super) fn shrink_to(&mut self, n_bytes: usize) {
        let surplus = self.n_bytes.saturating_sub(n_bytes);
        self.n_bytes -= surplus;
        self.lane.lock().n_free += surplus;
        self.lane.settle();
    }

    /// Ends when somebody waits for room in the same lane at `moment`, or after it.
    pub(super) async fn is_wanted_from(&self, moment: Instant) {
        sleep_until(moment).await;
        // The sender lives as long as the lane.
        let _ = self.lane.n_waiting.subscribe().wait_for(|n_waiting| *n_waiting > 0).await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

// === impl Ticket ===

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        // Others may have waited behind it for less.
        let has_left = self.lane.lock().waiting.remove(&self.due).is_some();
        if has_left {
            self.lane.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::Pin;

    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    /// Asks for so much, and has it or waits.
    fn ask(lane: &Arc<Lane>, n_bytes: usize) -> (BoxFuture<'static, Taken>, Option<Taken>) {
        let lane = lane.clone();
        let mut asked: BoxFuture<'static, Taken> = Box::pin(async move { lane.take(n_bytes).await });
        let taken = now(&mut asked);
        (asked, taken)
    }

    fn now(asked: &mut BoxFuture<'static, Taken>) -> Option<Taken> {
        Pin::new(asked).now_or_never()
    }

    #[test]
    fn who_asks_for_little_goes_before_who_asks_for_much_and_much_is_not_put_off_for_ever() {
        let lane = Lane::new(100);
        let (_, mut held) = ask(&lane, 1000);
        assert_eq!(held.as_ref().unwrap().n_bytes, 100, "there is no more");
        let (mut much, _) = ask(&lane, 100);
        // There is always one more that asks for little.
        let mut n_before = 0;
        let much = loop {
            let (mut little, taken) = ask(&lane, 30);
            drop(held.take());
            if let Some(much) = now(&mut much) {
                break much;
            }
            held = taken.or_else(|| now(&mut little));
            n_before += 1;
        };
        assert_eq!((much.n_bytes, n_before), (100, 3), "as many as are as long together");
    }

    #[test]
    fn who_goes_away_lets_in_who_waits_behind() {
        let lane = Lane::new(100);
        let (_, held) = ask(&lane, 60);
        let (much, _) = ask(&lane, 50);
        let (_, little) = ask(&lane, 30);
        assert!(little.is_some(), "it is due before, and there is room");
        drop(little);
        let (mut behind, taken) = ask(&lane, 40);
        assert!(taken.is_none(), "the room of who is next is given to nobody else");
        drop(much);
        assert!(now(&mut behind).is_some());
        drop(held);
        assert_eq!((lane.lock().n_free, *lane.n_waiting.borrow()), (100, 0));
    }

    #[tokio::test]
    async fn who_holds_room_hears_that_others_wait_for_it() {
        let lane = Lane::new(100);
        let (_, held) = ask(&lane, 100);
        let mut held = held.unwrap();
        assert_eq!(*lane.n_waiting.borrow(), 0);
        let (mut waits, _) = ask(&lane, 10);
        held.is_wanted_from(Instant::now()).await;
        held.shrink_to(90);
        assert!(now(&mut waits).is_some());
        assert_eq!(*lane.n_waiting.borrow(), 0);
    }
}
