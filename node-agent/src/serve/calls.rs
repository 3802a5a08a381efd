//! The calls that wait for a compute thread: in order and bounded, also where the thread hangs. What has to come waits for no room.
//!
//! Ordinary calls wait for a place of theirs. Ends come always, for nobody says them twice; where far too many wait, all sessions of the
//! generation end instead, which is one call.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_protocol::PlanGeneration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// What waits.
pub(super) trait Waits {
    /// What it ends, where it has to come.
    fn end(&self) -> Option<End>;
    /// The call that ends all sessions of a generation.
    fn all_over(generation: PlanGeneration) -> Self;
}

/// What a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One session of a generation.
    One(PlanGeneration),
    /// All of them.
    All(PlanGeneration),
}

/// How many ordinary calls wait at most; whoever sends more waits, and so does the ring behind it. What rows they may hold is bounded by
/// the sessions' windows.
pub(super) const QUEUE_CALLS: usize = 1024;
/// Ends of sessions that wait singly.
const MAX_ENDS: usize = 1024;

/// A way in. Clones are the same way.
pub(super) struct Calls<C>(Arc<Shared<C>>);

/// The way out, for the one thread.
pub(super) struct Inbox<C>(Arc<Shared<C>>);

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("the segment no longer runs")]
    Ended,
    #[error("{QUEUE_CALLS} frames wait for the segment already")]
    Full,
}

/// Why no call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

struct Shared<C> {
    waiting: Mutex<Waiting<C>>,
    /// Told of each call that comes in.
    came: Condvar,
    places: Arc<Semaphore>,
}

struct Waiting<C> {
    calls: VecDeque<Placed<C>>,
    /// Ends of single sessions among them that have no place.
    n_ends: usize,
    is_over: bool,
}

/// A call with its place; what has to come has none.
struct Placed<C> {
    call: C,
    place: Option<OwnedSemaphorePermit>,
}

/// A way in and the way out, with so many places for ordinary calls.
pub(super) fn calls<C: Waits>(n_places: usize) -> (Calls<C>, Inbox<C>) {
    let places = Arc::new(Semaphore::new(n_places));
    let waiting = Mutex::new(Waiting { calls: VecDeque::new(), n_ends: 0, is_over: false });
    let shared = Arc::new(Shared { waiting, came: Condvar::new(), places });
    (Calls(shared.clone()), Inbox(shared))
}

// === impl Calls ===

impl<C> Clone for Calls<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Waits> Calls<C> {
    /// Hands a call over; never waits.
    ///
    /// # Errors
    /// When every place is taken, or the thread has ended.
    pub(super) fn try_send(&self, call: C) -> Result<(), Unavailable> {
        let place = self.0.places.clone().try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => Unavailable::Full,
            TryAcquireError::Closed => Unavailable::Ended,
        })?;
        self.0.put(Placed { call, place: Some(place) })
    }

    /// Hands a call over; waits for a place, so that the sender feels it.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(super) async fn send(&self, call: C) -> Result<(), Unavailable> {
        let place = self.0.places.clone().acquire_owned().await.map_err(|_| Unavailable::Ended)?;
        self.0.put(Placed { call, place: Some(place) })
    }

    /// Hands over what has to come: the end of a session, of a stage, of the thread. Never waits.
    pub(super) fn send_at_last(&self, call: C) {
        // A thread that has ended has ended it too.
        let _ = self.0.put(Placed { call, place: None });
    }
}

// === impl Inbox ===

impl<C: Waits> Inbox<C> {
    /// The next call, if one waits.
    pub(super) fn try_recv(&self) -> Option<C> {
        self.0.lock().take()
    }

