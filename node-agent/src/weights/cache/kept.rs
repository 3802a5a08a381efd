//! A kept file: one of the cache whose digest was taken, open, to be read by range. What is on the disk is never in memory as a whole.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use polyphony_kernels::FileBytes;
use sha2::{Digest, Sha256};

/// A file whose bytes were those of its name when it was opened; a disk that gives others later is not noticed.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    file: File,
    n_bytes: usize,
}

/// Bytes hashed at a time.
const PIECE: usize = 1 << 20;

// === impl Kept ===

impl Kept {
    /// Reads the file at `path` once; `None` when its digest is another, or it is no file of at most `limit` bytes.
    pub(super) fn open(path: &Path, sha256: &str, limit: u64) -> io::Result<Option<Self>> {
        // What is no file of ours may block whoever opens it, or have no end.
        let found = path.symlink_metadata()?;
        if !found.is_file() || found.len() > limit {
            return Ok(None);
        }
        let file = File::open(path)?;
        let (mut digest, mut piece, mut n_bytes) = (Sha256::new(), vec![0; PIECE], 0);
        loop {
            match file.read_at(&mut piece, n_bytes as u64) {
                Ok(0) => break,
                Ok(n_read) => {
                    digest.update(&piece[..n_read]);
                    n_bytes += n_read;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((hex::encode(digest.finalize()) == sha256).then(|| Self { path: path.to_owned(), file, n_bytes }))
    }

    /// All of it.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.n_bytes];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl FileBytes for Kept {
    fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        self.file.read_exact_at(out, at as u64).map_err(named)
    }
}
