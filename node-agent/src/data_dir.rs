//! The agent's data folder: this user's alone, and one agent's at a time.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The folder while this agent has it. Dropped, or however the agent ends, another may have it.
pub struct DataDir {
    _lock: File,
}

/// Why the folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data folder {}: {source}; make it readable and writable for this user, or choose another --data-dir", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("another agent{} runs in the data folder {}: stop it, or give this one another --data-dir", holder.as_ref().map_or_else(String::new, |pid| format!(" (pid {pid})")), path.display())]
    InUse { path: PathBuf, holder: Option<String> },
}

/// No process id is longer.
const MAX_PID_BYTES: u64 = 20;

// === impl DataDir ===

impl DataDir {
    /// Makes the folder where it is missing, and takes it.
    ///
    /// # Errors
    /// When it cannot be used, or another agent has it.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let error = |source| DataDirError::Folder { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut lock = options.open(path.join("agent.lock")).map_err(error)?;
        // The standard library's own locks do not know Android.
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only to say who it is.
                let _ = lock.take(MAX_PID_BYTES).read_to_string(&mut holder);
                let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
                return Err(DataDirError::InUse { path: path.to_owned(), holder });
            }
            Err(errno) => return Err(error(errno.into())),
        }
        // On a full disk it stays unsaid who has it; the lock holds all the same.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_one_agents_at_a_time_and_this_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone-1");
        let first = DataDir::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataDir::take(&path).err().unwrap().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())) && error.contains("--data-dir"), "{error}");
        drop(first);
        DataDir::take(&path).unwrap();
    }
}
