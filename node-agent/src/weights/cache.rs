//! The phone's disk cache: one file a tensor (or manifest), named by its SHA-256, within a size limit.
//!
//! A name says what the bytes must be, so a file is believed only after its digest was computed again.

mod hold;
mod incoming;
mod kept;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use hold::Hold;
pub use incoming::{Incoming, KeepError};
pub use kept::Kept;

use sha2::{Digest, Sha256};

use hold::Holds;

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
    holds: Holds,
}

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
        let cache = Self { folder, limit_bytes, holds: Holds::default() };
        cache.make_folder()?;
        // One of an earlier version was readable by all; where it is not ours to change, it stays as it is.
        let _ = fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o700));
        for path in cache.paths()?.filter(|path| path.extension().is_some_and(|extension| extension == PART)) {
            clear(&path);
        }
        Ok(cache)
    }

    /// The bytes of that digest; `None` when they are not here, no longer what they were, or more than `limit`.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn get(&self, sha256: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(kept) = self.open_kept(sha256, limit)? else { return Ok(None) };
        let bytes = kept.bytes().map_err(|source| self.error(&self.folder.join(sha256), source))?;
        // What is given is what was digested, whatever became of the disk meanwhile.
        Ok((hex::encode(Sha256::digest(&bytes)) == sha256).then_some(bytes))
    }

    /// The file of that digest, whose bytes were read once for it; `None` as [`get`](Self::get). A tensor of it is read by range.
    ///
    /// # Errors
    /// When a file is there but cannot be read.
    pub fn open_kept(&self, sha256: &str, limit: u64) -> Result<Option<Kept>, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(None) };
        let kept = match Kept::open(&path, sha256, limit) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error(&path, source)),
        };
        let Some(kept) = kept else {
            tracing::warn!(path = %path.display(), "a cached file has changed on the disk; it is fetched again");
            clear(&path);
            return Ok(None);
        };
        // The time of use is what decides who goes first when room is needed; a failure only makes that less exact.
        let _ = fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(kept))
    }

    /// Whether a file of that digest and length is here. Its digest is checked when it is read.
    pub fn has(&self, sha256: &str, n_bytes: u64) -> bool {
        let found = self.path_of(sha256).and_then(|path| path.symlink_metadata().ok());
        found.is_some_and(|file| file.is_file() && file.len() == n_bytes)
    }

    /// A hold on files of this cache, on none yet.
    pub fn hold(&self) -> Hold {
        self.holds.begin()
    }

    /// Takes in `n_bytes` of that digest as they come. When the limit is reached older files make room, those last that others hold, and
    /// those that `own` holds never; `None` when there is no room even so, or the name is no digest.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn receive(&self, sha256: &str, n_bytes: u64, own: &Hold) -> Result<Option<Incoming>, CacheError> {
        let Some(path) = self.path_of(sha256) else { return Ok(None) };
        // Somebody may have cleared the folder while the agent ran.
        self.make_folder()?;
        // A folder could not be written over.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            clear(&path);
        }
        if !self.make_room(n_bytes, own)? {
            return Ok(None);
        }
        Incoming::new(path, sha256).map(Some)
    }

    /// Frees `n_bytes` of a disk that is full, if so much lies in files that nobody holds: the oldest go. Says how many bytes did.
    pub fn make_way(&self, n_bytes: u64) -> u64 {
        let Ok(mut entries) = self.entries() else { return 0 };
        let held = self.holds.digests();
        entries.retain(|entry| entry.is_whole() && !held.contains(entry.name()));
        entries.sort_by_key(|entry| entry.used);
        let mut freed = 0;
        for entry in entries {
            if freed >= n_bytes {
                break;
            }
            if fs::remove_file(&entry.path).is_ok() {
                freed += entry.n_bytes;
            }
        }
        freed
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn make_folder(&self) -> Result<(), CacheError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| self.error(&self.folder, source))
    }

    fn make_room(&self, n_bytes: u64, own: &Hold) -> Result<bool, CacheError> {
        let mut entries = self.entries()?;
        let mut total: u64 = entries.iter().map(|entry| entry.n_bytes).sum();
        if total + n_bytes <= self.limit_bytes {
            return Ok(true);
        }
        let held = self.holds.digests();
        entries.retain(|entry| entry.is_whole() && !own.has(entry.name()));
        entries.sort_by_key(|entry| (held.contains(entry.name()), entry.used));
        for entry in entries {
            if total + n_bytes <= self.limit_bytes {
                break;
            }
            if fs::remove_file(&entry.path).is_ok() {
                total -= entry.n_bytes;
            }
        }
        Ok(total + n_bytes <= self.limit_bytes)
    }

    fn paths(&self) -> Result<impl Iterator<Item = PathBuf>, CacheError> {
        let listing = fs::read_dir(&self.folder).map_err(|source| self.error(&self.folder, source))?;
        Ok(listing.flatten().map(|entry| entry.path()))
    }

    /// The files, of which none is a link.
    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let entry_of = |path: PathBuf| {
            let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(Entry { path, n_bytes: metadata.len(), used })
        };
        Ok(self.paths()?.filter_map(entry_of).collect())
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

