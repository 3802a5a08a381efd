//! From GGUF: the tokenizer that the metadata of a GGUF file describes. What no field says is what llama.cpp takes then.

use crate::gguf::Metadata;

use super::byte_pairs::{BytePairs, Manner};
use super::charsmap::Charsmap;
use super::cutter::Cutter;
use super::ends::{Ends, end_tokens};
use super::flaw::{Flaw, check_entries};
use super::greedy::Greedy;
use super::specials::Trim;
use super::text_model::{Prefix, Ranked, TextModel};
use super::unigram::{Form, Unigram};
use super::vocabulary::{Kind, Script, Vocabulary};
use super::{TOKEN_TYPES, TOKENS, Tokenizer, TokenizerError, pre_types};

const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// What a kind of tokenizer has where the file does not say.
struct Defaults {
    bos: Option<u32>,
    eos: u32,
    unknown: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
}

/// # Errors
/// [`TokenizerError`]: an unsupported kind, or fields that contradict each other.
pub(super) fn read(metadata: &Metadata) -> Result<Tokenizer, TokenizerError> {
    let texts = metadata.strings(TOKENS)?;
    check_entries(texts.len()).map_err(|flaw| in_field(TOKENS, flaw))?;
    let vocabulary = Vocabulary { texts, kinds: kinds(metadata, texts.len())? };
    let fields = Fields { metadata, vocabulary: &vocabulary };
    let (model, script, defaults) = match metadata.string("tokenizer.ggml.model")? {
        "gpt2" => {
            let (model, adds_bos) = fields.ranked()?;
            (model, Script::Bytes, Defaults { bos: Some(11), eos: 11, unknown: None, adds_bos, adds_eos: false })
        }
        "llama" => {
            let defaults = Defaults { bos: Some(1), eos: 2, unknown: Some(0), adds_bos: true, adds_eos: false };
            (fields.greedy(&defaults)?, Script::Blanks, defaults)
        }
        "t5" => {
            let defaults = Defaults { bos: None, eos: 1, unknown: Some(2), adds_bos: false, adds_eos: true };
            (fields.unigram(&defaults)?, Script::Blanks, defaults)
        }
        found => return Err(TokenizerError::Model { found: found.chars().take(80).collect() }),
    };
    let ends = fields.ends(&defaults)?;
    let trims = trims(&vocabulary, metadata.optional_string("general.name").ok().flatten().unwrap_or_default());
    let tokenizer = Tokenizer::new(&vocabulary, model, script, ends).map_err(|flaw| in_field(TOKENS, flaw))?;
    Ok(tokenizer.with_trims(trims))
}

/// The tokens that take the blanks after them away, which no field says: those of Phi 3, and llama.cpp knows it by its name.
fn trims(vocabulary: &Vocabulary<'_>, name: &str) -> impl Iterator<Item = (u32, Trim)> {
    let name = name.to_lowercase();
    let is_phi3 = ["phi-3", "phi3"].iter().any(|part| name.contains(part));
    let trims = |text: &str| !["<unk>", "<s>", "<|endoftext|>"].contains(&text);
    let after = Trim { before: false, after: true };
    vocabulary.names().filter(move |(text, ..)| is_phi3 && trims(text)).map(move |(_, token, _)| (token, after))
}

fn in_field(key: &str, flaw: impl Into<Flaw>) -> TokenizerError {
    TokenizerError::Field { field: key.to_owned(), source: flaw.into() }
}

fn kinds(metadata: &Metadata, n_vocab: usize) -> Result<Vec<Kind>, TokenizerError> {
    let Some(numbers) = metadata.optional_integers(TOKEN_TYPES)? else {
        return Ok(vec![Kind::Normal; n_vocab]);
    };
    check_length(TOKEN_TYPES, numbers.len(), n_vocab)?;
    let kind = |(id, &found): (usize, &i64)| {
        Kind::from_number(found).ok_or_else(|| in_field(TOKEN_TYPES, Flaw::Kind { id, found }))
    };
    numbers.iter().enumerate().map(kind).collect()
}

fn check_length(key: &str, found: usize, expected: usize) -> Result<(), TokenizerError> {
    if found == expected { Ok(()) } else { Err(in_field(key, Flaw::Length { found, expected })) }
}

/// The fields of one file.
struct Fields<'f> {
    metadata: &'f Metadata,
    vocabulary: &'f Vocabulary<'f>,
}

// === impl Fields ===