    /// The next call; [`Late`] at `deadline`.
    pub(super) fn recv_until(&self, deadline: Option<Instant>) -> Result<C, Late> {
        let mut waiting = self.0.lock();
        loop {
            if let Some(call) = waiting.take() {
                return Ok(call);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Late);
            }
            // Whoever has woken it looks again, and so does who was woken for nothing.
            let woken = self.0.came.wait_timeout(waiting, left.unwrap_or(LONG));
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    #[cfg(test)]
    pub(super) fn n_waiting(&self) -> usize {
        self.0.lock().calls.len()
    }
}

/// Between two looks where nothing is due.
const LONG: Duration = Duration::from_secs(3600);

impl<C> Drop for Inbox<C> {
    fn drop(&mut self) {
        self.0.places.close();
        let unheard = {
            let mut waiting = self.0.lock();
            waiting.is_over = true;
            std::mem::take(&mut waiting.calls)
        };
        // Who waits for an answer to one of them sees that none comes.
        drop(unheard);
    }
}

// === impl Shared ===

impl<C> Shared<C> {
    fn put(&self, placed: Placed<C>) -> Result<(), Unavailable>
    where
        C: Waits,
    {
        let mut waiting = self.lock();
        if waiting.is_over {
            return Err(Unavailable::Ended);
        }
        waiting.put(placed);
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<C>> {
        // Nobody panics while half a change is made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl<C: Waits> Waiting<C> {
    fn put(&mut self, placed: Placed<C>) {
        let generation = match placed.unplaced_end() {
            Some(End::One(generation)) => generation,
            Some(End::All(_)) | None => return self.calls.push_back(placed),
        };
        self.n_ends += 1;
        self.calls.push_back(placed);
        if self.n_ends > MAX_ENDS {
            let ends = [End::One(generation), End::All(generation)];
            self.calls.retain(|it| it.unplaced_end().is_none_or(|end| !ends.contains(&end)));
            self.calls.push_back(Placed { call: C::all_over(generation), place: None });
            self.n_ends = self.calls.iter().filter(|it| it.ends_one()).count();
        }
    }

    fn take(&mut self) -> Option<C> {
        let placed = self.calls.pop_front()?;
        self.n_ends -= usize::from(placed.ends_one());
        Some(placed.call)
    }
}

// === impl Placed ===

impl<C: Waits> Placed<C> {
    fn unplaced_end(&self) -> Option<End> {
        if self.place.is_none() { self.call.end() } else { None }
    }

    fn ends_one(&self) -> bool {
        matches!(self.unplaced_end(), Some(End::One(_)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GENERATION: PlanGeneration = PlanGeneration(1);

    #[derive(Debug, PartialEq)]
    enum Call {
        Credit(u64),
        Close(u64),
        AllOver,
        Stop,
    }

    impl Waits for Call {
        fn end(&self) -> Option<End> {
            match self {
                Self::Close(_) => Some(End::One(GENERATION)),
                Self::AllOver => Some(End::All(GENERATION)),
                Self::Credit(_) | Self::Stop => None,
            }
        }

        fn all_over(_: PlanGeneration) -> Self {
            Self::AllOver
        }
    }

    fn heard(inbox: &Inbox<Call>) -> Vec<Call> {
        std::iter::from_fn(|| inbox.try_recv()).collect()
    }

    #[tokio::test]
    async fn ordinary_calls_wait_for_a_place_and_ends_for_none_and_all_come_in_order() {
        let (calls, inbox) = calls(2);
        for session in [1, 2] {
            calls.try_send(Call::Credit(session)).unwrap();
        }
        assert_eq!(calls.try_send(Call::Credit(3)), Err(Unavailable::Full));
        calls.send_at_last(Call::Close(1));
        let waits = tokio::spawn({
            let calls = calls.clone();
            async move { calls.send(Call::Credit(4)).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(inbox.n_waiting(), 3);
        assert_eq!(inbox.try_recv(), Some(Call::Credit(1)));
        waits.await.unwrap().unwrap();
        assert_eq!(heard(&inbox), [Call::Credit(2), Call::Close(1), Call::Credit(4)]);
        assert_eq!(inbox.recv_until(Some(Instant::now())), Err(Late));
    }

    #[test]
    fn a_thread_that_hangs_is_waited_for_by_a_bounded_number_of_ends() {
        let (calls, inbox) = calls(QUEUE_CALLS);
        while calls.try_send(Call::Credit(0)).is_ok() {}
        for session in 1..=10 * MAX_ENDS as u64 {
            calls.send_at_last(Call::Close(session));
            assert!(inbox.n_waiting() <= QUEUE_CALLS + MAX_ENDS + 1, "session {session}");
        }
        calls.send_at_last(Call::Stop);
        let heard = heard(&inbox);
        assert!(heard[..QUEUE_CALLS].iter().all(|call| *call == Call::Credit(0)), "what came before comes before");
        assert_eq!(heard[QUEUE_CALLS], Call::AllOver);
        let singly = &heard[QUEUE_CALLS + 1..heard.len() - 1];
        let last = 10 * MAX_ENDS as u64;
        let expected = (last + 1 - singly.len() as u64..=last).map(Call::Close);
        assert!(singly.iter().eq(&expected.collect::<Vec<_>>()), "those after it come singly: {singly:?}");
        assert_eq!(heard.last(), Some(&Call::Stop));
        assert_eq!(calls.try_send(Call::Credit(1)), Ok(()), "every place is free again");
    }

    #[tokio::test]
    async fn who_waits_for_a_thread_that_ends_is_told() {
        let (calls, inbox) = calls(1);
        calls.try_send(Call::Credit(1)).unwrap();
        let (sent, ()) = tokio::join!(calls.send(Call::Credit(2)), async { drop(inbox) });
        assert_eq!(sent, Err(Unavailable::Ended));
        assert_eq!(calls.try_send(Call::Credit(3)), Err(Unavailable::Ended));
        calls.send_at_last(Call::Close(1));
    }

    #[test]
    fn a_thread_that_waits_hears_what_comes_from_another() {
        let (calls, inbox) = calls(1);
        let thread = std::thread::spawn(move || inbox.recv_until(None));
        calls.try_send(Call::Credit(7)).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(Call::Credit(7)));
    }
}