/// Removes whatever is there in the place of a file of the cache. What cannot be removed is told when the file is written.
fn clear(path: &Path) {
    let _ = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
}

struct Entry {
    path: PathBuf,
    n_bytes: u64,
    used: SystemTime,
}

impl Entry {
    /// Its digest, where it is whole.
    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.path.extension().is_none()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    /// Whether there was room.
    fn put(cache: &Cache, bytes: &[u8], own: &[&str]) -> bool {
        let hold = cache.hold();
        hold.keep(own.iter().map(|name| (*name).to_owned()));
        let Some(mut incoming) = cache.receive(&digest(bytes), bytes.len() as u64, &hold).unwrap() else {
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
        assert_eq!(cache.get(&name, 7).unwrap().as_deref(), Some(&b"weights"[..]));
        fs::write(folder.path().join(&name), b"weightz").unwrap();
        assert_eq!(cache.get(&name, 7).unwrap(), None);
    }

    #[test]
    fn what_is_no_file_of_its_length_is_neither_read_nor_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1000).unwrap();
        let name = digest(b"weights");
        let place = folder.path().join(&name);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("w"), b"weights").unwrap();
        let link = |to: &Path| std::os::unix::fs::symlink(to, &place).unwrap();
        let makes: [&dyn Fn(); 5] = [
            &|| fs::create_dir_all(place.join("inside")).unwrap(),
            // It would be read for ever.
            &|| link(Path::new("/dev/zero")),
            &|| link(&elsewhere.path().join("w")),
            &|| link(elsewhere.path()),
            // So would this, nearly.
            &|| fs::File::create(&place).unwrap().set_len(1 << 40).unwrap(),
        ];
        for (n, make) in makes.iter().enumerate() {
            for is_opened in [true, false] {
                make();
                assert!(!cache.has(&name, 7), "{n}");
                if is_opened {
                    assert!(cache.open_kept(&name, 7).unwrap().is_none(), "{n}");
                    assert!(place.symlink_metadata().is_err(), "{n}");
                }
                assert!(put(&cache, b"weights", &[]), "{n}");
                assert!(cache.get(&name, 7).unwrap().is_some(), "{n}");
                fs::remove_file(&place).unwrap();
            }
        }
        assert_eq!(fs::read(elsewhere.path().join("w")).unwrap(), b"weights");
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
    }

    #[test]
    fn what_somebody_holds_goes_last_and_never_for_a_disk_that_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 40).unwrap();
        let names: Vec<String> = (1..=5).map(|n| digest(&[n; 10])).collect();
        let age = |n: u64| {
            let used = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n);
            let file = fs::File::options().append(true).open(folder.path().join(&names[n as usize])).unwrap();
            file.set_modified(used).unwrap();
        };
        for n in 0..4 {
            assert!(put(&cache, &[n + 1; 10], &[]));
            age(n.into());
        }
        // A segment serves on the two oldest.
        let serves = cache.hold();
        serves.keep([names[0].clone(), names[1].clone()]);
        assert_eq!(cache.make_way(5), 10);
        assert!(
            !cache.has(&names[2], 10) && cache.has(&names[3], 10),
            "the oldest of the others, and no more than is wanted"
        );
        assert_eq!(cache.make_way(1000), 10);
        assert!(cache.has(&names[0], 10) && cache.has(&names[1], 10));
        assert_eq!(cache.make_way(1000), 0);
        // A limit that is too small for both is no reason not to load the second.
        assert!(put(&cache, &[5; 10], &[]) && put(&cache, &[6; 30], &[&names[4]]));
        assert!(!cache.has(&names[0], 10) && !cache.has(&names[1], 10) && cache.has(&names[4], 10));
        let loads = cache.hold();
        loads.keep([names[4].clone()]);
        assert_eq!(cache.make_way(1000), 30);
        drop(loads);
        assert_eq!(cache.make_way(1000), 10);
    }

    #[test]
    fn nothing_half_written_outlives_its_failure() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().into(), 1000).unwrap();
        let mut broken_off = cache.receive(&digest(b"weights"), 7, &cache.hold()).unwrap().unwrap();
        broken_off.write(b"wei").unwrap();
        drop(broken_off);
        let mut damaged = cache.receive(&digest(b"weights"), 7, &cache.hold()).unwrap().unwrap();
        damaged.write(b"weightz").unwrap();
        assert!(matches!(damaged.keep(), Err(KeepError::Digest { .. })));
        assert_eq!(files(folder.path()), [""; 0]);
        // Of a run that was killed.
        fs::write(folder.path().join("x.part"), b"wei").unwrap();
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        let link = folder.path().join(format!("{}.0.part", digest(b"weights")));
        std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        fs::create_dir(folder.path().join("y.part")).unwrap();
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
        assert_eq!(cache.get("../secret", 7).unwrap(), None);
        assert!(cache.receive("../other", 1, &cache.hold()).unwrap().is_none());
        assert!(!folder.path().join("other").exists());
    }
}
