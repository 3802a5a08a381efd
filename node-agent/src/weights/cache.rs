//! The phone's disk cache: one file a tensor (or manifest), named by its SHA-256, within a size limit.
//!
//! A name says what the bytes must be, so a file is believed only after its digest was computed again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("weight cache at {}: {source}: free space there or choose another --data-dir", path.display())]
pub struct CacheError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// A folder of files named by their digests.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
}

// === impl Cache ===

impl Cache {
    /// Opens or makes the folder, and clears what an earlier run left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: PathBuf, limit_bytes: u64) -> Result<Self, CacheError> {
        let cache = Self { folder, limit_bytes };
        fs::create_dir_all(&cache.folder).map_err(|source| cache.error(&cache.folder, source))?;
        for entry in cache.entries()? {
            if entry.path.extension().is_some_and(|extension| extension == "part") {
                let _ = fs::remove_file(&entry.path);
            }
        }
        Ok(cache)
    }

    /// The bytes of that digest; `None` when they are not here or no longer what they were.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(None) };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error(&path, source)),
        };
        if hex::encode(Sha256::digest(&bytes)) != sha256 {
            tracing::warn!(path = %path.display(), "a cached file has changed on the disk; it is fetched again");
            let _ = fs::remove_file(&path);
            return Ok(None);
        }
        // The time of use is what decides who goes first when room is needed; a failure only makes that less exact.
        let _ = fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(bytes))
    }

    /// Whether a file of that digest and length is here. Its digest is checked when it is read.
    pub fn has(&self, sha256: &str, n_bytes: u64) -> bool {
        self.path_of(sha256).and_then(|path| fs::metadata(path).ok()).is_some_and(|file| file.len() == n_bytes)
    }

    /// Keeps bytes whose digest the caller has checked. Older files that are not in `needed` go first when the limit is
    /// reached; the answer is whether there was room.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&self, sha256: &str, bytes: &[u8], needed: &dyn Fn(&str) -> bool) -> Result<bool, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(false) };
        // Somebody may have cleared the folder while the agent ran.
        fs::create_dir_all(&self.folder).map_err(|source| self.error(&self.folder, source))?;
        if !self.make_room(bytes.len() as u64, needed)? {
            return Ok(false);
        }
        let part = path.with_extension("part");
        fs::write(&part, bytes).map_err(|source| self.error(&part, source))?;
        fs::rename(&part, &path).map_err(|source| self.error(&path, source))?;
        Ok(true)
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn make_room(&self, n_bytes: u64, needed: &dyn Fn(&str) -> bool) -> Result<bool, CacheError> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.n_bytes).sum();
        for entry in entries {
            if total + n_bytes <= self.limit_bytes {
                break;
            }
            let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !needed(name) && fs::remove_file(&entry.path).is_ok() {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    #[test]
    fn what_changed_on_the_disk_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1000).unwrap();
        let name = digest(b"weights");
        cache.put(&name, b"weights", &|_| false).unwrap();
        assert_eq!(cache.get(&name).unwrap().as_deref(), Some(&b"weights"[..]));
        fs::write(folder.path().join(&name), b"weightz").unwrap();
        assert_eq!(cache.get(&name).unwrap(), None);
    }

    #[test]
    fn the_oldest_file_that_is_not_needed_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 20).unwrap();
        let (a, b, c) = (digest(&[1; 10]), digest(&[2; 10]), digest(&[3; 10]));
        cache.put(&a, &[1; 10], &|_| false).unwrap();
        cache.put(&b, &[2; 10], &|_| false).unwrap();
        let old = SystemTime::UNIX_EPOCH;
        fs::File::options().append(true).open(folder.path().join(&a)).unwrap().set_modified(old).unwrap();
        assert!(cache.put(&c, &[3; 10], &|name| name == a).unwrap());
        assert!(!cache.put(&b, &[2; 10], &|_| true).unwrap());
        assert!(cache.has(&a, 10) && !cache.has(&b, 10) && cache.has(&c, 10));
    }

    #[test]
    fn a_folder_that_was_cleared_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("weights"), 1000).unwrap();
        fs::remove_dir(folder.path().join("weights")).unwrap();
        assert!(cache.put(&digest(b"w"), b"w", &|_| false).unwrap());
        assert!(cache.has(&digest(b"w"), 1));
    }

    #[test]
    fn a_name_that_is_no_digest_reaches_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), 1000).unwrap();
        fs::write(folder.path().join("secret"), b"s").unwrap();
        assert_eq!(cache.get("../secret").unwrap(), None);
        cache.put("../other", b"x", &|_| false).unwrap();
        assert!(!folder.path().join("other").exists());
    }
}
