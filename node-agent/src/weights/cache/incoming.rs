//! A file on its way into the cache: written and digested as it comes, and there under its name only when it is whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::{CacheError, PART};

/// A file that is coming. Dropped before it is [kept](Self::keep), it leaves nothing on the disk.
pub struct Incoming {
    path: PathBuf,
    part: PathBuf,
    file: File,
    digest: Sha256,
    expected: String,
    is_kept: bool,
}

/// Why what came is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("its digest is {actual}")]
    Digest { actual: String },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Tells files of one name apart that are on their way.
static N_BEGUN: AtomicU64 = AtomicU64::new(0);

// === impl Incoming ===

impl Incoming {
    pub(super) fn new(path: PathBuf, expected: &str) -> Result<Self, CacheError> {
        // One that is given up may be removed a moment after its successor began.
        let part = path.with_extension(format!("{}.{PART}", N_BEGUN.fetch_add(1, Ordering::Relaxed)));
        // Never through a link that lies there.
        let file = File::create_new(&part).map_err(|source| CacheError { path: part.clone(), source })?;
        Ok(Self { path, part, file, digest: Sha256::new(), expected: expected.to_owned(), is_kept: false })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), CacheError> {
        self.digest.update(piece);
        self.file.write_all(piece).map_err(|source| CacheError { path: self.part.clone(), source })
    }

    /// All has come: puts it in its place.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, or cannot be kept.
    pub fn keep(mut self) -> Result<(), KeepError> {
        let actual = hex::encode(std::mem::take(&mut self.digest).finalize());
        if actual != self.expected {
            return Err(KeepError::Digest { actual });
        }
        fs::rename(&self.part, &self.path).map_err(|source| CacheError { path: self.path.clone(), source })?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(&self.part);
        }
    }
}
