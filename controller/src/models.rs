//! Models: files that the host verifies once and then serves piece by piece.
//!
//! The digests of a file are taken once; the manifest is kept in the data folder under the file's identity (path, length,
//! time of last change), so that a restart is quick. Decides nothing: `reconcile` asks for work and writes what came of it.

pub mod source;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use polyphony_model::{Manifest, ModelError};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, Semaphore};

use source::{Source, SourceError};

/// Manifests kept on disk; the oldest make room.
const MAX_CACHED: usize = 64;

/// A model that is verified and served.
#[derive(Debug, PartialEq)]
pub struct Resolved {
    pub path: PathBuf,
    pub manifest: Manifest,
    /// The exact bytes whose SHA-256 is `digest`.
    pub manifest_json: Bytes,
    pub digest: String,
}

/// What a Model object asks for. Its spec is immutable, so its uid names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub uid: String,
    pub source: String,
    pub sha256: Option<String>,
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The file is being read.
    Verifying,
    Resolved(Arc<Resolved>),
    Refused(Refusal),
}

/// Why a model is not served: a reason for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

/// All models of this process.
pub struct ModelStore {
    folder: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// One file is read at a time: two would only share the disk.
    reading: Arc<Semaphore>,
    /// Woken when a model got further.
    pub changed: Notify,
}

struct Entry {
    path: Option<PathBuf>,
    /// The file as it was when `progress` was found.
    identity: Option<Identity>,
    progress: Progress,
}

/// Tells a file from what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: (i64, i64),
}

// === impl ModelStore ===

impl ModelStore {
    /// # Errors
    /// When the folder for manifests cannot be made.
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, entries: Mutex::default(), reading: Arc::new(Semaphore::new(1)), changed: Notify::new() })
    }

    /// How far the model with this uid is; `None` when nobody has asked for it, or its file is another one by now.
    pub fn progress(&self, uid: &str) -> Option<Progress> {
        let entries = self.lock();
        let entry = entries.get(uid)?;
        let current = entry.path.as_deref().and_then(Identity::of);
        let is_current = matches!(entry.progress, Progress::Verifying) || current == entry.identity;
        is_current.then(|| entry.progress.clone())
    }

    /// The resolved model with this manifest digest.
    pub fn by_digest(&self, digest: &str) -> Option<Arc<Resolved>> {
        self.lock().values().find_map(|entry| match &entry.progress {
            Progress::Resolved(resolved) if resolved.digest == digest => Some(resolved.clone()),
            _ => None,
        })
    }

    /// Forgets every model but those with these uids.
    pub fn retain(&self, uids: &std::collections::BTreeSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Starts to verify a model, unless that goes on already. [`ModelStore::progress`] tells what came of it.
    pub fn resolve(self: &Arc<Self>, wanted: Wanted) {
        let source = Source::parse(&wanted.source).map_err(|error| Refusal::of_source(&error));
        let path = source.as_ref().ok().map(|source| source.path().to_owned());
        {
            let mut entries = self.lock();
            if entries.get(&wanted.uid).is_some_and(|entry| entry.progress == Progress::Verifying) {
                return;
            }
            let entry = Entry { path: path.clone(), identity: None, progress: Progress::Verifying };
            entries.insert(wanted.uid.clone(), entry);
        }
        let store = self.clone();
        tokio::spawn(async move {
            let place = store.reading.clone().acquire_owned().await.expect("the semaphore is never closed");
            let worker = store.clone();
            let sha256 = wanted.sha256.clone();
            let found = tokio::task::spawn_blocking(move || {
                let path = match source {
                    Ok(source) => source.path().to_owned(),
                    Err(refusal) => return (None, Err(refusal)),
                };
                let identity = Identity::of(&path);
                let result = worker.verify(&path, identity.as_ref(), sha256.as_deref());
                (identity, result)
            })
            .await;
            drop(place);
            let (identity, result) = found.unwrap_or_else(|_| (None, Err(Refusal::of_panic(&wanted.source))));
            let progress = match result {
                Ok(resolved) => Progress::Resolved(resolved),
                Err(refusal) => Progress::Refused(refusal),
            };
            if let Some(entry) = store.lock().get_mut(&wanted.uid) {
                *entry = Entry { path, identity, progress };
            }
            store.changed.notify_one();
        });
    }

    /// Reads the file, or the manifest that was made of it before.
    fn verify(&self, path: &Path, identity: Option<&Identity>, sha256: Option<&str>) -> Result<Arc<Resolved>, Refusal> {
        let cached = identity.map(|identity| self.folder.join(identity.file_name(path)));
        let known = cached.as_deref().and_then(read_manifest);
        let is_new = known.is_none();
        let manifest = match known {
            Some(manifest) => manifest,
            None => Manifest::build(path).map_err(|error| Refusal::of_file(path, &error))?,
        };
        let manifest_json = serde_json::to_vec(&manifest).map_err(|error| Refusal {
            reason: "InvalidFile",
            message: format!("{} gives no manifest: {error}; convert the model anew", path.display()),
        })?;
        if is_new && let Some(cached) = cached {
            // A manifest that cannot be kept is made again after the next start.
            if let Err(error) = crate::secret::write_private(&cached, &manifest_json) {
                tracing::warn!(path = %cached.display(), %error, "cannot keep a manifest; the model is read again at the next start");
            }
            self.make_room();
        }
        if let Some(expected) = sha256
            && manifest.file_sha256 != expected
        {
            return Err(Refusal {
                reason: "DigestMismatch",
                message: format!(
                    "{} has the SHA-256 {}, but spec.sha256 says {expected}: fetch the file again, or create a Model with the digest of this one",
                    path.display(),
                    manifest.file_sha256
                ),
            });
        }
        let digest = hex::encode(Sha256::digest(&manifest_json));
        Ok(Arc::new(Resolved { path: path.to_owned(), manifest, manifest_json: manifest_json.into(), digest }))
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
        let n_over = files.len().saturating_sub(MAX_CACHED);
        for (_, path) in files.into_iter().take(n_over) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Entries are replaced whole, so a panic elsewhere leaves none half-written.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kept manifest, if it is there and whole.
fn read_manifest(path: &Path) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    manifest.check().ok()?;
    Some(manifest)
}

// === impl Identity ===

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }

    fn file_name(&self, path: &Path) -> String {
        let (seconds, nanoseconds) = self.modified;
        let mut digest = Sha256::new();
        digest.update(path.as_os_str().as_encoded_bytes());
        digest.update(format!("\0{}\0{seconds}.{nanoseconds}", self.len));
        format!("{}.json", hex::encode(digest.finalize()))
    }
}

