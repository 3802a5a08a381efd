//! The board: what the agent knows of itself, its segments and links, for heartbeats, `/metrics` and an app. One entry a segment.

mod entry;
mod peers;

use std::collections::BTreeMap;
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
    host: watch::Sender<AtHost>,
    withdrawal: watch::Sender<Option<Withdrawal>>,
    at_work: AtWork,
    energy: Mutex<Figures>,
    changed: Arc<Notify>,
}

/// How this phone stands with its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtHost {
    /// The link is up, and the host has taken this phone in.
    pub is_there: bool,
    /// It has been so at some time since the agent began.
    pub has_joined: bool,
    /// Why there is no link, as far as it is known; for people.
    pub error: Option<String>,
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

    /// The host has taken this phone in.
    pub fn set_welcomed(&self) {
        self.host.send_replace(AtHost { is_there: true, has_joined: true, error: None });
    }

    /// There is no link to the host, or none any more; why, where that is known.
    pub fn set_away(&self, error: Option<String>) {
        self.host.send_modify(|host| (host.is_there, host.error) = (false, error));
    }

    pub fn host(&self) -> AtHost {
        self.host.borrow().clone()
    }

    /// Tells when the host comes and goes.
    pub fn host_changes(&self) -> watch::Receiver<AtHost> {
        self.host.subscribe()
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
