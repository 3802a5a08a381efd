//! The file: a redb database with one table of objects and one of figures. Only the store's own thread uses it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableTable, StorageError, TableDefinition};

use super::history::{Change, Pending, Stored};
use super::transaction::panic_text;
use super::{Key, StoreError};

/// Key: resource, namespace and name, each ended by a zero byte but the last. Value: the object as JSON.
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const FIGURES: TableDefinition<&str, u64> = TableDefinition::new("figures");
const REVISION: &str = "revision";
/// Of the layout of these tables.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

pub(super) struct Disk {
    database: Database,
}

/// The revision of the last change, and every object.
pub(super) type Contents = (u64, BTreeMap<Key, Stored>);

// === impl Disk ===

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Disk, Contents), StoreError> {
        let shown = path.display().to_string();
        let damaged = |detail: String| StoreError::Damaged { path: shown.clone(), detail };
        // redb asserts what no file of its own breaks; a damaged file may, and must still be answered with words.
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<(Disk, Contents), StoreError> {
            make_private(path)
                .map_err(|error| StoreError::Unusable { path: shown.clone(), detail: error.to_string() })?;
            let database = Database::create(path).map_err(|error| explain(&shown, error))?;
            let disk = Disk { database };
            let contents = disk.load().map_err(|error| damaged(error.to_string()))?;
            Ok((disk, contents))
        }));
        opened.unwrap_or_else(|panic| Err(damaged(panic_text(panic.as_ref()))))
    }

    fn load(&self) -> Result<Contents, Box<dyn std::error::Error>> {
        let transaction = self.database.begin_write()?;
        let mut objects = BTreeMap::new();
        let revision;
        {
            let mut figures = transaction.open_table(FIGURES)?;
            let format = figures.get(FORMAT)?.map(|value| value.value());
            match format {
                Some(FORMAT_VERSION) => {}
                Some(other) => {
                    return Err(format!("its format {other} is not {FORMAT_VERSION}").into());
                }
                None => {
                    figures.insert(FORMAT, FORMAT_VERSION)?;
                }
            }
            // Revision 0 means "any" to clients, so the first state already has a higher one.
            revision = figures.get(REVISION)?.map_or(1, |value| value.value());
            let table = transaction.open_table(OBJECTS)?;
            for entry in table.iter()? {
                let (key, value) = entry?;
                let key =
                    decode(key.value()).ok_or_else(|| format!("the key {:?} has not three parts", key.value()))?;
                let object = serde_json::from_slice(value.value())
                    .map_err(|error| format!("the object {} of {} is not JSON: {error}", key.name, key.resource))?;
                let bytes = value.value().len();
                objects.insert(key, Stored { object: Arc::new(object), bytes });
            }
        }
        transaction.commit()?;
        Ok((revision, objects))
    }

    /// Makes the changes durable: when this returns, they survive the loss of the process.
    pub(super) fn commit(&self, changes: &[Pending]) -> Result<(), StoreError> {
        let Some(last) = changes.last() else {
            return Ok(());
        };
        self.try_commit(changes, last.event.revision).map_err(|error| {
            let detail = error.to_string();
            tracing::error!(%detail, "a commit failed");
            StoreError::Write { detail }
        })
    }

    fn try_commit(&self, changes: &[Pending], revision: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for Pending { event, bytes } in changes {
                let key = encode(&event.key);
                match event.change {
                    Change::Deleted => drop(objects.remove(key.as_str())?),
                    _ => drop(objects.insert(key.as_str(), bytes.as_slice())?),
                }
            }
            transaction.open_table(FIGURES)?.insert(REVISION, revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Makes an empty file that only its owner reads, because secrets lie in it; leaves a file that is there alone.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // The name of a file is durable only with its directory.
        Ok(file) => match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if cfg!(unix) => File::open(parent)?.sync_all(),
            _ => file.sync_all(),
        },
    }
}

fn explain(path: &str, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() != std::io::ErrorKind::InvalidData => {
            StoreError::Unusable { path, detail: error.to_string() }
        }
        error => StoreError::Damaged { path, detail: error.to_string() },
    }
}

fn encode(key: &Key) -> String {
    format!("{}\0{}\0{}", key.resource, key.namespace, key.name)
}

fn decode(text: &str) -> Option<Key> {
    let mut parts = text.splitn(3, '\0');
    Some(Key::new(parts.next()?, parts.next()?, parts.next()?))
}
