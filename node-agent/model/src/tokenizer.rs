//! Tokenizer: text to tokens and back, from the vocabulary of a model's file. Adds no begin or end token unless asked.

mod byte_level;
mod byte_pairs;
mod charsmap;
mod cutter;
mod effort;
mod ends;
mod finder;
mod flaw;
mod from_gguf;
mod from_json;
mod greedy;
mod listing;
mod pre_types;
mod specials;
mod text_model;
mod text_stream;
mod unigram;
mod vocabulary;
mod words;

use std::path::Path;
use std::sync::Arc;

pub use flaw::Flaw;
pub(crate) use from_json::{MAX_CONFIG_BYTES, MAX_FILE_BYTES};
pub use listing::{LineError, Tokenized, text_of_line};
pub use text_stream::TextStream;

use crate::gguf::{Gguf, GgufError, Metadata};
use crate::prompt::{Prompt, PromptPart};
use crate::source_files::{FilesError, SourceFiles};
use effort::{Effort, STEPS_PER_BYTE, TooDear};
use ends::Ends;
use specials::{Specials, Trim};
use text_model::TextModel;
use vocabulary::{Kind, Script, Vocabulary};

/// A model's own vocabulary, and its way of cutting text into it.
///
/// Control tokens are kept apart from the text: `encode` finds them by name only where it is told to, so that what a
/// user types cannot pose as one.
pub struct Tokenizer {
    model: TextModel,
    specials: Specials,
    /// The bytes that each token stands for.
    pieces: Vec<Box<[u8]>>,
    is_special: Vec<bool>,
    ends: Ends,
}

/// Why a file gives no tokenizer, or a text no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(
        "tokenizer model `{found}` (`tokenizer.ggml.model`) is not supported; supported are `gpt2` (byte-level BPE), `llama` (sentencepiece BPE) and `t5` (sentencepiece unigram)"
    )]
    Model { found: String },
    #[error("pre-tokenizer `{found}` (`tokenizer.ggml.pre`) is not supported; supported are: {supported}")]
    PreTokenizer { found: String, supported: String },
    #[error("`{field}`: {source}; convert the model anew")]
    Field { field: String, source: Flaw },
    #[error("`{name}` is no JSON that a tokenizer has: {source}; fetch it again")]
    Json { name: &'static str, source: serde_json::Error },
    #[error("`{name}` has {found} bytes, over the limit of {limit}; it is damaged, fetch it again")]
    LongFile { name: &'static str, found: usize, limit: usize },
    #[error("`{field}` of `tokenizer.json` is {found}, which is not supported; convert the model to GGUF")]
    Unsupported { field: &'static str, found: String },
    #[error(
        "the text has {found} bytes, over the limit of {MAX_TEXT_BYTES} that are encoded at once: send a shorter one"
    )]
    TooLong { found: usize },
    #[error(
        "the text takes more than {STEPS_PER_BYTE} steps a byte to be cut into words: the model's own expressions or words look ahead in it in vain, again and again; send another text, or use another file of the model"
    )]
    TooDear,
    #[error("the text cannot be encoded: {0}")]
    Encode(String),
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// The longest text that is encoded at once.
const MAX_TEXT_BYTES: usize = 64 << 20;

// === impl TokenizerError ===

impl From<TooDear> for TokenizerError {
    fn from(TooDear: TooDear) -> Self {
        Self::TooDear
    }
}

// === impl Tokenizer ===