// === impl Refusal ===

impl Refusal {
    fn of_source(error: &SourceError) -> Self {
        Self { reason: "InvalidSource", message: error.to_string() }
    }

    fn of_file(path: &Path, error: &ModelError) -> Self {
        match error {
            ModelError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Self {
                reason: "FileNotFound",
                message: format!(
                    "there is no file {}: put the model there, or create a Model with another source",
                    path.display()
                ),
            },
            ModelError::Io { .. } => {
                Self { reason: "FileUnreadable", message: format!("{error}; let the user of the controller read it") }
            }
            ModelError::Hyperparameters {
                source: polyphony_model::HyperparameterError::Architecture { .. }, ..
            }
            | ModelError::Manifest { source: polyphony_model::ManifestError::UnknownTensor { .. }, .. } => {
                Self { reason: "Unsupported", message: error.to_string() }
            }
            ModelError::Changed { .. } => Self { reason: "FileChanged", message: error.to_string() },
            ModelError::Gguf { .. } | ModelError::Hyperparameters { .. } | ModelError::Manifest { .. } => {
                Self { reason: "InvalidFile", message: error.to_string() }
            }
        }
    }

    fn of_panic(source: &str) -> Self {
        Self {
            reason: "InvalidFile",
            message: format!("the reader of model files broke on {source}: report this as a bug, with the file"),
        }
    }
}

/// The bytes of each layer that a model status lists.
pub fn layer_bytes(manifest: &Manifest) -> Vec<u64> {
    let mut of_layer: HashMap<u32, u64> = HashMap::new();
    for tensor in &manifest.tensors {
        if let Some(layer) = tensor.layer {
            *of_layer.entry(layer).or_default() += tensor.n_bytes;
        }
    }
    (0..manifest.hyperparameters.n_layers).map(|layer| of_layer.get(&layer).copied().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests;