impl Fields<'_> {
    /// A byte-level model, and whether its family has a begin token added.
    fn ranked(&self) -> Result<(TextModel, bool), TokenizerError> {
        let name = self.metadata.optional_string("tokenizer.ggml.pre")?.unwrap_or("default");
        let unknown =
            || TokenizerError::PreTokenizer { found: name.chars().take(80).collect(), supported: pre_types::names() };
        let family = pre_types::named(name).ok_or_else(unknown)?;
        let merges = self.metadata.strings(MERGES)?;
        check_entries(merges.len()).map_err(|flaw| in_field(MERGES, flaw))?;
        let merges = merges.iter().enumerate().map(|(idx, merge)| {
            // A token may begin with a blank.
            let at = merge.char_indices().skip(1).find(|(_, character)| *character == ' ').map(|(at, _)| at);
            let sides = at.map(|at| (&merge[..at], &merge[at + 1..])).filter(|(_, right)| !right.is_empty());
            let flaw = || Flaw::Merge { idx, merge: merge.chars().take(80).collect() };
            sides.ok_or_else(|| in_field(MERGES, flaw()))
        });
        let merges = merges.collect::<Result<Vec<_>, _>>()?;
        let manner = Manner { ignores_merges: family.ignores_merges, ..Manner::default() };
        let pairs =
            BytePairs::new(self.vocabulary, merges.into_iter(), manner).map_err(|flaw| in_field(MERGES, flaw))?;
        let cutter = |steps: &[&str]| {
            Cutter::new(steps).map_err(|error| in_field("tokenizer.ggml.pre", Flaw::Library(error.to_string())))
        };
        let model = Ranked {
            is_composed: false,
            prefix: Prefix::Never,
            script: Script::Bytes,
            cutter: cutter(family.steps)?,
            cutter_of_written: cutter(family.steps_of_bytes)?,
            pairs,
        };
        Ok((TextModel::Ranked(Box::new(model)), family.adds_bos))
    }

    fn greedy(&self, defaults: &Defaults) -> Result<TextModel, TokenizerError> {
        let is_prefixed = self.flag("tokenizer.ggml.add_space_prefix", true)?;
        let model = Greedy::new(self.vocabulary, &self.scores()?, self.unknown(defaults)?, is_prefixed);
        model.map(TextModel::Greedy).map_err(|flaw| in_field(TOKENS, flaw))
    }

    fn unigram(&self, defaults: &Defaults) -> Result<TextModel, TokenizerError> {
        let charsmap = self.metadata.optional_bytes(CHARSMAP)?.filter(|bytes| !bytes.is_empty());
        let form = Form {
            charsmap: charsmap.map(Charsmap::new).transpose().map_err(|flaw| in_field(CHARSMAP, flaw))?,
            is_prefixed: self.flag("tokenizer.ggml.add_space_prefix", true)?,
            joins_blanks: self.flag("tokenizer.ggml.remove_extra_whitespaces", true)?,
        };
        let scores = self.scores()?.into_iter().map(f64::from).collect();
        let model = Unigram::new(self.vocabulary, scores, self.unknown(defaults)?, form);
        model.map(TextModel::Unigram).map_err(|flaw| in_field(TOKENS, flaw))
    }

    /// A finite score for each token.
    fn scores(&self) -> Result<Vec<f32>, TokenizerError> {
        let scores = self.metadata.floats(SCORES)?;
        check_length(SCORES, scores.len(), self.vocabulary.texts.len())?;
        match scores.iter().position(|score| !score.is_finite()) {
            Some(id) => Err(in_field(SCORES, Flaw::Score { id, found: f64::from(scores[id]) })),
            None => Ok(scores),
        }
    }

    fn unknown(&self, defaults: &Defaults) -> Result<Option<u32>, TokenizerError> {
        Ok(self.token("tokenizer.ggml.unknown_token_id")?.or_else(|| self.known(defaults.unknown)))
    }

    fn ends(&self, defaults: &Defaults) -> Result<Ends, TokenizerError> {
        let (bos, eos) = (self.token("tokenizer.ggml.bos_token_id")?, self.token("tokenizer.ggml.eos_token_id")?);
        let adds_bos = self.flag("tokenizer.ggml.add_bos_token", defaults.adds_bos)?;
        let adds_eos = self.flag("tokenizer.ggml.add_eos_token", defaults.adds_eos)?;
        let before = bos.or_else(|| self.known(defaults.bos)).filter(|_| adds_bos);
        let after = eos.or_else(|| self.known(Some(defaults.eos))).filter(|_| adds_eos);
        Ok(Ends { bos, eos, before, after, of_answers: end_tokens(self.metadata)? })
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, TokenizerError> {
        Ok(self.metadata.optional_bool(key)?.unwrap_or(default))
    }

    /// The token that a key names.
    fn token(&self, key: &str) -> Result<Option<u32>, TokenizerError> {
        let n_vocab = self.vocabulary.texts.len();
        match self.metadata.optional_u32(key)? {
            Some(id) if id as usize >= n_vocab => Err(in_field(key, Flaw::TokenId { id: id.into(), n_vocab })),
            id => Ok(id),
        }
    }

    /// A token that no key names, if the vocabulary has it.
    fn known(&self, token: Option<u32>) -> Option<u32> {
        token.filter(|&token| (token as usize) < self.vocabulary.texts.len())
    }
}
