//! The store: JSON objects by key, one growing revision, and the recent history of changes. Knows no kind.
//!
//! Memory holds every object, so that reading never waits for the disk; one thread owns the file and makes every change
//! durable before it is acknowledged or seen. Changes that arrive together share one commit. A watcher follows the history
//! by revision and holds no queue of its own: who falls behind its end is told so, and no writer ever waits for a reader.

pub mod backup;
mod disk;
mod history;
mod panics;
mod transaction;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use disk::Disk;
use history::State;
pub use history::{Change, Event, Expired};
pub use transaction::Transaction;

/// Writes that wait for the thread that owns the file; the next one waits for a place.
const WAITING_WRITES: usize = 256;
const STACK_BYTES: usize = 16 << 20;
/// Writes that share one commit.
const BATCH: usize = 64;

/// Where an object lies. Keys are ordered by resource, then namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// As in `widgets.example.dev`.
    pub resource: String,
    /// Empty for what lies in no namespace.
    pub namespace: String,
    pub name: String,
}

/// The bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Objects of all resources together.
    pub objects: usize,
    /// Bytes of one object as JSON.
    pub object_bytes: usize,
    /// Bytes of all objects together, as JSON; memory holds them all.
    pub total_bytes: usize,
    /// Changes that are remembered for watchers.
    pub history: usize,
    /// Bytes of the remembered changes.
    pub history_bytes: usize,
}

/// Why the store could not be opened, or did not take a change.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StoreError {
    #[error("store {path} is in use by another process: stop that one, or give this one another data directory")]
    Locked { path: String },
    #[error("store {path} is damaged ({detail}): move the file away to start empty, or put a copy of it back")]
    Damaged { path: String, detail: String },
    #[error("store {path} cannot be opened: {detail}: check that its directory exists and can be written")]
    Unusable { path: String, detail: String },
    #[error("the store could not write ({detail}): free space on its disk, and it goes on by itself")]
    Write { detail: String },
    #[error("the store holds {limit} objects and takes no more: delete some")]
    Full { limit: usize },
    #[error("the store holds {limit} bytes and takes no more: delete something large")]
    FullBytes { limit: usize },
    #[error("the object has {bytes} bytes, over the limit of {limit}: make it smaller")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the change failed inside the server: {detail}")]
    Failed { detail: String },
    #[error("the store is closed")]
    Closed,
}

/// The open store. Dropping it waits for the last commit and closes the file.
pub struct Store {
    reader: Reader,
    writer: Option<Writer>,
    thread: Option<JoinHandle<()>>,
}

/// Reads and follows; cheap to clone, never waits for the disk.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Submits changes; cheap to clone. The file stays open as long as one is left.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

struct Shared {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&mut Transaction) -> Reply + Send>;

/// The objects of one resource at one revision.
pub struct Snapshot {
    pub revision: u64,
    /// In the order of namespace, then name.
    pub objects: Vec<(Key, Arc<Value>)>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            objects: 50_000,
            object_bytes: 1 << 20,
            total_bytes: 512 << 20,
            history: 4096,
            history_bytes: 64 << 20,
        }
    }
}

// === impl Store ===

impl Store {
    /// Opens or makes the file at `path` and reads every object into memory.
    pub fn open(path: &Path, limits: Limits) -> Result<Store, StoreError> {
        let (disk, (revision, objects)) = Disk::open(path)?;
        let shared = Arc::new(Shared {
            state: RwLock::new(State::new(revision, objects, limits)),
            revision: watch::Sender::new(revision),
        });
        let (jobs, waiting) = mpsc::channel(WAITING_WRITES);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            // Objects are judged on this thread, and both they and the rules that judge them may be deep.
            .stack_size(STACK_BYTES)
            .spawn({
                let shared = shared.clone();
                move || write_in_order(disk, &shared, waiting)
            })
            .map_err(|error| StoreError::Failed { detail: error.to_string() })?;
        Ok(Store { reader: Reader { shared }, writer: Some(Writer { jobs }), thread: Some(thread) })
    }

    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    pub fn writer(&self) -> &Writer {
        self.writer.as_ref().expect("the writer is taken only while the store is dropped")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already told to whoever waited for it.
            let _ = thread.join();
        }
    }
}

fn write_in_order(mut disk: Disk, shared: &Shared, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut replies = Vec::new();
        let changes = {
            // Only this thread ever takes the lock for writing, so readers go on meanwhile.
            let state = shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let mut transaction = Transaction::new(&state);
            let mut next = Some(first);
            while let Some(job) = next.take() {
                replies.push(job(&mut transaction));
                if replies.len() < BATCH {
                    next = jobs.try_recv().ok();
                }
            }
            transaction.into_changes()
        };
        let outcome = disk.commit(&changes);
        if outcome.is_ok()
            && let Some(last) = changes.last()
        {
            let revision = last.event.revision;
            shared.state.write().unwrap_or_else(PoisonError::into_inner).publish(changes);
            shared.revision.send_replace(revision);
        }
        for reply in replies {
            reply(outcome.clone());
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Runs `change` alone against the newest state; what it changed is kept, durably, if and only if it returns `Ok`.
    pub async fn transact<T, E>(
        &self,
        change: impl FnOnce(&mut Transaction) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let outcome = transaction.run(change);
            Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Ok(_), Err(error)) => Err(E::from(error)),
                    (outcome, _) => outcome,
                };
                // Who asked may have gone away; the change stands.
                let _ = send.send(outcome);
            })
        });
        self.jobs.send(job).await.map_err(|_| E::from(StoreError::Closed))?;
        receive.await.map_err(|_| E::from(StoreError::Closed))?
    }
}

// === impl Reader ===

impl Reader {
    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        *self.shared.revision.borrow()
    }

    /// Wakes after each change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state(|state| state.get(key))
    }

    /// The objects of `resource`, in one namespace or in all.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Snapshot {
        self.state(|state| Snapshot { revision: state.revision, objects: state.range(resource, namespace) })
    }

    /// As [`Reader::list`], but as it was at `revision`.
    pub fn list_at(&self, resource: &str, namespace: Option<&str>, revision: u64) -> Result<Snapshot, Expired> {
        self.state(|state| {
            let objects = state.range_at(resource, namespace, revision)?;
            Ok(Snapshot { revision, objects })
        })
    }

    /// Every object of every resource.
    pub fn everything(&self) -> Snapshot {
        self.state(|state| Snapshot { revision: state.revision, objects: state.everything() })
    }

    /// At most `limit` changes after `revision`, oldest first.
    pub fn after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        self.state(|state| state.after(revision, limit))
    }

    fn state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.shared.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Key ===

impl Key {
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Key { resource: resource.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests;
