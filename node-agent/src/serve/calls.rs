//! The calls that wait for a compute thread: in order and bounded, also where the thread hangs. What has to come waits for no room.
//!
//! Ordinary calls wait for a place of theirs, for as long as the thread takes any: one that takes none hangs, and who waits is told so.
//! Ends come always, for nobody says them twice; where far too many wait, all sessions of the generation end instead, which is one call.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polyphony_protocol::PlanGeneration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;

/// What waits.
pub(super) trait Waits {
    /// What it ends, where it has to come.
    fn end(&self) -> Option<End>;
    /// Whether it says again, of all that there is by now, what an earlier end said.
    fn repeats(&self, earlier: &Self) -> bool;
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
    /// What the thread itself began, so that there are no more of them than it has room for.
    Own,
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
    #[error(
        "the segment hangs: frames wait for it, and it has taken none for {} s; where that lasts, restart the agent, or give the phone another --backend",
        .0.as_secs_f32()
    )]
    Hung(Duration),
}

/// Why no call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

struct Shared<C> {
    waiting: Mutex<Waiting<C>>,
    /// Told of each call that comes in.
    came: Condvar,
    places: Arc<Semaphore>,
    /// How long the thread may take none of the calls that wait.
    patience: Duration,
    /// It took none for longer, with every place taken: it is given up.
    hung: CancellationToken,
}

struct Waiting<C> {
    calls: VecDeque<Placed<C>>,
    /// When one was last taken, or came where none waited.
    moved_at: Instant,
    /// Ends of single sessions among them that have no place.
    n_ends: usize,
    is_over: bool,
}

/// A call with its place; what has to come has none.
struct Placed<C> {
    call: C,
    place: Option<OwnedSemaphorePermit>,
}

