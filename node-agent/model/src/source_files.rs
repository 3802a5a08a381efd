//! Source files: the files of a model, what they say, and where in them each tensor lies. All formats become this one form.
//!
//! What files say is put into GGUF's words, as llama.cpp's converter would write them, so that nothing after this knows another
//! format. A format is a file in this room: a function from paths to [`SourceFiles`].

mod gguf_parts;
mod hugging_face;
mod naming;
mod safetensors;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use gguf_parts::PartsError;
pub use hugging_face::{ConfigError, FolderError};
pub use safetensors::SafetensorsError;

use crate::gguf::{Gguf, GgufError};
use crate::model_file;
use naming::Named;

pub(crate) use naming::folder_of;

/// A model's files, their headers read.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    /// What they say of the model and its tensors, whose sources count `files`.
    pub header: Gguf,
    /// By name.
    pub files: Vec<SourceFile>,
    /// What turns text into tokens, where the header does not say it.
    pub text: Option<TextFiles>,
}

/// The text side of a model whose header does not have it: what files beside it say.
#[derive(Clone, Debug)]
pub struct TextFiles {
    /// Bytes of `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// Bytes of `tokenizer_config.json`.
    pub config: Option<Vec<u8>>,
    /// `chat_template.jinja`.
    pub template: Option<String>,
    /// Tokens that the model's configuration names as ends of an answer, ascending.
    pub end_tokens: Vec<u32>,
}

/// One of a model's files, as it was when its header was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    pub len: u64,
    stamp: Stamp,
}

/// Tells a file from another, and from what it is after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

/// Why a path gives no model.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Gguf { path: PathBuf, source: GgufError },
    #[error("{}: {source}", path.display())]
    Parts { path: PathBuf, source: PartsError },
    #[error("{}: {source}", path.display())]
    Safetensors { path: PathBuf, source: SafetensorsError },
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: FolderError },
    #[error(
        "{} names no model: there is no GGUF file of that name, and no folder with a `config.json` and safetensors; name a file, any part of one that was split, or the folder of a model",
        path.display()
    )]
    Nothing { path: PathBuf },
    #[error("{} names several models, {}; name one of them", path.display(), listed(names, *n_more))]
    Several { path: PathBuf, names: Vec<String>, n_more: usize },
    #[error("{} has more than {limit} files of models; put the model into a folder of its own", path.display())]
    TooMany { path: PathBuf, limit: usize },
}

/// Names as a sentence has them.
fn listed(names: &[String], n_more: usize) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match (n_more, quoted.split_last()) {
        (0, Some((last, before))) => format!("{} and {last}", before.join(", ")),
        _ => format!("{} and {n_more} more", quoted.join(", ")),
    }
}

// === impl SourceFiles ===

impl SourceFiles {
    /// Reads the headers of the model at `path`: a GGUF file, any part of one that was split, a pattern that fits the parts of one, or a
    /// folder.
    ///
    /// # Errors
    /// [`FilesError`] with the file that is missing, damaged or of another model.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        match naming::named(path)? {
            Named::Gguf(path) => Self::of_gguf(path),
            Named::Parts(paths) => gguf_parts::read(paths),
            Named::Folder(path) => hugging_face::read(&path),
        }
    }

    /// Every file whose change is a change of the model at `path`, whether it is there or not. Reads none of them.
    ///
    /// # Errors
    /// When nothing of a model is there.
    pub fn named_by(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
        naming::files_of(path)
    }

    fn of_gguf(path: PathBuf) -> Result<Self, FilesError> {
        let (mut opened, file) = SourceFile::open(path)?;
        let header = Gguf::read(&mut opened).map_err(|source| file.damaged(source))?;
        gguf_parts::refuse_part(&header.metadata).map_err(|source| file.no_part(source))?;
        Ok(Self { header, files: vec![file], text: None })
    }
}

// === impl SourceFile ===

impl SourceFile {
    /// Opens the file to read its header.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub(crate) fn open(path: PathBuf) -> Result<(File, Self), FilesError> {
        let opened = model_file::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) => {
                let stamp = Stamp::of(&metadata);
                Ok((file, Self { path, len: metadata.len(), stamp }))
            }
            Err(source) => Err(FilesError::Io { path, source }),
        }
    }

    /// Opens it again; `None` when another file, or another state of it, is there now.
    ///
    /// # Errors
    /// What keeps it from being opened.
    pub(crate) fn reopen(&self) -> io::Result<Option<File>> {
        let file = model_file::open(&self.path)?;
        Ok(self.is_still(&file)?.then_some(file))
    }

    /// Whether `file` is what this was.
    pub(crate) fn is_still(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        Ok(metadata.len() == self.len && Stamp::of(&metadata) == self.stamp)
    }

    /// Its name within its folder; text that is none is shown as far as it can be.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn damaged(&self, source: GgufError) -> FilesError {
        FilesError::Gguf { path: self.path.clone(), source }
    }

    fn no_part(&self, source: PartsError) -> FilesError {
        FilesError::Parts { path: self.path.clone(), source }
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}
