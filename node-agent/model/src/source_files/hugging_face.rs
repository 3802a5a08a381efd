//! Folders as Hugging Face has them: `config.json`, `tokenizer.json` and safetensors. What they say becomes what a GGUF file of the same
//! model would say, as llama.cpp's converter writes it.

mod config;
mod conversion;
mod index;
mod metadata;
mod rope;
mod tensors;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use config::ConfigError;

use super::naming::{CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS};
use super::safetensors::{self, Listed};
use super::{FilesError, SourceFile, SourceFiles, TextFiles};
use crate::gguf::Gguf;
use crate::tokenizer;
use config::{Config, ConfigFile, MAX_CONFIG_BYTES};
use index::{Index, MAX_INDEX_BYTES};
use tensors::Placed;

/// Why a folder gives no model, besides what is wrong with one of its files alone.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(
        "it has neither `{WEIGHTS}` nor `{INDEX}`: convert the model's weights to safetensors, or use a GGUF file of it"
    )]
    NoWeights,
    #[error("`{name}` has {found} bytes, over the limit of {limit}; it is damaged, fetch it again")]
    TooLong { name: &'static str, found: u64, limit: u64 },
    #[error("`{name}` is no UTF-8; it is damaged, fetch it again")]
    NotUtf8 { name: &'static str },
    #[error("`{INDEX}` is damaged: {why}; fetch it again")]
    Index { why: String },
    #[error("`weight_map` of `{INDEX}` names {name:?}, which is no safetensors file beside it; fetch it again")]
    ShardName { name: String },
    #[error("`weight_map.{tensor}` of `{INDEX}` is {shard:?}, but the tensor is not in that file; fetch both again")]
    NotInShard { tensor: String, shard: String },
    #[error("tensor `{tensor}` stands in {first} and in {second}; fetch the model again")]
    Twice { tensor: String, first: String, second: String },
    #[error("tensor `{tensor}` stands for the same as another; fetch the model again")]
    Same { tensor: String },
    #[error(
        "tensor `{tensor}` is not part of a {architecture} model as it is supported; leaving it out would change the answers"
    )]
    UnknownTensor { tensor: String, architecture: &'static str },
    #[error(
        "`{tensor}.dtype` is {found}, but F32, F16 and BF16 are taken only; use the model as it was published first, or a GGUF file of it"
    )]
    TensorType { tensor: String, found: &'static str },
    #[error("tensor `{tensor}` does not fit: {why}")]
    Unfit { tensor: String, why: String },
    #[error("`tie_word_embeddings` is false and tensor `lm_head.weight` is missing; fetch the model again")]
    NoOutput,
}

/// The field of both configurations that names the tokens at which an answer ends.
const END: &str = "eos_token_id";

/// The files of a folder, in the order of their names once all are there.
struct Opened {
    folder: PathBuf,
    files: BTreeMap<String, SourceFile>,
}

/// # Errors
/// [`FilesError`] with the file and the field.
pub(super) fn read(folder: &Path) -> Result<SourceFiles, FilesError> {
    let mut opened = Opened { folder: folder.to_owned(), files: BTreeMap::new() };
    let config = opened.bytes(CONFIG, MAX_CONFIG_BYTES)?;
    let in_config = |source| FilesError::Config { path: folder.join(CONFIG), source };
    let config = ConfigFile::parse(&config).map_err(in_config)?;
    let described = metadata::describe(config.fields()).map_err(in_config)?;
    let text = opened.text_files(config.fields())?;
    let placed = opened.tensors()?;

    let in_folder = |source| FilesError::Folder { path: folder.to_owned(), source };
    let shape = described.shape;
    let mut tensors = tensors::convert(&placed, described.conversion, shape).map_err(in_folder)?;
    if described.is_tied == Some(false) && !tensors.iter().any(|tensor| tensor.name == "output.weight") {
        return Err(in_folder(FolderError::NoOutput));
    }
    tensors.extend(described.tensors);
    let files: Vec<SourceFile> = opened.files.into_values().collect();
    let file_len = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.len));
    let header = Gguf { version: 3, metadata: described.metadata, tensors, file_len };
    Ok(SourceFiles { header, files, text: Some(text) })
}

// === impl Opened ===

impl Opened {
    fn file(&mut self, name: &str) -> Result<(File, u64), FilesError> {
        let (opened, file) = SourceFile::open(self.folder.join(name))?;
        let len = file.len;
        self.files.insert(name.to_owned(), file);
        Ok((opened, len))
    }

