//! Backups: every object as it was at one revision, and a new file made of them.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk::Disk;
use super::history::{Change, Event, Pending};
use super::{Key, Snapshot, StoreError};

/// All that a store holds, Secrets among it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// Of the last change.
    pub revision: u64,
    pub objects: Vec<Kept>,
}

/// One object and where it lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub resource: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    pub object: Value,
}

// === impl Backup ===

impl Backup {
    /// Makes a store of it where there is none: whole or not at all.
    ///
    /// # Errors
    /// When there is a file at `path`, or none can be written.
    pub fn restore(self, path: &Path) -> Result<(), StoreError> {
        let unusable = |detail: String| StoreError::Unusable { path: path.display().to_string(), detail };
        if path.exists() {
            return Err(unusable("there is a store already".to_owned()));
        }
        let part = path.with_extension(format!("part-{}", std::process::id()));
        let written =
            self.write(&part).and_then(|()| std::fs::rename(&part, path).map_err(|error| unusable(error.to_string())));
        written.inspect_err(|_| drop(std::fs::remove_file(&part)))
    }

    fn write(self, path: &Path) -> Result<(), StoreError> {
        let (mut disk, _) = Disk::open(path)?;
        let revision = self.revision;
        let pending = |kept: Kept| {
            let bytes = kept.object.to_string().into_bytes();
            let key = Key { resource: kept.resource, namespace: kept.namespace, name: kept.name };
            let event = Event { revision, change: Change::Added, key, object: Arc::new(kept.object), previous: None };
            Pending { event, bytes }
        };
        disk.commit(&self.objects.into_iter().map(pending).collect::<Vec<_>>())
    }
}

impl From<Snapshot> for Backup {
    fn from(snapshot: Snapshot) -> Self {
        let kept = |(key, object): (Key, Arc<Value>)| Kept {
            resource: key.resource,
            namespace: key.namespace,
            name: key.name,
            object: Value::clone(&object),
        };
        Self { revision: snapshot.revision, objects: snapshot.objects.into_iter().map(kept).collect() }
    }
}
