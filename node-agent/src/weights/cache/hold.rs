//! Holds: which files of a cache somebody needs, and for how long.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

type Digests = Mutex<BTreeSet<String>>;

/// Files that are needed, by their digests, for as long as this or a clone of it lives.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<Digests>);

/// Every hold on a cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(Arc<Mutex<Vec<Weak<Digests>>>>);

// === impl Hold ===

impl Hold {
    /// These are needed too from now on.
    pub fn keep(&self, digests: impl IntoIterator<Item = String>) {
        lock(&self.0).extend(digests);
    }

    pub(super) fn has(&self, digest: &str) -> bool {
        lock(&self.0).contains(digest)
    }
}

// === impl Holds ===

impl Holds {
    /// One more, on nothing yet.
    pub(super) fn begin(&self) -> Hold {
        let hold = Hold::default();
        let mut holds = lock(&self.0);
        holds.retain(|hold| hold.strong_count() > 0);
        holds.push(Arc::downgrade(&hold.0));
        hold
    }

    /// All that is needed now.
    pub(super) fn digests(&self) -> BTreeSet<String> {
        let holds: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        holds.iter().flat_map(|hold| lock(hold).clone()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while half a change is made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
