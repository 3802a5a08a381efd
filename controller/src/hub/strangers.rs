//! Strangers: connections that have not joined yet. They are few, and the one that has been there longest makes room for the next:
//! so however many come, none takes the place of a phone. Opens no socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Those that are there.
pub struct Strangers {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    /// In the order in which they came.
    leave: BTreeMap<u64, CancellationToken>,
}

/// One of them, until it is dropped.
pub struct Stranger {
    strangers: Arc<Strangers>,
    id: u64,
    leave: CancellationToken,
}

// === impl Strangers ===

impl Strangers {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default() })
    }

    /// Lets one more in; the oldest has to leave when there are too many.
    pub fn let_in(self: &Arc<Self>) -> Stranger {
        let mut waiting = self.lock();
        while waiting.leave.len() >= self.most.max(1) {
            if let Some((_, oldest)) = waiting.leave.pop_first() {
                oldest.cancel();
            }
        }
        let (id, leave) = (waiting.next_id, CancellationToken::new());
        waiting.next_id += 1;
        waiting.leave.insert(id, leave.clone());
        drop(waiting);
        Stranger { strangers: self.clone(), id, leave }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No holder of the lock leaves an entry half-written.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stranger ===

impl Stranger {
    /// Waits until it has to make room.
    pub async fn displaced(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().leave.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_who_has_joined_is_no_stranger() {
        let strangers = Strangers::new(2);
        let (first, joined) = (strangers.let_in(), strangers.let_in());
        drop(joined);
        let second = strangers.let_in();
        assert!(!first.leave.is_cancelled(), "one has joined, so there was room");
        let third = strangers.let_in();
        let is_gone = [&first, &second, &third].map(|one| one.leave.is_cancelled());
        assert_eq!(is_gone, [true, false, false]);
    }
}