impl Tokenizer {
    /// The tokenizer of the model at `path`, of whose files the headers alone are read.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`], and whatever keeps the files from being read.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let files = SourceFiles::open(path)?;
        match files.text {
            None => Self::from_gguf(&files.header),
            Some(text) => Self::from_json(&text.tokenizer, text.config.as_deref()),
        }
    }

    /// The tokenizer that a file's metadata describes. The file may have no tensor.
    ///
    /// # Errors
    /// [`TokenizerError`]: an unsupported kind, or a vocabulary that contradicts itself.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        from_gguf::read(&gguf.metadata)
    }

    /// The tokenizer of a `tokenizer.json`, with the `tokenizer_config.json` beside it, which names its begin and end tokens.
    ///
    /// # Errors
    /// [`TokenizerError`]: a part that is not supported, or a vocabulary that contradicts itself.
    pub fn from_json(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self, TokenizerError> {
        from_json::read(tokenizer, config)
    }

    /// Takes more tokens as ends of an answer: those that a model's configuration names. One that there is not ends nothing.
    pub(crate) fn add_end_tokens(&mut self, tokens: &[u32]) {
        let n_vocab = self.n_vocab();
        self.ends.of_answers.extend(tokens.iter().filter(|token| **token < n_vocab));
        self.ends.of_answers.sort_unstable();
        self.ends.of_answers.dedup();
    }

    fn new(vocabulary: &Vocabulary<'_>, model: TextModel, script: Script, ends: Ends) -> Result<Self, Flaw> {
        let specials = Specials::new(vocabulary.names())?;
        let is_special = vocabulary.kinds.iter().map(|kind| kind.is_special()).collect();
        Ok(Self { model, specials, pieces: vocabulary.pieces(script), is_special, ends })
    }

    /// With tokens that take blanks beside them away.
    fn with_trims(mut self, trims: impl Iterator<Item = (u32, Trim)>) -> Self {
        self.specials.trim(trims);
        self
    }

    /// The tokens of `text`.
    ///
    /// `parse_special`: a control token's name in the text becomes that token; for prompts that a chat template
    /// rendered. Otherwise the name is text like any other. Adds no begin token. Characters for which the vocabulary
    /// has nothing (some control characters in small vocabularies) are left out, as the reference tokenizer does.
    ///
    /// # Errors
    /// [`TokenizerError::TooLong`]; [`TokenizerError::TooDear`] where the model's file makes the text take more than time by its length;
    /// [`TokenizerError::Encode`] where the underlying library refuses the text.
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encode_stretch(text, parse_special, true, &mut ids)?;
        Ok(ids)
    }

    fn encode_stretch(
        &self,
        text: &str,
        parse_special: bool,
        is_first: bool,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TooLong { found: text.len() });
        }
        let mut effort = Effort::of(text.len());
        for (idx, part) in self.specials.split(text, parse_special).into_iter().enumerate() {
            match part {
                specials::Part::Token(id) => ids.push(id),
                specials::Part::Text(text) => self.model.encode(text, is_first && idx == 0, &mut effort, ids)?,
            }
        }
        Ok(())
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
        let (mut ids, mut before) = (Vec::new(), None);
        let token_of = |part: &PromptPart| match part {
            PromptPart::Control(name) => self.specials.control(name),
            PromptPart::Text(_) => None,
        };
        let parts = prompt.parts();
        for (idx, part) in parts.iter().enumerate() {
            let (PromptPart::Text(text) | PromptPart::Control(text)) = part;
            let token = token_of(part);
            match token {
                Some(token) => ids.push(token),
                None => {
                    let text = self.specials.trimmed(before, text, parts.get(idx + 1).and_then(token_of));
                    self.encode_stretch(text, false, idx == 0, &mut ids)?;
                }
            }
            before = token;
        }
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], between the begin and the end token where the model wants them and the text does not bring them.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.ends.around(self.encode(text, parse_special)?))
    }

    /// The text of `tokens`, all pieces joined; bytes that are no UTF-8 become U+FFFD.
    ///
    /// `skip_special` leaves control tokens and the unknown out. A token outside of the vocabulary stands for no text. A blank that the
    /// model puts before a text stays.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        let shown = tokens.iter().filter(|&&token| !(skip_special && self.is_special(token)));
        let bytes: Vec<u8> = shown.flat_map(|&token| self.token_bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Turns the tokens of an answer into text as they come.
    pub fn stream(self: &Arc<Self>, skip_special: bool) -> TextStream {
        TextStream::new(Arc::clone(self), skip_special)
    }

    /// The bytes that `token` stands for, not always whole characters; none outside of the vocabulary.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize).map_or(&[], |piece| piece)
    }

    /// Whether `token` steers the model, or stands for what it does not know, and is no text of an answer.
    pub fn is_special(&self, token: u32) -> bool {
        self.is_special.get(token as usize).copied().unwrap_or(false)
    }

    /// No way of cutting `text` into tokens has fewer. Found by its length alone.
    pub fn fewest_tokens(&self, text: &str) -> usize {
        let longest = self.pieces.iter().map(|piece| piece.len()).max().unwrap_or(0).max(1);
        let mut is_known = [false; 256];
        for piece in &self.pieces {
            if let [byte] = **piece {
                is_known[usize::from(byte)] = true;
            }
        }
        // Blanks beside a token may be taken away with it.
        let may_vanish = |character: char| self.specials.trims_any() && character.is_whitespace();
        let n_known = match is_known.iter().all(|is_known| *is_known) {
            true => text.chars().filter(|character| !may_vanish(*character)).map(char::len_utf8).sum(),
            // Others may be left out, and NFC may make unknown bytes of known ones.
            false => text
                .chars()
                .filter(|character| character.is_ascii() && is_known[*character as usize] && !may_vanish(*character))
                .count(),
        };
        self.model.fewest_tokens(n_known, longest)
    }

    /// The names of all tokens that steer the model, in no order.
    pub(crate) fn control_names(&self) -> Vec<&str> {
        self.specials.control_names().collect()
    }

    /// Tokens are numbered from 0 up to, but without, this.
    pub fn n_vocab(&self) -> u32 {
        self.pieces.len() as u32
    }

    pub fn bos(&self) -> Option<u32> {
        self.ends.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.ends.eos
    }

    /// Tokens that end an answer, ascending.
    pub fn end_tokens(&self) -> &[u32] {
        &self.ends.of_answers
    }

    /// Whether the model wants its begin token before a plain prompt.
    pub fn add_bos(&self) -> bool {
        self.ends.before.is_some()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("n_vocab", &self.n_vocab()).finish_non_exhaustive()
    }
}

/// The names of all tokens of a file that steer its model; none in a file without a vocabulary.
pub(crate) fn control_names(metadata: &Metadata) -> Result<Vec<&str>, GgufError> {
    if metadata.get(TOKENS).is_none() {
        return Ok(Vec::new());
    }
    let types = metadata.optional_integers(TOKEN_TYPES)?.unwrap_or_default();
    let is_control = |number: i64| Kind::from_number(number).is_some_and(Kind::is_special);
    let named = metadata.strings(TOKENS)?.iter().zip(types).filter(|(_, kind)| is_control(*kind));
    Ok(named.map(|(name, _)| name.as_str()).collect())
}
