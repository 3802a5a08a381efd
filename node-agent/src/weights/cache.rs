//! The phone's disk cache: one file a tensor (or manifest), named by its SHA-256, within a size limit.
//!
//! A name says what the bytes must be, so a file is believed only after its digest was computed again.

mod incoming;
mod kept;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use incoming::{Incoming, KeepError};
pub use kept::Kept;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("weight cache at {}: {source}: free space there or choose another --data-dir", path.display())]
pub struct CacheError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// A folder of files named by their digests, which this user alone can read.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

/// Digests of files that are not to make room for others.
pub type Needed = BTreeSet<String>;

/// What a file is called until all of it has come.
const PART: &str = "part";

// === impl CacheError ===

impl CacheError {
    /// Whether the disk has no room, so that less on it could help.
    pub fn is_full_disk(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

// === impl Cache ===

impl Cache {
    /// Opens or makes the folder, and clears what an earlier run left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: PathBuf, limit_bytes: u64) -> Result<Self, CacheError> {
        let cache = Self { folder, limit_bytes };
        cache.make_folder()?;
        // One of an earlier version was readable by all; where it is not ours to change, it stays as it is.
        let _ = fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o700));
        for entry in cache.entries()? {
            if entry.path.extension().is_some_and(|extension| extension == PART) {
                let _ = fs::remove_file(&entry.path);
            }
        }
        Ok(cache)
    }

    /// The file of that digest, to be read by range; `None` when it is not here or no longer what it was. Reads it once, in pieces: a
    /// blocking thread's work.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn open_kept(&self, sha256: &str) -> Result<Option<Kept>, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(None) };
        let kept = match Kept::open(&path, sha256) {
            Ok(Some(kept)) => kept,
            Ok(None) => {
                tracing::warn!(path = %path.display(), "a cached file has changed on the disk; it is fetched again");
                let _ = fs::remove_file(&path);
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error(&path, source)),
        };
        // The time of use is what decides who goes first when room is needed; a failure only makes that less exact.
        let _ = fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(kept))
    }

    /// The bytes of that digest, for what is small.
    ///
    /// # Errors
    /// As [`Cache::open_kept`].
    pub fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(kept) = self.open_kept(sha256)? else { return Ok(None) };
        kept.bytes().map(Some).map_err(|source| self.error(&self.folder.join(sha256), source))
    }

    /// Whether a file of that digest and length is here. Its digest is checked when it is read.
    pub fn has(&self, sha256: &str, n_bytes: u64) -> bool {
        self.path_of(sha256).and_then(|path| fs::metadata(path).ok()).is_some_and(|file| file.len() == n_bytes)
    }

    /// Takes in `n_bytes` of that digest as they come. Older files that are not in `needed` go first when the limit is
    /// reached; `None` when there is no room even so, or the name is no digest.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn receive(&self, sha256: &str, n_bytes: u64, needed: &Needed) -> Result<Option<Incoming>, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(None) };
        // Somebody may have cleared the folder while the agent ran.
        self.make_folder()?;
        if !self.make_room(n_bytes, needed)? {
            return Ok(None);
        }
        Incoming::new(path, sha256).map(Some)
    }

    /// Removes every file that is not needed, for a disk that is full; says how many bytes that were.
    pub fn clear_unneeded(&self, needed: &Needed) -> u64 {
        let removed =
            |entry: Entry| (entry.may_go(needed) && fs::remove_file(&entry.path).is_ok()).then_some(entry.n_bytes);
        self.entries().map_or(0, |entries| entries.into_iter().filter_map(removed).sum())
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn make_folder(&self) -> Result<(), CacheError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| self.error(&self.folder, source))
    }

    fn make_room(&self, n_bytes: u64, needed: &Needed) -> Result<bool, CacheError> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.n_bytes).sum();
        for entry in entries {
            if total + n_bytes <= self.limit_bytes {
                break;
            }
            if entry.may_go(needed) && fs::remove_file(&entry.path).is_ok() {
                total -= entry.n_bytes;
            }
        }
        Ok(total + n_bytes <= self.limit_bytes)
    }

    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let listing = fs::read_dir(&self.folder).map_err(|source| self.error(&self.folder, source))?;
        let entry_of = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok()?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(Entry { path: entry.path(), n_bytes: metadata.len(), used })
        };
        Ok(listing.flatten().filter_map(entry_of).collect())
    }

    /// Only a digest names a file: nothing that a manifest says can lead out of the folder.
    fn path_of(&self, sha256: &str) -> Option<PathBuf> {
        let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| self.folder.join(sha256))
    }

    fn error(&self, path: &Path, source: io::Error) -> CacheError {
        CacheError { path: path.to_owned(), source }
    }
}

