//! The text side of a model: all that a gateway uses of its file. The tensors are the other side ([`crate::Manifest`]).

use std::path::Path;

use crate::chat_template::{ChatTemplate, TemplateError};
use crate::gguf::{Gguf, GgufError};
use crate::hyperparameters::{HyperparameterError, Hyperparameters};
use crate::source_files::{FilesError, SourceFiles};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// What turns text into tokens and back, whole and tried out.
#[derive(Debug)]
pub struct TextSide {
    pub tokenizer: Tokenizer,
    /// `None` in a file without one: it is no chat model.
    pub template: Option<ChatTemplate>,
}

/// Why a model could be loaded and yet not be asked anything.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Hyperparameters(#[from] HyperparameterError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(
        "`tokenizer.ggml.tokens` has {tokens} tokens, but `token_embd.weight` has {rows} rows, so the last have no embedding; convert the model anew"
    )]
    Rows { tokens: u32, rows: u32 },
}

// === impl TextSide ===

impl TextSide {
    /// The text side of the model at `path`, of whose files the headers alone are read.
    ///
    /// # Errors
    /// As [`TextSide::from_gguf`], and what keeps the files from being read.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let files = SourceFiles::open(path)?;
        let hyperparameters = Hyperparameters::from_gguf(&files.header)?;
        Self::of(&files, &hyperparameters)
    }

    /// The text side of a model whose headers are read.
    ///
    /// # Errors
    /// As [`TextSide::from_gguf`].
    pub fn of(files: &SourceFiles, of: &Hyperparameters) -> Result<Self, TextError> {
        let Some(text) = &files.text else { return Self::from_gguf(&files.header, of) };
        let mut side = Self::from_json(&text.tokenizer, text.config.as_deref(), text.template.as_deref(), of)?;
        side.tokenizer.add_end_tokens(&text.end_tokens);
        Ok(side)
    }

    /// # Errors
    /// An unsupported kind of tokenizer, a vocabulary that contradicts itself or the embedding, a chat template that does not compile or
    /// fails on the simplest of chats.
    pub fn from_gguf(gguf: &Gguf, of: &Hyperparameters) -> Result<Self, TextError> {
        Self::tried_out(Tokenizer::from_gguf(gguf)?, ChatTemplate::from_gguf(gguf), of)
    }

    /// The same of files in the hub's form: `tokenizer.json`, and where they are there `tokenizer_config.json` and `chat_template.jinja`.
    ///
    /// # Errors
    /// As [`TextSide::from_gguf`].
    pub fn from_json(
        tokenizer: &[u8],
        config: Option<&[u8]>,
        jinja: Option<&str>,
        of: &Hyperparameters,
    ) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_json(tokenizer, config)?;
        let config = config.map(serde_json::from_slice).transpose();
        let config = config.map_err(|source| TokenizerError::Json { name: "tokenizer_config.json", source })?;
        let template = ChatTemplate::from_config(&config.unwrap_or_default(), jinja, &tokenizer.control_names());
        Self::tried_out(tokenizer, template, of)
    }

    fn tried_out(
        tokenizer: Tokenizer,
        template: Result<ChatTemplate, TemplateError>,
        of: &Hyperparameters,
    ) -> Result<Self, TextError> {
        if tokenizer.n_vocab() > of.vocab_size {
            return Err(TextError::Rows { tokens: tokenizer.n_vocab(), rows: of.vocab_size });
        }
        let template = match template {
            Ok(template) => Some(template),
            Err(TemplateError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        template.as_ref().map_or(Ok(()), ChatTemplate::try_out)?;
        Ok(Self { tokenizer, template })
    }
}
