//! The file: a redb database with one table of objects and one of figures. Only the store's own thread uses it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::history::{Change, Pending, Stored};
use super::panics::quietly;
use super::{Key, StoreError};

/// Key: resource, namespace and name, each ended by a zero byte but the last. Value: the object as JSON.
const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const FIGURES: TableDefinition<&str, u64> = TableDefinition::new("figures");
const REVISION: &str = "revision";
/// Of the layout of these tables.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

pub(super) struct Disk {
    path: PathBuf,
    /// None after a write that failed, until the file could be opened again: redb takes nothing more on the old handle.
    database: Option<Database>,
}

/// The revision of the last change, and every object.
pub(super) type Contents = (u64, BTreeMap<Key, Stored>);

// === impl Disk ===

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Disk, Contents), StoreError> {
        let shown = path.display().to_string();
        let damaged = |detail: String| StoreError::Damaged { path: shown.clone(), detail };
        if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            tracing::warn!(path = %shown, "the store's file is empty (0 bytes): it starts without any object; if it had some, stop, and put a copy of the file back");
        }
        // redb asserts what no file of its own breaks; a damaged file may, and must still be answered with words.
        let opened = quietly(|| -> Result<(Disk, Contents), StoreError> {
            make_private(path)
                .map_err(|error| StoreError::Unusable { path: shown.clone(), detail: error.to_string() })?;
            let database = Database::create(path).map_err(|error| explain(&shown, error))?;
            let contents = load(&database).map_err(|error| damaged(error.to_string()))?;
            Ok((Disk { path: path.to_owned(), database: Some(database) }, contents))
        });
        opened.unwrap_or_else(|panic| Err(damaged(panic)))
    }

    /// Makes the changes durable: when this returns, they survive the loss of the process. After a failure the file is opened
    /// anew, so that a disk that had no room may have some at the next call.
    pub(super) fn commit(&mut self, changes: &[Pending]) -> Result<(), StoreError> {
        let Some(last) = changes.last() else {
            return Ok(());
        };
        let revision = last.event.revision;
        let failed = |detail: String| {
            tracing::error!(%detail, "a commit failed");
            StoreError::Write { detail }
        };
        if self.database.is_none() && self.reopen().map_err(failed)? >= revision {
            // A failure that was told, and was none: what is there may not be given out twice. So it stays shut for every commit to come.
            self.database = None;
            return Err(failed("the file holds changes that were reported as lost: restart the server".to_owned()));
        }
        let database = self.database.as_ref().expect("it was opened above where it was not open");
        let outcome = quietly(|| try_commit(database, changes, revision).map_err(|error| error.to_string()));
        let Err(detail) = outcome.unwrap_or_else(Err) else { return Ok(()) };
        // Its drop tries to write, too.
        let database = self.database.take();
        let _ = quietly(move || drop(database));
        match self.reopen() {
            // All of it was durable before the failure.
            Ok(reached) if reached == revision => Ok(()),
            // Where this fails, too, the next commit tries again.
            _ => Err(failed(detail)),
        }
    }

    /// Opens the file again; says which revision it has.
    fn reopen(&mut self) -> Result<u64, String> {
        let opened = quietly(|| -> Result<(Database, u64), redb::Error> {
            let database = Database::create(&self.path)?;
            let reached = database.begin_read()?.open_table(FIGURES)?.get(REVISION)?.map_or(1, |value| value.value());
            Ok((database, reached))
        });
        let (database, reached) = opened?.map_err(|error| error.to_string())?;
        self.database = Some(database);
        Ok(reached)
    }
}

fn load(database: &Database) -> Result<Contents, Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
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
            let key = decode(key.value()).ok_or_else(|| format!("the key {:?} has not three parts", key.value()))?;
            let object = serde_json::from_slice(value.value())
                .map_err(|error| format!("the object {} of {} is not JSON: {error}", key.name, key.resource))?;
            let bytes = value.value().len();
            objects.insert(key, Stored { object: Arc::new(object), bytes });
        }
    }
    transaction.commit()?;
    Ok((revision, objects))
}

fn try_commit(database: &Database, changes: &[Pending], revision: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
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