/// A way in and the way out, with so many places for ordinary calls, of which a thread that lives takes one within `patience`.
pub(super) fn calls<C: Waits>(n_places: usize, patience: Duration) -> (Calls<C>, Inbox<C>) {
    let places = Arc::new(Semaphore::new(n_places));
    let waiting = Waiting { calls: VecDeque::new(), moved_at: Instant::now(), n_ends: 0, is_over: false };
    let (waiting, came, hung) = (Mutex::new(waiting), Condvar::new(), CancellationToken::new());
    let shared = Arc::new(Shared { waiting, came, places, patience, hung });
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
    /// When every place is taken, or the thread hangs or has ended.
    pub(super) fn try_send(&self, call: C) -> Result<(), Unavailable> {
        match self.0.places.clone().try_acquire_owned() {
            Ok(place) => self.0.put(Placed { call, place: Some(place) }),
            Err(TryAcquireError::Closed) => Err(Unavailable::Ended),
            Err(TryAcquireError::NoPermits) => Err(self.0.stands_still().err().unwrap_or(Unavailable::Full)),
        }
    }

    /// Hands a call over; waits for a place, so that the sender feels it, for as long as the thread takes any.
    ///
    /// # Errors
    /// When the thread hangs or has ended.
    pub(super) async fn send(&self, call: C) -> Result<(), Unavailable> {
        let place = self.unless_hung(self.0.places.clone().acquire_owned()).await?;
        self.0.put(Placed { call, place: Some(place.map_err(|_| Unavailable::Ended)?) })
    }

    /// What comes of `wait`, which waits for the thread, for as long as that takes any call.
    ///
    /// # Errors
    /// When it hangs.
    pub(super) async fn unless_hung<T>(&self, wait: impl Future<Output = T>) -> Result<T, Unavailable> {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                came = wait.as_mut() => return Ok(came),
                () = tokio::time::sleep_until(self.0.due().into()) => self.0.stands_still()?,
            }
        }
    }

    /// Waits until the thread is given up, and says why.
    pub(super) async fn hung(&self) -> Unavailable {
        self.0.hung.cancelled().await;
        Unavailable::Hung(self.0.patience)
    }

    pub(super) fn is_hung(&self) -> bool {
        self.0.hung.is_cancelled()
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
        if waiting.calls.is_empty() {
            waiting.moved_at = Instant::now();
        }
        waiting.put(placed);
        drop(waiting);
        self.came.notify_one();
        Ok(())
    }

    /// When the thread hangs, unless it takes a call before.
    fn due(&self) -> Instant {
        let waiting = self.lock();
        let since = if waiting.calls.is_empty() { Instant::now() } else { waiting.moved_at };
        since + self.patience
    }

    /// # Errors
    /// When the thread takes none of the calls that wait. It is given up where no more can wait: else only who asks gives up.
    fn stands_still(&self) -> Result<(), Unavailable> {
        if self.due() > Instant::now() {
            return Ok(());
        }
        if self.places.available_permits() == 0 {
            self.hung.cancel();
        }
        Err(Unavailable::Hung(self.patience))
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
            Some(End::All(_)) => {
                self.calls.retain(|it| it.place.is_some() || !placed.call.repeats(&it.call));
                return self.calls.push_back(placed);
            }
            Some(End::Own) | None => return self.calls.push_back(placed),
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
        self.moved_at = Instant::now();
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
        PeerLost(&'static str),
        Pulled(u64),
        AllOver,
        Stop,
    }

    /// Never over in a test.
    const LONG_PATIENCE: Duration = Duration::from_secs(3600);

    impl Waits for Call {
        fn end(&self) -> Option<End> {
            match self {
                Self::Close(_) => Some(End::One(GENERATION)),
                Self::AllOver | Self::PeerLost(_) => Some(End::All(GENERATION)),
                Self::Pulled(_) => Some(End::Own),
                Self::Credit(_) | Self::Stop => None,
            }
        }

        fn repeats(&self, earlier: &Self) -> bool {
            matches!((self, earlier), (Self::PeerLost(now), Self::PeerLost(before)) if now == before)
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
        let (calls, inbox) = calls(2, LONG_PATIENCE);
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
        let (calls, inbox) = calls(QUEUE_CALLS, LONG_PATIENCE);
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
        let (calls, inbox) = calls(1, LONG_PATIENCE);
        calls.try_send(Call::Credit(1)).unwrap();
        let (sent, ()) = tokio::join!(calls.send(Call::Credit(2)), async { drop(inbox) });
        assert_eq!(sent, Err(Unavailable::Ended));
        assert_eq!(calls.try_send(Call::Credit(3)), Err(Unavailable::Ended));
        calls.send_at_last(Call::Close(1));
    }

    #[tokio::test]
    async fn who_waits_for_a_thread_that_takes_nothing_is_told_and_where_none_may_wait_any_more_it_is_given_up() {
        let patience = Duration::from_millis(50);
        let (calls, inbox) = calls(2, patience);
        calls.try_send(Call::Credit(1)).unwrap();
        let forever = std::future::pending::<()>();
        assert_eq!(calls.unless_hung(forever).await, Err(Unavailable::Hung(patience)));
        assert!(!calls.is_hung(), "others may still come");
        calls.try_send(Call::Credit(2)).unwrap();
        assert_eq!(calls.send(Call::Credit(3)).await, Err(Unavailable::Hung(patience)));
        assert_eq!(calls.try_send(Call::Credit(4)), Err(Unavailable::Hung(patience)));
        assert_eq!(calls.hung().await, Unavailable::Hung(patience));
        assert_eq!(inbox.n_waiting(), 2);
    }

    #[tokio::test]
    async fn a_thread_that_takes_a_call_now_and_then_is_slow_and_does_not_hang() {
        let patience = Duration::from_secs(2);
        let (calls, inbox) = calls(1, patience);
        // Longer in all than the patience, and never as long between two calls.
        let n_calls = 12;
        let slow = std::thread::spawn(move || {
            for _ in 0..n_calls {
                std::thread::sleep(patience / 8);
                inbox.recv_until(None).unwrap();
            }
        });
        for session in 0..n_calls {
            calls.send(Call::Credit(session)).await.unwrap();
        }
        slow.join().unwrap();
        assert!(!calls.is_hung());
    }

    #[test]
    fn an_end_of_all_is_waited_for_once_and_then_ends_what_came_between() {
        let (calls, inbox) = calls(2, LONG_PATIENCE);
        for round in 0..100 {
            calls.send_at_last(Call::PeerLost("a"));
            calls.send_at_last(Call::PeerLost("b"));
            if round == 49 {
                calls.try_send(Call::Credit(1)).unwrap();
            }
        }
        calls.send_at_last(Call::Pulled(1));
        calls.send_at_last(Call::Pulled(2));
        let expected = [Call::Credit(1), Call::PeerLost("a"), Call::PeerLost("b"), Call::Pulled(1), Call::Pulled(2)];
        assert_eq!(heard(&inbox), expected);
    }

    #[test]
    fn a_thread_that_waits_hears_what_comes_from_another() {
        let (calls, inbox) = calls(1, LONG_PATIENCE);
        let thread = std::thread::spawn(move || inbox.recv_until(None));
        calls.try_send(Call::Credit(7)).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(Call::Credit(7)));
    }
}