struct Entry {
    path: PathBuf,
    n_bytes: u64,
    used: SystemTime,
}

impl Entry {
    /// Whether it is whole and nobody needs it.
    fn may_go(&self, needed: &Needed) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.path.extension().is_none() && !needed.contains(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_kernels::FileBytes;
    use sha2::{Digest, Sha256};

    use super::*;

    fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    /// Whether there was room.
    fn put(cache: &Cache, bytes: &[u8], needed: &[&str]) -> bool {
        let needed = needed.iter().map(|name| (*name).to_owned()).collect();
        let Some(mut incoming) = cache.receive(&digest(bytes), bytes.len() as u64, &needed).unwrap() else {
            return false;
        };
        bytes.chunks(3).for_each(|piece| incoming.write(piece).unwrap());
        incoming.keep().unwrap();
        true
    }

    fn files(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_changed_on_the_disk_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1000).unwrap();
        assert!(put(&cache, b"weights", &[]));
        let name = digest(b"weights");
        assert_eq!(cache.get(&name).unwrap().as_deref(), Some(&b"weights"[..]));
        let (kept, mut part) = (cache.open_kept(&name).unwrap().unwrap(), [0; 3]);
        kept.read_at(2, &mut part).unwrap();
        assert_eq!((kept.n_bytes(), &part), (7, b"igh"));
        assert!(kept.read_at(5, &mut part).is_err(), "it ends at 7");
        fs::write(folder.path().join(&name), b"weightz").unwrap();
        assert_eq!(cache.get(&name).unwrap(), None);
    }

    #[test]
    fn the_oldest_file_that_is_not_needed_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 20).unwrap();
        let (a, b, c) = (digest(&[1; 10]), digest(&[2; 10]), digest(&[3; 10]));
        assert!(put(&cache, &[1; 10], &[]) && put(&cache, &[2; 10], &[]));
        let old = SystemTime::UNIX_EPOCH;
        fs::File::options().append(true).open(folder.path().join(&a)).unwrap().set_modified(old).unwrap();
        assert!(put(&cache, &[3; 10], &[&a]));
        assert!(!put(&cache, &[2; 10], &[&a, &c]));
        assert!(cache.has(&a, 10) && !cache.has(&b, 10) && cache.has(&c, 10));
        assert_eq!(cache.clear_unneeded(&Needed::from([a.clone()])), 10);
        assert_eq!(files(folder.path()), [a]);
    }

    #[test]
    fn nothing_half_written_outlives_its_failure() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1000).unwrap();
        let mut broken_off = cache.receive(&digest(b"weights"), 7, &Needed::new()).unwrap().unwrap();
        broken_off.write(b"wei").unwrap();
        drop(broken_off);
        let mut damaged = cache.receive(&digest(b"weights"), 7, &Needed::new()).unwrap().unwrap();
        damaged.write(b"weightz").unwrap();
        assert!(matches!(damaged.keep(), Err(KeepError::Digest { .. })));
        assert_eq!(files(folder.path()), [""; 0]);
        // Of a run that was killed.
        fs::write(folder.path().join("x.part"), b"wei").unwrap();
        Cache::open(folder.path().into(), 1000).unwrap();
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[test]
    fn the_folder_is_this_users_alone_and_made_again_when_it_was_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("agent/weights");
        let mode = || fs::metadata(&place).unwrap().permissions().mode() & 0o777;
        let cache = Cache::open(place.clone(), 1000).unwrap();
        assert_eq!(mode(), 0o700);
        fs::remove_dir(&place).unwrap();
        assert!(put(&cache, b"w", &[]));
        assert!(cache.has(&digest(b"w"), 1) && mode() == 0o700);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        Cache::open(place.clone(), 1000).unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_name_that_is_no_digest_reaches_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1000).unwrap();
        fs::write(folder.path().join("secret"), b"s").unwrap();
        assert_eq!(cache.get("../secret").unwrap(), None);
        assert!(cache.receive("../other", 1, &Needed::new()).unwrap().is_none());
        assert!(!folder.path().join("other").exists());
    }
}
