//! Kept manifests: what was made of files before, so that a restart is quick. Under the files' identity, never under their names alone.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use polyphony_model::{JUDGEMENT, Manifest, SourceFiles};
use sha2::{Digest, Sha256};

/// Manifests kept on disk; the oldest make room.
const MAX_KEPT: usize = 64;

/// The folder of manifests.
pub(super) struct Kept {
    folder: PathBuf,
}

/// Tells a model's files from what they were before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Each file that is one of the model's, whether it is there or not.
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Tells a file from what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
    /// Of its inode, so that a change of its owner or mode is one.
    changed: (i64, i64),
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The manifest of the files, if it is there and whole.
    pub(super) fn find(&self, path: &Path, identity: &Identity) -> Option<Manifest> {
        let json = std::fs::read(self.folder.join(identity.file_name(path))).ok()?;
        let manifest: Manifest = serde_json::from_slice(&json).ok()?;
        manifest.check().ok()?;
        Some(manifest)
    }

    pub(super) fn keep(&self, path: &Path, identity: &Identity, manifest_json: &[u8]) {
        let kept = self.folder.join(identity.file_name(path));
        // A manifest that cannot be kept is made again after the next start.
        if let Err(error) = polyphony_identity::write_private(&kept, manifest_json) {
            tracing::warn!(path = %kept.display(), %error, "cannot keep a manifest; the model is read again at the next start");
        }
        self.make_room();
    }

    /// Removes the oldest manifests over the limit.
    fn make_room(&self) {
        let Ok(folder) = std::fs::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<_> = folder
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        files.sort();
        let n_over = files.len().saturating_sub(MAX_KEPT);
        for (_, path) in files.into_iter().take(n_over) {
            let _ = std::fs::remove_file(path);
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Of the files of the model at `path` now; `None` where there is none. May wait for a slow disk.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let files = SourceFiles::named_by(path).ok()?.into_iter().map(|file| {
            let stamp = Stamp::of(&file);
            (file, stamp)
        });
        let files: Vec<_> = files.collect();
        files.iter().any(|(_, stamp)| stamp.is_some()).then_some(Self { files })
    }

    /// What was judged more kindly is judged anew. A file that only has another owner or mode is not read again.
    fn file_name(&self, path: &Path) -> String {
        let mut digest = Sha256::new();
        digest.update(path.as_os_str().as_encoded_bytes());
        digest.update(format!("\0{JUDGEMENT}"));
        for (file, stamp) in &self.files {
            let Some(Stamp { len, modified: (seconds, nanoseconds), .. }) = stamp else { continue };
            digest.update([0]);
            digest.update(file.as_os_str().as_encoded_bytes());
            digest.update(format!("\0{len}\0{seconds}.{nanoseconds}"));
        }
        format!("{}.json", hex::encode(digest.finalize()))
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