    fn error(&self, source: FolderError) -> FilesError {
        FilesError::Folder { path: self.folder.clone(), source }
    }

    /// All of a file.
    fn bytes(&mut self, name: &'static str, limit: u64) -> Result<Vec<u8>, FilesError> {
        let (opened, found) = self.file(name)?;
        if found > limit {
            return Err(self.error(FolderError::TooLong { name, found, limit }));
        }
        let mut bytes = Vec::with_capacity(found as usize);
        // It may have grown since; what is beyond its length is not waited for.
        let read = opened.take(found).read_to_end(&mut bytes);
        read.map_err(|source| FilesError::Io { path: self.folder.join(name), source })?;
        Ok(bytes)
    }

    fn bytes_if_any(&mut self, name: &'static str, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
        if self.folder.join(name).exists() { self.bytes(name, limit).map(Some) } else { Ok(None) }
    }

    /// What the files beside the tensors say of text.
    fn text_files(&mut self, config: Config<'_>) -> Result<TextFiles, FilesError> {
        let tokenizer = self.bytes(TOKENIZER, tokenizer::MAX_FILE_BYTES as u64)?;
        let tokenizer_config = self.bytes_if_any(TOKENIZER_CONFIG, tokenizer::MAX_CONFIG_BYTES as u64)?;
        let template = self.bytes_if_any(CHAT_TEMPLATE, MAX_CONFIG_BYTES)?;
        let template = template.map(String::from_utf8).transpose();
        let template = template.map_err(|_| self.error(FolderError::NotUtf8 { name: CHAT_TEMPLATE }))?;
        let generation = self.bytes_if_any(GENERATION_CONFIG, MAX_CONFIG_BYTES)?;
        let in_generation = |source| FilesError::Config { path: self.folder.join(GENERATION_CONFIG), source };
        let in_config = |source| FilesError::Config { path: self.folder.join(CONFIG), source };
        let mut end_tokens = config.u32s(END).map_err(in_config)?;
        if let Some(json) = generation {
            let generation = ConfigFile::parse(&json).map_err(in_generation)?;
            end_tokens.extend(generation.fields().u32s(END).map_err(in_generation)?);
        }
        end_tokens.sort_unstable();
        end_tokens.dedup();
        Ok(TextFiles { tokenizer, config: tokenizer_config, template, end_tokens })
    }

    /// Every tensor by its name, with the place of its file in the order of all files' names.
    fn tensors(&mut self) -> Result<BTreeMap<String, Placed>, FilesError> {
        if self.folder.join(WEIGHTS).exists() {
            let listed = self.list([WEIGHTS])?;
            return Ok(self.place(listed));
        }
        if !self.folder.join(INDEX).exists() {
            return Err(self.error(FolderError::NoWeights));
        }
        let index = self.bytes(INDEX, MAX_INDEX_BYTES)?;
        let index = Index::parse(&index).map_err(|error| self.error(error))?;
        let listed = self.list(index.files())?;
        let file_of = |tensor: &str| listed.get(tensor).map(|(shard, _)| shard.as_str());
        index.check(file_of).map_err(|error| self.error(error))?;
        Ok(self.place(listed))
    }

    /// The tensors of all shards, each with the name of its own.
    fn list<'a>(
        &mut self,
        shards: impl IntoIterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, (String, Listed)>, FilesError> {
        let mut all: BTreeMap<String, (String, Listed)> = BTreeMap::new();
        for shard in shards {
            let (mut opened, len) = self.file(shard)?;
            let damaged = |source| FilesError::Safetensors { path: self.folder.join(shard), source };
            for (tensor, listed) in safetensors::read(&mut opened, len).map_err(damaged)? {
                if let Some((first, _)) = all.get(&tensor) {
                    let (first, second) = (first.clone(), shard.to_owned());
                    return Err(self.error(FolderError::Twice { tensor, first, second }));
                }
                all.insert(tensor, (shard.to_owned(), listed));
            }
        }
        Ok(all)
    }

    fn place(&self, listed: BTreeMap<String, (String, Listed)>) -> BTreeMap<String, Placed> {
        let number: BTreeMap<&str, u32> = self.files.keys().map(String::as_str).zip(0..).collect();
        listed
            .into_iter()
            .map(|(name, (shard, listed))| (name, Placed { file: number[shard.as_str()], listed }))
            .collect()
    }
}
