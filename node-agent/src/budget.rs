//! The memory budget of a phone: what segments may take together. A segment gives its share back when it is freed.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

/// Memory that segments may take together. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    whole_bytes: u64,
    books: watch::Sender<Books>,
    /// Who came first is first.
    turns: Arc<Mutex<()>>,
}

/// A part of a budget, given back when it is dropped.
pub struct Share {
    n_bytes: u64,
    books: watch::Sender<Books>,
}

#[derive(Clone, Copy, Debug)]
struct Books {
    limit_bytes: u64,
    taken_bytes: u64,
}

// === impl Budget ===

impl Budget {
    pub fn new(whole_bytes: u64) -> Self {
        let books = watch::Sender::new(Books { limit_bytes: whole_bytes, taken_bytes: 0 });
        Self { whole_bytes, books, turns: Arc::default() }
    }

    /// What may be taken where nothing lowers it.
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// What may be taken now.
    pub fn limit_bytes(&self) -> u64 {
        self.books.borrow().limit_bytes
    }

    /// So much may be taken from now on, together. What is taken already stays so, and counts.
    pub fn set_limit_bytes(&self, bytes: u64) {
        self.books.send_if_modified(|books| std::mem::replace(&mut books.limit_bytes, bytes) != bytes);
    }

    /// What is taken now.
    pub fn reserved_bytes(&self) -> u64 {
        self.books.borrow().taken_bytes
    }

    /// Takes a share; calls `waiting` once if others hold too much of the budget now, or wait for it already. `None` when it is more than may be taken
    /// at all, or comes to be while it waits.
    pub async fn reserve(&self, n_bytes: u64, waiting: impl FnOnce()) -> Option<Share> {
        if let Ok(_turn) = self.turns.try_lock()
            && let Some(share) = self.take(n_bytes)
        {
            return Some(share);
        }
        if n_bytes > self.limit_bytes() {
            return None;
        }
        waiting();
        let mut changes = self.books.subscribe();
        let has_come = async {
            let _turn = self.turns.lock().await;
            let mut changes = self.books.subscribe();
            loop {
                changes.borrow_and_update();
                if let Some(share) = self.take(n_bytes) {
                    return Some(share);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::select! {
            biased;
            // Whoever is before it.
            _ = changes.wait_for(|books| n_bytes > books.limit_bytes) => None,
            share = has_come => share,
        }
    }

    fn take(&self, n_bytes: u64) -> Option<Share> {
        let is_taken = self.books.send_if_modified(|books| {
            let taken_bytes = books.taken_bytes.saturating_add(n_bytes);
            let fits = taken_bytes <= books.limit_bytes;
            if fits {
                books.taken_bytes = taken_bytes;
            }
            fits
        });
        is_taken.then(|| Share { n_bytes, books: self.books.clone() })
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        self.books.send_modify(|books| books.taken_bytes = books.taken_bytes.saturating_sub(self.n_bytes));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_share_waits_until_another_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.reserve(6, || panic!("there is room")).await.unwrap();
        assert_eq!((budget.reserved_bytes(), budget.clone().reserved_bytes()), (6, 6));
        let (told, waits) = oneshot::channel();
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(5, || told.send(()).unwrap()).await.is_some() }
        });
        waits.await.unwrap();
        // One that would fit does not overtake it.
        let mut third = Box::pin(budget.reserve(1, || ()));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.await.unwrap() && third.await.is_some());
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn a_lowered_limit_is_that_of_all_shares_together() {
        let budget = Budget::new(10);
        let held = budget.reserve(8, || panic!("there is room")).await.unwrap();
        budget.set_limit_bytes(6);
        assert_eq!((budget.reserved_bytes(), budget.limit_bytes(), budget.whole_bytes()), (8, 6, 10));
        let mut five = Box::pin(budget.reserve(5, || ()));
        assert!(five.as_mut().now_or_never().is_none(), "more than may be is held");
        drop(held);
        let five = five.await.unwrap();
        let mut other = Box::pin(budget.reserve(4, || ()));
        assert!(other.as_mut().now_or_never().is_none(), "together they would be more than the limit");
        let mut last = Box::pin(budget.reserve(6, || ()));
        assert!(last.as_mut().now_or_never().is_none());
        budget.set_limit_bytes(5);
        assert!(last.await.is_none(), "it can never be had now, whoever waits before it");
        assert!(other.as_mut().now_or_never().is_none());
        budget.set_limit_bytes(3);
        assert!(other.await.is_none());
        assert!(budget.reserve(7, || panic!("it waits for nothing")).await.is_none());
        budget.set_limit_bytes(10);
        assert!(budget.reserve(5, || panic!("there is room again")).await.is_some());
        drop(five);
    }
}
