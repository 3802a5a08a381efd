//! Hall: who is in, and who makes room when it is full.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::visit::Visit;

/// All connections of a port.
#[derive(Debug)]
pub(crate) struct Hall {
    limit: usize,
    guests: Mutex<Guests>,
    /// Somebody has left, or rests.
    room: Notify,
}

#[derive(Debug, Default)]
struct Guests {
    by_number: BTreeMap<u64, Arc<Guest>>,
    next_number: u64,
}

/// One connection, as its own task and the hall know it.
#[derive(Debug)]
pub(crate) struct Guest {
    visit: Mutex<Visit>,
    dismissed: CancellationToken,
    hall: Arc<Hall>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    pub(crate) guest: Arc<Guest>,
}

// === impl Hall ===

impl Hall {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), guests: Mutex::default(), room: Notify::new() })
    }

    /// Waits until one more may come in: there is room, or one makes room that is not being answered.
    pub(crate) async fn room(&self) {
        loop {
            let mut changed = pin!(self.room.notified());
            changed.as_mut().enable();
            if lock(&self.guests).by_number.len() < self.limit || self.dismiss_longest_idle() {
                return;
            }
            changed.await;
        }
    }

    /// Shows out who has had nothing to do here for longest; whether there is any.
    pub(crate) fn dismiss_longest_idle(&self) -> bool {
        let mut guests = lock(&self.guests);
        let idle = guests.by_number.iter().filter_map(|(number, guest)| Some((guest.idle_since()?, *number)));
        // It is no longer counted, though its socket is closed a moment later.
        match idle.min().and_then(|(_, number)| guests.by_number.remove(&number)) {
            Some(guest) => {
                guest.dismissed.cancel();
                true
            }
            None => false,
        }
    }

    pub(crate) fn take_in(self: &Arc<Self>) -> Place {
        let visit = Mutex::new(Visit::new(Instant::now()));
        let guest = Arc::new(Guest { visit, dismissed: CancellationToken::new(), hall: self.clone() });
        let mut guests = lock(&self.guests);
        let number = guests.next_number;
        guests.next_number += 1;
        guests.by_number.insert(number, guest.clone());
        Place { number, guest }
    }
}

// === impl Guest ===

impl Guest {
    pub(crate) fn note(&self, happens: impl FnOnce(&mut Visit, Instant)) {
        happens(&mut lock(&self.visit), Instant::now());
    }

    /// An answer is over.
    pub(crate) fn rest(&self) {
        self.note(Visit::rest);
        self.hall.room.notify_waiters();
    }

    /// Whether it has not asked anything since it came, or since its last answer.
    pub(crate) fn has_not_asked(&self) -> bool {
        lock(&self.visit).awaits_head()
    }

    fn idle_since(&self) -> Option<Instant> {
        lock(&self.visit).idle_since()
    }

    /// Ends when the connection is to be closed. Looks at the deadline anew at each poll: who may move it is polled in the same task,
    /// before.
    pub(crate) async fn overdue(&self, limits: &Limits) {
        let deadline = || lock(&self.visit).deadline(limits);
        let mut sleep = pin!(sleep_until(Instant::now()));
        let late = poll_fn(|context| match deadline() {
            None => Poll::Pending,
            Some(deadline) => {
                if sleep.deadline() != deadline {
                    sleep.as_mut().reset(deadline);
                }
                sleep.as_mut().poll(context)
            }
        });
        tokio::select! {
            () = late => {}
            () = self.dismissed.cancelled() => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let hall = &self.guest.hall;
        lock(&hall.guests).by_number.remove(&self.number);
        hall.room.notify_waiters();
    }
}

/// No method leaves the books half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
