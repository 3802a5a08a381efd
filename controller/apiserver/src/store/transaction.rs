//! Transactions: what a change sees and leaves behind before anything is durable.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::{Value, json};

use super::history::{Change, Event, Pending, State, lies_in};
use super::{Key, StoreError};

/// The newest state with the changes made so far laid over it.
pub struct Transaction<'a> {
    state: &'a State,
    overlay: BTreeMap<Key, Option<Arc<Value>>>,
    changes: Vec<Pending>,
    /// What the overlay held before each change of the job that runs, to undo them.
    undo: Vec<(Key, Option<Option<Arc<Value>>>)>,
    discarded: bool,
}

// === impl Transaction ===

impl<'a> Transaction<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        Transaction { state, overlay: BTreeMap::new(), changes: Vec::new(), undo: Vec::new(), discarded: false }
    }

    pub(super) fn into_changes(self) -> Vec<Pending> {
        self.changes
    }

    /// Runs one job; unless it returns `Ok`, and did not ask otherwise, nothing of it is left.
    pub(super) fn run<T, E: From<StoreError>>(
        &mut self,
        job: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let n_changes = self.changes.len();
        self.undo.clear();
        self.discarded = false;
        let outcome = catch_unwind(AssertUnwindSafe(|| job(self))).unwrap_or_else(|panic| {
            let detail = panic_text(panic.as_ref());
            Err(E::from(StoreError::Failed { detail }))
        });
        if outcome.is_err() || self.discarded {
            self.changes.truncate(n_changes);
            while let Some((key, before)) = self.undo.pop() {
                match before {
                    Some(before) => self.overlay.insert(key, before),
                    None => self.overlay.remove(&key),
                };
            }
        }
        outcome
    }

    /// The revision that the next change will have.
    pub fn next_revision(&self) -> u64 {
        self.changes.last().map_or(self.state.revision, |pending| pending.event.revision) + 1
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        match self.overlay.get(key) {
            Some(object) => object.clone(),
            None => self.state.get(key),
        }
    }

    /// What the job that runs found at `key` when it began.
    pub fn before(&self, key: &Key) -> Option<Arc<Value>> {
        match self.undo.iter().find(|(undone, _)| undone == key) {
            Some((_, Some(before))) => before.clone(),
            Some((_, None)) => self.state.get(key),
            None => self.get(key),
        }
    }

    /// The objects of `resource`, in one namespace or in all, in the order of their keys.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Arc<Value>)> {
        self.laid_over(self.state.range(resource, namespace), |key| lies_in(key, resource, namespace))
    }

    /// Every object of every resource.
    pub fn everything(&self) -> Vec<(Key, Arc<Value>)> {
        self.laid_over(self.state.everything(), |_| true)
    }

    fn laid_over(&self, objects: Vec<(Key, Arc<Value>)>, wanted: impl Fn(&Key) -> bool) -> Vec<(Key, Arc<Value>)> {
        let mut objects: BTreeMap<_, _> = objects.into_iter().collect();
        for (key, object) in self.overlay.iter().filter(|(key, _)| wanted(key)) {
            match object {
                Some(object) => objects.insert(key.clone(), object.clone()),
                None => objects.remove(key),
            };
        }
        objects.into_iter().collect()
    }

    /// Creates or replaces; the object comes back with its new `metadata.resourceVersion`.
    pub fn put(&mut self, key: Key, mut object: Value) -> Result<Arc<Value>, StoreError> {
        let previous = self.get(&key);
        let limits = self.state.limits;
        if previous.is_none() && self.state.len() + self.changes.len() >= limits.objects {
            return Err(StoreError::Full { limit: limits.objects });
        }
        let revision = self.next_revision();
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let bytes = to_bytes(&object)?;
        if bytes.len() > limits.object_bytes {
            let (bytes, limit) = (bytes.len(), limits.object_bytes);
            return Err(StoreError::TooLarge { bytes, limit });
        }
        // What shrinks is always taken, or a full store could not be emptied of what finalizers hold.
        let before = self.state.bytes_of(&key);
        let waiting: usize = self.changes.iter().map(|pending| pending.bytes.len()).sum();
        if bytes.len() > before && self.state.bytes() - before + waiting + bytes.len() > limits.total_bytes {
            return Err(StoreError::FullBytes { limit: limits.total_bytes });
        }
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        let object = Arc::new(object);
        self.record(Event { revision, change, key, object: object.clone(), previous }, bytes);
        Ok(object)
    }

    /// Deletes; the object comes back as it last was, with the deletion's `metadata.resourceVersion`.
    pub fn remove(&mut self, key: &Key) -> Result<Option<Arc<Value>>, StoreError> {
        let Some(previous) = self.get(key) else {
            return Ok(None);
        };
        let revision = self.next_revision();
        let mut object = Value::clone(&previous);
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let bytes = to_bytes(&object)?;
        let object = Arc::new(object);
        self.record(
            Event {
                revision,
                change: Change::Deleted,
                key: key.clone(),
                object: object.clone(),
                previous: Some(previous),
            },
            bytes,
        );
        Ok(Some(object))
    }

    /// Keeps nothing of this job, even though it returns `Ok`: a dry run.
    pub fn discard(&mut self) {
        self.discarded = true;
    }

    fn record(&mut self, event: Event, bytes: Vec<u8>) {
        let after = (event.change != Change::Deleted).then(|| event.object.clone());
        let before = self.overlay.insert(event.key.clone(), after);
        self.undo.push((event.key.clone(), before));
        self.changes.push(Pending { event, bytes });
    }
}

fn to_bytes(object: &Value) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(object).map_err(|error| StoreError::Failed { detail: error.to_string() })
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()
}
