//! Text model: plain text, between the tokens that are found by name, to tokens. One of three kinds.

use super::TokenizerError;
use super::byte_level;
use super::byte_pairs::BytePairs;
use super::cutter::{Cutter, Take};
use super::effort::Effort;
use super::greedy::Greedy;
use super::unigram::Unigram;
use super::vocabulary::{BLANK, Script};

/// What turns a stretch of text into tokens.
#[derive(Debug)]
pub(super) enum TextModel {
    /// Merges by rank.
    Ranked(Box<Ranked>),
    /// Merges by score.
    Greedy(Greedy),
    Unigram(Unigram),
}

/// Byte-pair encoding by ranks, word by word.
#[derive(Debug)]
pub(super) struct Ranked {
    /// Whether text is brought to Unicode NFC first.
    pub(super) is_composed: bool,
    pub(super) prefix: Prefix,
    pub(super) script: Script,
    pub(super) cutter: Cutter,
    /// Cuts words as the vocabulary writes them.
    pub(super) cutter_of_written: Cutter,
    pub(super) pairs: BytePairs,
}

/// Where a blank is put before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    Never,
    /// Unless the text begins with one, or a token stands before it.
    FirstUnlessThere,
    /// Unless the text begins with one.
    UnlessThere,
    Always,
}

// === impl TextModel ===

impl TextModel {
    /// Adds the tokens of `text`; `is_first` where no token stands before it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] where the underlying library refuses the text, [`TokenizerError::TooDear`].
    pub(super) fn encode(
        &self,
        text: &str,
        is_first: bool,
        effort: &mut Effort,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Ranked(model) => model.encode(text, is_first, effort, tokens)?,
            Self::Greedy(model) => model.encode(text, tokens),
            Self::Unigram(model) => model.encode(text, effort, tokens)?,
        }
        Ok(())
    }

    /// Whether an answer is a text of its own, whose first blank belongs to no word: so it is with models that read one text and write
    /// another.
    pub(super) fn answers_stand_alone(&self) -> bool {
        matches!(self, Self::Unigram(_))
    }

    /// As how many tokens `n_bytes` of a text count at least, if no token has more than `longest` bytes.
    pub(super) fn fewest_tokens(&self, n_bytes: usize, longest: usize) -> usize {
        match self {
            Self::Ranked(model) => n_bytes / longest / if model.is_composed { NFC_SHRINKS_BY } else { 1 },
            Self::Greedy(_) => n_bytes / longest,
            // Blanks and unknown characters become one, however many they are.
            Self::Unigram(_) => 0,
        }
    }
}

/// NFC makes of no text one of less than a quarter of its bytes: U+1FBE U+0308 U+0301 are seven bytes and become two, U+0390.
const NFC_SHRINKS_BY: usize = 4;

// === impl Ranked ===

impl Ranked {
    fn encode(
        &self,
        text: &str,
        is_first: bool,
        effort: &mut Effort,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let composed = if self.is_composed { Some(composed(text)?) } else { None };
        let text = composed.as_deref().unwrap_or(text);
        let is_prefixed = match self.prefix {
            Prefix::Never => false,
            Prefix::FirstUnlessThere => is_first && !text.starts_with(' '),
            Prefix::UnlessThere => !text.starts_with(' '),
            Prefix::Always => true,
        };
        let prefixed = if is_prefixed { Some([" ", text].concat()) } else { None };
        let text = prefixed.as_deref().unwrap_or(text);
        let joined: &mut Take<'_> = &mut |word, _| self.pairs.encode(word, tokens).map_err(TokenizerError::Encode);
        self.cutter.each_word(text, effort, &mut |word, effort| {
            let written = match self.script {
                Script::Bytes => byte_level::written(word),
                Script::Blanks => word.replace(' ', BLANK.encode_utf8(&mut [0; 4])),
            };
            self.cutter_of_written.each_word(&written, effort, joined)
        })
    }
}

fn composed(text: &str) -> Result<String, TokenizerError> {
    use tokenizers::{NormalizedString, Normalizer as _, normalizers::NFC};
    let mut text = NormalizedString::from(text);
    NFC.normalize(&mut text).map_err(|error| TokenizerError::Encode(error.to_string()))?;
    Ok(text.get().to_owned())
}
