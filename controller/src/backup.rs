//! Backups: what a host needs to be the same one to its phones, in one file: the authority that they trust, and the store that records them.

use std::io;
use std::path::{Path, PathBuf};

use polyphony_apiserver::store::{StoreError, backup};
use polyphony_identity::Sealed;
use serde::{Deserialize, Serialize};

use crate::door::place::{Place, PlaceError, path_in};

/// Where the embedded API answers with a backup of its store; for admins.
pub use polyphony_apiserver::BACKUP_PATH;

/// Of the layout of the file.
const FORMAT: u32 = 1;

/// The file, as JSON. It has the authority's keys and every Secret in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    format: u32,
    authority: Sealed,
    store: backup::Backup,
}

/// Why nothing was restored, and nothing was left behind.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{path}: this is no backup ({source}): name a file that `polyctl backup` wrote")]
    Garbled { path: PathBuf, source: serde_json::Error },
    #[error("this backup is of format {format}, and this program reads {FORMAT}: take a newer one")]
    Format { format: u32 },
    #[error("there is a {} already: restore into an empty folder, named by --data-dir", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Authority(#[from] PlaceError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where the store lies in a data folder.
pub fn store_in(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb")
}

// === impl Backup ===

impl Backup {
    pub fn new(authority: Sealed, store: backup::Backup) -> Self {
        Self { format: FORMAT, authority, store }
    }

    /// # Errors
    /// When the bytes are no backup, or one of another format.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, RestoreError> {
        let read = serde_json::from_slice::<Self>(bytes);
        let backup = read.map_err(|source| RestoreError::Garbled { path: path.to_owned(), source })?;
        match backup.format {
            FORMAT => Ok(backup),
            format => Err(RestoreError::Format { format }),
        }
    }

    pub fn n_objects(&self) -> usize {
        self.store.objects.len()
    }

    /// Makes a data folder of it, where there is neither an authority nor a store.
    ///
    /// # Errors
    /// When there is one, or the folder cannot be written to.
    pub async fn restore(self, data_dir: &Path) -> Result<(), RestoreError> {
        let (authority, store) = (path_in(data_dir), store_in(data_dir));
        for path in [&authority, &store] {
            if path.exists() {
                return Err(RestoreError::NotEmpty { path: path.clone() });
            }
        }
        std::fs::create_dir_all(data_dir)
            .map_err(|source| RestoreError::Folder { path: data_dir.to_owned(), source })?;
        self.store.restore(&store)?;
        let written = Place::File(authority).write(&self.authority).await;
        // A store without its authority would begin with another one, and shut out all phones.
        Ok(written.inspect_err(|_| drop(std::fs::remove_file(&store)))?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Authority, Lifetimes};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_restored_is_what_was_kept_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Authority::generate("polyphony.local", Lifetimes::default(), 1_800_000_000).unwrap().sealed();
        let kept = json!({ "resource": "phones.polyphony.dev", "name": "attic", "object": { "metadata": { "name": "attic" } } });
        let store = serde_json::from_value(json!({ "revision": 42, "objects": [kept] })).unwrap();
        let bytes = serde_json::to_vec(&Backup::new(sealed.clone(), store)).unwrap();
        let read = || Backup::read(Path::new("b.json"), &bytes).unwrap();

        let data_dir = folder.path().join("new/host");
        read().restore(&data_dir).await.unwrap();
        assert!(Place::File(path_in(&data_dir)).read().await.unwrap().unwrap() == sealed);
        let store = polyphony_apiserver::store::Store::open(&store_in(&data_dir), Default::default()).unwrap();
        let all = store.reader().everything();
        assert_eq!((all.revision, all.objects.len(), all.objects[0].0.name.as_str()), (42, 1, "attic"));
        drop(store);

        let refused = read().restore(&data_dir).await.unwrap_err().to_string();
        assert!(refused.contains("authority.json already"), "{refused}");
        std::fs::remove_file(path_in(&data_dir)).unwrap();
        let refused = read().restore(&data_dir).await.unwrap_err().to_string();
        assert!(refused.contains("store.redb already") && !path_in(&data_dir).exists(), "{refused}");
    }

    #[test]
    fn what_is_no_backup_is_refused_by_name() {
        let refused = |bytes: &[u8]| Backup::read(Path::new("b.json"), bytes).err().unwrap().to_string();
        assert!(refused(b"{}").contains("b.json: this is no backup"), "{}", refused(b"{}"));
        assert!(refused(b"\x1f\x8b").contains("no backup"));
    }
}
