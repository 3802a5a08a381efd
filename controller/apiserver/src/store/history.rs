//! The state in memory: every object, and the recent changes that watchers follow and old lists are rebuilt from.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::Value;

use super::{Key, Limits};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: u64,
    pub change: Change,
    pub key: Key,
    /// The object after the change; for a deletion the last one, with the deletion's revision.
    pub object: Arc<Value>,
    pub previous: Option<Arc<Value>>,
}

/// A change that is not yet durable.
pub(super) struct Pending {
    pub(super) event: Event,
    /// The object as JSON; of a deletion the object that went.
    pub(super) bytes: Vec<u8>,
}

/// The revision is older than what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("too old resource version: {revision} ({oldest})")]
pub struct Expired {
    pub revision: u64,
    pub oldest: u64,
}

/// An object with its size as JSON.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) object: Arc<Value>,
    pub(super) bytes: usize,
}

/// Objects and history.
pub(super) struct State {
    pub(super) revision: u64,
    pub(super) limits: Limits,
    objects: BTreeMap<Key, Stored>,
    /// Of all objects together, as JSON.
    bytes: usize,
    history: VecDeque<(Arc<Event>, usize)>,
    history_bytes: usize,
    /// The revision of the last change that was forgotten.
    forgotten: u64,
}

// === impl State ===

impl State {
    pub(super) fn new(revision: u64, objects: BTreeMap<Key, Stored>, limits: Limits) -> Self {
        State {
            revision,
            limits,
            bytes: objects.values().map(|stored| stored.bytes).sum(),
            objects,
            history: VecDeque::new(),
            history_bytes: 0,
            forgotten: revision,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn bytes_of(&self, key: &Key) -> usize {
        self.objects.get(key).map_or(0, |stored| stored.bytes)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).map(|stored| stored.object.clone())
    }

    pub(super) fn range(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Arc<Value>)> {
        let first = Key::new(resource, namespace.unwrap_or_default(), "");
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(key, _)| lies_in(key, resource, namespace))
            .map(|(key, stored)| (key.clone(), stored.object.clone()))
            .collect()
    }

    pub(super) fn everything(&self) -> Vec<(Key, Arc<Value>)> {
        let objects = self.objects.iter();
        objects.map(|(key, stored)| (key.clone(), stored.object.clone())).collect()
    }

    /// The range as it was: the newest one, with every later change undone.
    pub(super) fn range_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<(Key, Arc<Value>)>, Expired> {
        self.check(revision)?;
        let mut objects: BTreeMap<_, _> = self.range(resource, namespace).into_iter().collect();
        for (event, _) in self.history.iter().rev().take_while(|(event, _)| event.revision > revision) {
            if !lies_in(&event.key, resource, namespace) {
                continue;
            }
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), previous.clone()),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects.into_iter().collect())
    }

    pub(super) fn after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Event>>, Expired> {
        self.check(revision)?;
        let start = self.history.partition_point(|(event, _)| event.revision <= revision);
        let events = self.history.range(start..).take(limit);
        Ok(events.map(|(event, _)| event.clone()).collect())
    }

    pub(super) fn publish(&mut self, changes: Vec<Pending>) {
        for Pending { event, bytes } in changes {
            let bytes = bytes.len();
            self.revision = event.revision;
            let before = match event.change {
                Change::Deleted => self.objects.remove(&event.key),
                _ => {
                    self.bytes += bytes;
                    let object = event.object.clone();
                    self.objects.insert(event.key.clone(), Stored { object, bytes })
                }
            };
            self.bytes -= before.map_or(0, |stored| stored.bytes);
            self.history_bytes += bytes;
            self.history.push_back((Arc::new(event), bytes));
        }
        while self.history.len() > self.limits.history || self.history_bytes > self.limits.history_bytes {
            let Some((event, bytes)) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= bytes;
            self.forgotten = event.revision;
        }
    }

    fn check(&self, revision: u64) -> Result<(), Expired> {
        if revision < self.forgotten {
            return Err(Expired { revision, oldest: self.forgotten });
        }
        Ok(())
    }
}

pub(super) fn lies_in(key: &Key, resource: &str, namespace: Option<&str>) -> bool {
    key.resource == resource && namespace.is_none_or(|namespace| key.namespace == namespace)
}
