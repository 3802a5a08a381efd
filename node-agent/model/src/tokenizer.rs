//! Tokenizer: text to tokens and back, from the vocabulary in a GGUF file. Adds no begin token unless asked.

mod byte_level;
mod pre_tokenizer;
mod specials;
mod text_stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::models::bpe::{BPE, Vocab};

pub use text_stream::TextStream;

use crate::gguf::{Gguf, GgufError, Metadata};
use crate::prompt::{Prompt, PromptPart};
use specials::Specials;

/// Byte-level byte-pair encoding with a model's own vocabulary.
///
/// Control tokens are kept apart from the text: `encode` finds them by name only where it is told to, so that what a
/// user types cannot pose as one.
pub struct Tokenizer {
    encoder: tokenizers::Tokenizer,
    specials: Specials,
    /// The bytes that each token stands for.
    pieces: Vec<Box<[u8]>>,
    is_control: Vec<bool>,
    bos: Option<u32>,
    eos: Option<u32>,
    end_tokens: Vec<u32>,
    add_bos: bool,
}

/// Why a file gives no tokenizer, or a text no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("{}: {source}", path.display())]
    Open { path: PathBuf, source: GgufError },
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("tokenizer model `{found}` (`tokenizer.ggml.model`) is not supported; supported is `gpt2`, byte-level BPE")]
    Model { found: String },
    #[error("pre-tokenizer `{found}` (`tokenizer.ggml.pre`) is not supported; supported are: {supported}")]
    PreTokenizer { found: String, supported: String },
    #[error("`{key}` has {found} entries, but the vocabulary has {expected}; convert the model anew")]
    Length { key: &'static str, found: usize, expected: usize },
    #[error("`{key}` is {id}, outside of the vocabulary of {n_vocab}; convert the model anew")]
    TokenId { key: String, id: u32, n_vocab: usize },
    #[error(
        "merge {idx} of `tokenizer.ggml.merges`, {merge:?}, is not two tokens with a space between; convert the model anew"
    )]
    Merge { idx: usize, merge: String },
    #[error("the vocabulary and the merges do not fit together: {0}; convert the model anew")]
    Vocabulary(String),
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// `LLAMA_TOKEN_TYPE_*` of llama.cpp.
mod token_type {
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
}

/// Control tokens that end an answer in some family, whatever the file names as its end token.
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot|>",
    "<end_of_turn>",
    "</s>",
];

/// Keys that name an end token.
const END_KEYS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

// === impl Tokenizer ===

impl Tokenizer {
    /// The tokenizer of the model file at `path`.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`], and whatever keeps the file from being read.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let gguf = Gguf::open(path).map_err(|source| TokenizerError::Open { path: path.to_owned(), source })?;
        Self::from_gguf(&gguf)
    }

    /// The tokenizer that a file's metadata describes.
    ///
    /// # Errors
    /// [`TokenizerError`]: an unsupported kind, or a vocabulary that contradicts itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        let metadata = &gguf.metadata;
        let model = metadata.string("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::Model { found: model.to_owned() });
        }
        let pre = pre_tokenizer::named(metadata.optional_string("tokenizer.ggml.pre")?.unwrap_or("gpt-2"))?;
        let tokens = metadata.strings(TOKENS)?;
        let types = token_types(metadata, tokens.len())?;

        let is_control: Vec<bool> = types.iter().map(|&kind| kind == token_type::CONTROL).collect();
        let is_apart = |id: usize| is_control[id] || types[id] == token_type::USER_DEFINED;
        let piece = |(id, token): (usize, &String)| match is_apart(id) {
            true => token.as_bytes().into(),
            false => byte_level::bytes_of(token),
        };
        let specials = Specials::new(
            (0..tokens.len()).filter(|&id| is_apart(id)).map(|id| (tokens[id].as_str(), id as u32, is_control[id])),
        )
        .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
        let id = |key: &str| token_id(metadata, key, tokens.len());
        Ok(Self {
            encoder: encoder(metadata, tokens, &pre)?,
            specials,
            pieces: tokens.iter().enumerate().map(piece).collect(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            end_tokens: end_tokens(metadata)?,
            add_bos: metadata.optional_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(pre.adds_bos),
            is_control,
        })
    }

    /// The tokens of `text`.
    ///
    /// `parse_special`: a control token's name in the text becomes that token; for prompts that a chat template
    /// rendered. Otherwise the name is text like any other. Adds no begin token. Characters for which the vocabulary
    /// has no byte (some control characters in small vocabularies) are left out, as the reference tokenizer does.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the underlying library refuses the text.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for part in self.specials.split(text, parse_special) {
            match part {
                specials::Part::Token(id) => ids.push(id),
                specials::Part::Text(text) => {
                    let encoding = self.encoder.encode_fast(text, false);
                    ids.extend_from_slice(
                        encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?.get_ids(),
                    );
                }
            }
        }
        Ok(ids)
    }

    /// The tokens of a rendered chat.
    ///
    /// With `parse_contents` a control token's name becomes that token wherever it stands, in what a user wrote too; otherwise only where
    /// the template wrote it. Adds no begin token: the template writes it, where its model wants one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, prompt: &Prompt, parse_contents: bool) -> Result<Vec<u32>, TokenizerError> {
        if parse_contents {
            return self.encode(&prompt.text(), true);
        }
        let mut ids = Vec::new();
        for part in prompt.parts() {
            match part {
                PromptPart::Text(text) => ids.extend(self.encode(text, false)?),
                PromptPart::Control(name) => match self.specials.control(name) {
                    Some(token) => ids.push(token),
                    None => ids.extend(self.encode(name, false)?),
                },
            }
        }
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], after the begin token where the model wants one and the text does not bring it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = self.encode(text, parse_special)?;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The text of `tokens`; bytes that are no UTF-8 become U+FFFD.
    ///
    /// `skip_special` leaves control tokens out. A token outside of the vocabulary stands for no text.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        let shown = tokens.iter().filter(|&&token| !(skip_special && self.is_special(token)));
        let bytes: Vec<u8> = shown.flat_map(|&token| self.token_bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Turns tokens into text as they come.
    pub fn stream(self: &Arc<Self>, skip_special: bool) -> TextStream {
        TextStream::new(Arc::clone(self), skip_special)
    }

    /// The bytes that `token` stands for, not always whole characters; none outside of the vocabulary.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize).map_or(&[], |piece| piece)
    }

    /// Whether `token` steers the model and is no text of an answer.
    pub fn is_special(&self, token: u32) -> bool {
        self.is_control.get(token as usize).copied().unwrap_or(false)
    }

    /// Tokens are numbered from 0 up to, but without, this.
    pub fn n_vocab(&self) -> u32 {
        self.pieces.len() as u32
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Tokens that end an answer, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Whether the model wants its begin token before a plain prompt.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("n_vocab", &self.n_vocab()).finish_non_exhaustive()
    }
}

