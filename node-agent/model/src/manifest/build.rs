//! Building a manifest: the headers first, then one pass over all files, and all digests.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::digests::Digests;
use super::{FileEntry, Manifest, ManifestError, TensorEntry};
use crate::gguf::{Gguf, GgufTensor};
use crate::hyperparameters::{HyperparameterError, Hyperparameters};
use crate::role::Role;
use crate::source_files::{FilesError, SourceFile, SourceFiles};
use crate::text_side::{TextError, TextSide};

/// Why a model's files give no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Hyperparameters { path: PathBuf, source: HyperparameterError },
    #[error("{}: {source}", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{}: {source}", path.display())]
    Text { path: PathBuf, source: Box<TextError> },
    #[error(
        "{}: tensor `{tensor}` holds infinite values or some that are no numbers, so every answer would be nonsense; convert the model anew", path.display()
    )]
    NotFinite { path: PathBuf, tensor: String },
    #[error(
        "{}: tensor `{tensor}` holds a value that is no finite number above 0, and rotary positions are divided by it; convert the model anew", path.display()
    )]
    Divisor { path: PathBuf, tensor: String },
    #[error("the reading of {} was called off", path.display())]
    CalledOff { path: PathBuf },
    #[error("{} was written to or replaced while it was read; try again when it is whole", path.display())]
    Changed { path: PathBuf },
}

/// Raised with each change of what [`Manifest::build`] refuses: a manifest made under another is made anew.
pub const JUDGEMENT: u32 = 9;

// === impl Manifest ===

impl Manifest {
    /// Reads the model at `path` ([`SourceFiles::open`] says what that may be), each file once from start to end, and takes all digests on
    /// the way.
    ///
    /// # Errors
    /// [`ModelError`] with the path: an unreadable or damaged file, an unsupported model, a missing, unknown or
    /// misshapen tensor, a text side that no gateway could use, a value that is no number. All that the header tells comes before the
    /// digests, so a bad file is refused at once.
    pub fn build(path: &Path) -> Result<Self, ModelError> {
        Self::build_with_progress(path, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Manifest::build`]; `progress` is told the bytes read so far, about every MiB, and may call the reading off.
    pub fn build_with_progress(
        path: &Path,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, ModelError> {
        let files = SourceFiles::open(path)?;
        let mut manifest = Self::outline_of(&files, path)?;
        Digests::new(&files, progress).take(&mut manifest)?;
        Ok(manifest)
    }

    /// As [`Manifest::build`], from the headers alone: every digest is of zeros. Enough to plan with, and no more.
    ///
    /// # Errors
    /// As [`Manifest::build`], but for what only a whole reading finds.
    pub fn outline(path: &Path) -> Result<Self, ModelError> {
        Self::outline_of(&SourceFiles::open(path)?, path)
    }

    fn outline_of(files: &SourceFiles, path: &Path) -> Result<Self, ModelError> {
        let owned = || path.to_owned();
        let header = &files.header;
        let hyperparameters = Hyperparameters::from_gguf(header)
            .map_err(|source| ModelError::Hyperparameters { path: owned(), source })?;
        let unchecked = |source| ModelError::Manifest { path: owned(), source };
        let tensors = entries(header, &hyperparameters).map_err(unchecked)?;
        let entry = |file: &SourceFile| FileEntry { name: file.name(), n_bytes: file.len, sha256: no_digest() };
        let files_listed = files.files.iter().map(entry).collect();
        let mut manifest = Self { hyperparameters, end_tokens: Vec::new(), files: files_listed, tensors };
        manifest.check().map_err(unchecked)?;
        let text = TextSide::of(files, &manifest.hyperparameters);
        let text = text.map_err(|source| ModelError::Text { path: owned(), source: Box::new(source) })?;
        manifest.end_tokens = text.tokenizer.end_tokens().to_vec();
        Ok(manifest)
    }
}

/// The tensors by their places, digests still to come.
fn entries(gguf: &Gguf, hyperparameters: &Hyperparameters) -> Result<Vec<TensorEntry>, ManifestError> {
    let places: HashMap<String, (Role, Option<u32>)> = Role::expected(hyperparameters)
        .map(|(role, layer)| (role.tensor_name(hyperparameters, layer), (role, layer)))
        .collect();
    let entry = |tensor: &GgufTensor| match places.get(&tensor.name) {
        Some(&(role, layer)) => Ok(TensorEntry {
            name: tensor.name.clone(),
            role,
            layer,
            tensor_type: tensor.tensor_type,
            shape: tensor.shape.clone(),
            n_bytes: tensor.n_bytes,
            sha256: no_digest(),
            source: tensor.source.clone(),
        }),
        None => {
            let architecture = hyperparameters.architecture.to_string();
            Err(ManifestError::UnknownTensor { tensor: tensor.name.clone(), architecture })
        }
    };
    let mut entries = gguf.tensors.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.source.ranges.first().map(|range| (range.file, range.offset)));
    Ok(entries)
}

/// Stands for a digest that is not taken yet, so that the manifest can be checked before the long pass.
fn no_digest() -> String {
    "0".repeat(64)
}
