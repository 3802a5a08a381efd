//! Building a manifest: one pass over the model file, all digests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::finite::FiniteCheck;
use super::{Manifest, ManifestError, TensorEntry};
use crate::gguf::{Gguf, GgufError, GgufTensor};
use crate::hyperparameters::{HyperparameterError, Hyperparameters};
use crate::model_file;
use crate::role::Role;
use crate::text_side::{TextError, TextSide};
use crate::tokenizer::end_tokens;

/// Why a model file gives no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("{}: {source}", path.display())]
    Hyperparameters { path: PathBuf, source: HyperparameterError },
    #[error("{}: {source}", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{}: {source}", path.display())]
    Text { path: PathBuf, source: TextError },
    #[error(
        "{}: tensor `{tensor}` holds infinite values or some that are no numbers, so every answer would be nonsense; convert the model anew", path.display()
    )]
    NotFinite { path: PathBuf, tensor: String },
    #[error("the reading of {} was called off", path.display())]
    CalledOff { path: PathBuf },
    #[error("{} had {expected} bytes and now has {found}: it was written to while it was read; try again when it is whole", path.display())]
    Changed { path: PathBuf, expected: u64, found: u64 },
}

/// Raised with each change of what [`Manifest::build`] refuses: a manifest made under another is made anew.
pub const JUDGEMENT: u32 = 4;
/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

// === impl Manifest ===

impl Manifest {
    /// Reads the model file at `path` once, from start to end, and takes all digests on the way.
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
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = model_file::open(path).map_err(io)?;
        let mut manifest = Self::outline_of(&mut file, path)?;
        let file_len = manifest.file_len;

        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let found = manifest.take_digests(&mut file, path, progress)?;
        if found != file_len {
            return Err(ModelError::Changed { path: path.to_owned(), expected: file_len, found });
        }
        Ok(manifest)
    }

    /// As [`Manifest::build`], from the file's header alone: every digest is of zeros. Enough to plan with, and no more.
    ///
    /// # Errors
    /// As [`Manifest::build`], but for what only a whole reading finds.
    pub fn outline(path: &Path) -> Result<Self, ModelError> {
        let mut file = model_file::open(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Self::outline_of(&mut file, path)
    }

    fn outline_of(file: &mut File, path: &Path) -> Result<Self, ModelError> {
        let owned = || path.to_owned();
        let gguf = Gguf::read(file).map_err(|source| ModelError::Gguf { path: owned(), source })?;
        let hyperparameters = Hyperparameters::from_gguf(&gguf)
            .map_err(|source| ModelError::Hyperparameters { path: owned(), source })?;
        let end_tokens = end_tokens(&gguf.metadata).map_err(|source| ModelError::Gguf { path: owned(), source })?;
        let unchecked = |source| ModelError::Manifest { path: owned(), source };
        let tensors = entries(&gguf, &hyperparameters).map_err(unchecked)?;
        let manifest = Self { hyperparameters, end_tokens, file_len: gguf.file_len, file_sha256: no_digest(), tensors };
        manifest.check().map_err(unchecked)?;
        TextSide::from_gguf(&gguf, &manifest.hyperparameters)
            .map_err(|source| ModelError::Text { path: owned(), source })?;
        Ok(manifest)
    }

    /// Fills in every digest from `reader`, which stands at the start of the file; gives the bytes read.
    fn take_digests(
        &mut self,
        reader: &mut impl Read,
        path: &Path,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, ModelError> {
        let mut whole = Sha256::new();
        let mut current = Sha256::new();
        let mut tensors = self.tensors.iter_mut().peekable();
        let mut finite = tensors.peek().map(|entry| FiniteCheck::new(entry.tensor_type));
        let mut position = 0_u64;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n_read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(n_read) => n_read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ModelError::Io { path: path.to_owned(), source }),
            };
            let bytes = &chunk[..n_read];
            whole.update(bytes);
            let chunk_end = position + n_read as u64;
            // Tensors lie in ascending order and apart (checked), so at most the last one goes on past this chunk.
            while let Some(entry) = tensors.peek_mut() {
                let entry_end = entry.offset + entry.n_bytes;
                let from = entry.offset.max(position).min(chunk_end) - position;
                let to = entry_end.min(chunk_end) - position;
                let part = &bytes[from as usize..to.max(from) as usize];
                current.update(part);
                if finite.as_mut().is_some_and(|finite| !finite.take(part)) {
                    return Err(ModelError::NotFinite { path: path.to_owned(), tensor: entry.name.clone() });
                }
                if entry_end > chunk_end {
                    break;
                }
                entry.sha256 = hex::encode(current.finalize_reset());
                tensors.next();
                finite = tensors.peek().map(|entry| FiniteCheck::new(entry.tensor_type));
            }
            position = chunk_end;
            if progress(position).is_break() {
                return Err(ModelError::CalledOff { path: path.to_owned() });
            }
        }
        self.file_sha256 = hex::encode(whole.finalize());
        Ok(position)
    }
}

/// The tensors by offset, digests still to come.
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
            offset: tensor.offset,
            n_bytes: tensor.n_bytes,
            sha256: no_digest(),
        }),
        None => {
            let architecture = hyperparameters.architecture.to_string();
            Err(ManifestError::UnknownTensor { tensor: tensor.name.clone(), architecture })
        }
    };
    let mut entries = gguf.tensors.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.offset);
    Ok(entries)
}

/// Stands for a digest that is not taken yet, so that the manifest can be checked before the long pass.
fn no_digest() -> String {
    "0".repeat(64)
}
