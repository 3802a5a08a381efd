//! The board: what the agent knows of itself, its segments and links, for heartbeats, `/metrics` and an app. One entry a segment.

mod entry;
mod peers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polyphony_protocol::hub::{SegmentReport, Withdrawal};
use tokio::sync::{Notify, watch};

use crate::at_work::AtWork;
use crate::energy::Figures;
pub use entry::{Entry, Snapshot};
use peers::{Measured, Unreachable};

/// All entries; tells whoever waits when one changes.
#[derive(Default)]
pub struct Board {
    entries: Mutex<BTreeMap<(String, String), Arc<Entry>>>,
    links: Mutex<BTreeMap<String, Measured>>,
    unreachable: Mutex<BTreeMap<String, Unreachable>>,
    has_host: AtomicBool,
    withdrawal: watch::Sender<Option<Withdrawal>>,
    at_work: AtWork,
    energy: Mutex<Figures>,
    changed: Arc<Notify>,
}

// === impl Board ===

impl Board {
    /// A new entry, in phase loading; it takes the place of one of the same name.
    pub fn add(&self, namespace: &str, name: &str) -> Arc<Entry> {
        let entry = Arc::new(Entry::new(namespace, name, self.changed.clone()));
        lock(&self.entries).insert((namespace.to_owned(), name.to_owned()), entry.clone());
        self.changed.notify_one();
        entry
    }

    pub fn remove(&self, namespace: &str, name: &str) {
        lock(&self.entries).remove(&(namespace.to_owned(), name.to_owned()));
        self.changed.notify_one();
    }

    /// Every segment's entry, by namespace and name.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }

    pub fn segments(&self) -> Vec<SegmentReport> {
        lock(&self.entries).values().map(|entry| entry.snapshot().report).collect()
    }

    /// The host has taken this phone in, or its link has ended.
    pub fn set_host(&self, is_there: bool) {
        self.has_host.store(is_there, Ordering::Relaxed);
    }

    pub fn has_host(&self) -> bool {
        self.has_host.load(Ordering::Relaxed)
    }

    /// This phone takes no part any more, or takes part again; says whether that is news.
    pub fn set_withdrawal(&self, now: Option<Withdrawal>) -> bool {
        let reason = |withdrawal: &Option<Withdrawal>| withdrawal.as_ref().map(|it| it.reason);
        // A figure in its message is no news.
        let is_news = self.withdrawal.send_if_modified(|before| {
            let is_news = reason(before) != reason(&now);
            *before = now;
            is_news
        });
        if is_news {
            self.changed.notify_one();
        }
        is_news
    }

    pub fn withdrawal(&self) -> Option<Withdrawal> {
        self.withdrawal.borrow().clone()
    }

    /// Tells when this phone withdraws and comes back.
    pub fn withdrawals(&self) -> watch::Receiver<Option<Withdrawal>> {
        self.withdrawal.subscribe()
    }

    /// What computes tells it.
    pub fn at_work(&self) -> &AtWork {
        &self.at_work
    }

    /// What computing takes out of the battery.
    pub fn energy(&self) -> Figures {
        *lock(&self.energy)
    }

    pub fn set_energy(&self, figures: Figures) {
        *lock(&self.energy) = figures;
    }

    /// Waits until a phase changes, or the phone withdraws.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