/// The names of all control tokens of a file; none in a file without a vocabulary.
pub(crate) fn control_names(metadata: &Metadata) -> Result<Vec<&str>, GgufError> {
    if metadata.get(TOKENS).is_none() {
        return Ok(Vec::new());
    }
    let types = metadata.optional_integers(TOKEN_TYPES)?.unwrap_or_default();
    let named = metadata.strings(TOKENS)?.iter().zip(types).filter(|(_, kind)| *kind == token_type::CONTROL);
    Ok(named.map(|(name, _)| name.as_str()).collect())
}

/// The tokens that end an answer: those that the file names, and control tokens known by name. Ascending.
pub(crate) fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>, GgufError> {
    let mut ends = Vec::new();
    for key in END_KEYS {
        ends.extend(metadata.optional_u32(key)?);
    }
    if metadata.get(TOKENS).is_some() {
        let types = metadata.optional_integers(TOKEN_TYPES)?.unwrap_or_default();
        let named = metadata
            .strings(TOKENS)?
            .iter()
            .zip(&types)
            .enumerate()
            .filter(|(_, (token, kind))| **kind == token_type::CONTROL && END_NAMES.contains(&token.as_str()));
        ends.extend(named.map(|(id, _)| id as u32));
    }
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

fn token_types(metadata: &Metadata, n_vocab: usize) -> Result<Vec<i64>, TokenizerError> {
    let types = metadata.optional_integers(TOKEN_TYPES)?.unwrap_or_else(|| vec![1; n_vocab]);
    if types.len() == n_vocab {
        Ok(types)
    } else {
        Err(TokenizerError::Length { key: TOKEN_TYPES, found: types.len(), expected: n_vocab })
    }
}

fn token_id(metadata: &Metadata, key: &str, n_vocab: usize) -> Result<Option<u32>, TokenizerError> {
    match metadata.optional_u32(key)? {
        Some(id) if id as usize >= n_vocab => Err(TokenizerError::TokenId { key: key.to_owned(), id, n_vocab }),
        id => Ok(id),
    }
}

fn encoder(
    metadata: &Metadata,
    tokens: &[String],
    pre: &pre_tokenizer::PreTokenizer,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let vocabulary = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32));
    let merges = metadata.strings(MERGES)?.iter().enumerate().map(|(idx, merge)| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => Ok((left.to_owned(), right.to_owned())),
        _ => Err(TokenizerError::Merge { idx, merge: merge.chars().take(80).collect() }),
    });
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.collect::<Vocab>(), merges.collect::<Result<_, _>>()?)
        .ignore_merges(pre.ignores_merges)
        .build()
        .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
    let mut encoder = tokenizers::Tokenizer::new(bpe);
    encoder.with_pre_tokenizer(Some(pre.build()?));
    if pre.normalizes {
        encoder.with_normalizer(Some(tokenizers::normalizers::NFC));
    }
    Ok(encoder)
}
