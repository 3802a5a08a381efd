//! From JSON: the tokenizer that a `tokenizer.json` describes, and the `tokenizer_config.json` beside it. A part that is not known here
//! is refused by its name, never passed over.

mod parts;
mod shape;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::byte_pairs::{BytePairs, Manner};
use super::charsmap::Charsmap;
use super::cutter::Cutter;
use super::ends::{Ends, is_end_name};
use super::flaw::{Flaw, check_entries};
use super::specials::Trim;
use super::text_model::{Prefix, Ranked, TextModel};
use super::unigram::{Form, Unigram};
use super::vocabulary::{Kind, Script, Vocabulary};
use super::{Tokenizer, TokenizerError};
use crate::tokenizer_config::TokenizerConfig;
use parts::{List, MAX_VALUES, Merge, Small, Table};
use shape::Shape;

/// The largest known have some 35 MB.
pub(crate) const MAX_FILE_BYTES: usize = 64 << 20;
/// Those of a `tokenizer_config.json`; the largest known have 1.2 MB.
pub(crate) const MAX_CONFIG_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
struct File<M> {
    model: M,
    normalizer: Option<Small>,
    pre_tokenizer: Option<Small>,
    post_processor: Option<Small>,
    #[serde(default)]
    added_tokens: List<Added>,
}

/// What tells how to read the rest.
#[derive(Deserialize)]
struct Head {
    model: Typed,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Pairs {
    vocab: Table,
    merges: List<Merge>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
struct Scored {
    vocab: List<(String, f64)>,
    unk_id: Option<u32>,
    #[serde(default)]
    byte_fallback: bool,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// # Errors
/// [`TokenizerError`]: bytes that are no such JSON, a part that is not supported, fields that contradict each other.
pub(super) fn read(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, TokenizerError> {
    let config = config.map(|config| parse("tokenizer_config.json", config, MAX_CONFIG_BYTES)).transpose()?;
    let config: TokenizerConfig = config.unwrap_or_default();
    match parse_tokenizer::<Head>(tokenizer)?.model.name.as_deref() {
        None | Some("BPE") => ranked(parse_tokenizer(tokenizer)?, &config),
        Some("Unigram") => unigram(parse_tokenizer(tokenizer)?, &config),
        Some(found) => Err(unsupported("model.type", found)),
    }
}

fn parse_tokenizer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TokenizerError> {
    parse("tokenizer.json", bytes, MAX_FILE_BYTES)
}

fn parse<T: DeserializeOwned>(name: &'static str, bytes: &[u8], limit: usize) -> Result<T, TokenizerError> {
    if bytes.len() > limit {
        return Err(TokenizerError::LongFile { name, found: bytes.len(), limit });
    }
    serde_json::from_slice(bytes).map_err(|source| TokenizerError::Json { name, source })
}

/// A part that is read as it is, where there is one.
fn small<'s>(field: &'static str, part: Option<&'s Small>) -> Result<Option<&'s Value>, TokenizerError> {
    let value = |part: &'s Small| {
        let flaw = || unsupported(field, &format!("one of more than {MAX_VALUES} values"));
        part.value().ok_or_else(flaw)
    };
    part.map(value).transpose()
}

// === impl File ===

impl<M> File<M> {
    fn shape(&self) -> Result<Shape, TokenizerError> {
        let normalizer = small("normalizer", self.normalizer.as_ref())?;
        Shape::read(normalizer, small("pre_tokenizer", self.pre_tokenizer.as_ref())?)
    }
}

fn unsupported(field: &'static str, found: &str) -> TokenizerError {
    TokenizerError::Unsupported { field, found: found.chars().take(80).collect() }
}

fn in_field(field: &str, flaw: impl Into<Flaw>) -> TokenizerError {
    TokenizerError::Field { field: field.to_owned(), source: flaw.into() }
}

fn ranked(file: File<Pairs>, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let shape = file.shape()?;
    let model = file.model;
    let affixes = [model.continuing_subword_prefix, model.end_of_word_suffix];
    if let Some(affix) = affixes.into_iter().flatten().find(|affix| !affix.is_empty()) {
        return Err(unsupported("model.continuing_subword_prefix", &affix));
    }
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(unsupported("model.dropout", &dropout.to_string()));
    }
    let script = shape.script.ok_or_else(|| unsupported("pre_tokenizer", "none that says how text is written"))?;
    if shape.charsmap.is_some() || shape.joins_blanks {
        return Err(unsupported("normalizer", "one of a unigram model"));
    }
    let words = model.vocab.all().map_err(|flaw| in_field("model.vocab", flaw))?;
    let words = words.into_iter().map(|(text, id)| (id, text));
    let tokens = Tokens::new(words, file.added_tokens, model.byte_fallback, model.unk_token.as_deref())?;
    let vocabulary = tokens.vocabulary();
    let merges = model.merges.all().map_err(|flaw| in_field("model.merges", flaw))?;
    let merges = merges.iter().enumerate().map(|(idx, merge)| match merge {
        Merge::Apart(left, right) => Ok((left.as_str(), right.as_str())),
        Merge::Joined(text) => {
            text.split_once(' ').ok_or_else(|| Flaw::Merge { idx, merge: text.chars().take(80).collect() })
        }
    });
    let merges = merges.collect::<Result<Vec<_>, _>>().map_err(|flaw| in_field("model.merges", flaw))?;
    let manner = Manner {
        ignores_merges: model.ignore_merges,
        falls_to_bytes: model.byte_fallback,
        unknown: model.unk_token.map(|unknown| (unknown, model.fuse_unk)),
    };
    let pairs =
        BytePairs::new(&vocabulary, merges.into_iter(), manner).map_err(|flaw| in_field("model.merges", flaw))?;
    let cutter = |steps: &[String]| {
        Cutter::new(steps).map_err(|error| in_field("pre_tokenizer", Flaw::Library(error.to_string())))
    };
    let model = Ranked {
        is_composed: shape.is_composed,
        prefix: shape.prefix,
        script,
        cutter: cutter(&shape.steps)?,
        cutter_of_written: cutter(&shape.steps_of_bytes)?,
        pairs,
    };
    finish(
        &tokens,
        TextModel::Ranked(Box::new(model)),
        script,
        config,
        small("post_processor", file.post_processor.as_ref())?,
    )
}

fn unigram(file: File<Scored>, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let shape = file.shape()?;
    let model = file.model;
    if model.byte_fallback {
        return Err(unsupported("model.byte_fallback", "true of a unigram model"));
    }
    if shape.is_composed || !shape.steps.is_empty() || shape.script != Some(Script::Blanks) {
        return Err(unsupported("pre_tokenizer", "none of a unigram model"));
    }
    let words = model.vocab.all().map_err(|flaw| in_field("model.vocab", flaw))?;
    if let Some(id) = words.iter().position(|word| !word.1.is_finite()) {
        return Err(in_field("model.vocab", Flaw::Score { id, found: words[id].1 }));
    }
    let n_vocab = words.len();
    if let Some(id) = model.unk_id.filter(|id| *id as usize >= n_vocab) {
        return Err(in_field("model.unk_id", Flaw::TokenId { id: id.into(), n_vocab }));
    }
    let mut scores: Vec<f64> = words.iter().map(|word| word.1).collect();
    let unknown = model.unk_id.map(|id| words[id as usize].0.clone());
    let words = words.into_iter().enumerate().map(|(id, (text, _))| (id as u32, text));
    let tokens = Tokens::new(words, file.added_tokens, false, unknown.as_deref())?;
    let vocabulary = tokens.vocabulary();
    scores.resize(vocabulary.texts.len(), 0.0);
    let charsmap = shape.charsmap.as_deref().map(Charsmap::new).transpose();
    let form = Form {
        charsmap: charsmap.map_err(|flaw| in_field("normalizer", flaw))?,
        is_prefixed: shape.prefix != Prefix::Never,
        joins_blanks: shape.joins_blanks,
    };
    let model = Unigram::new(&vocabulary, scores, model.unk_id, form).map_err(|flaw| in_field("model.vocab", flaw))?;
    finish(
        &tokens,
        TextModel::Unigram(model),
        Script::Blanks,
        config,
        small("post_processor", file.post_processor.as_ref())?,
    )
}

fn finish(
    tokens: &Tokens,
    model: TextModel,
    script: Script,
    config: &TokenizerConfig,
    post_processor: Option<&Value>,
) -> Result<Tokenizer, TokenizerError> {
    let vocabulary = tokens.vocabulary();
    let ends = ends(&vocabulary, config, post_processor)?;
    let tokenizer = Tokenizer::new(&vocabulary, model, script, ends).map_err(|flaw| in_field("added_tokens", flaw))?;
    Ok(tokenizer.with_trims(tokens.trims.iter().copied()))
}

/// The tokens of a model and those that were added to them.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Kind>,
    /// Those that take blanks beside them away.
    trims: Vec<(u32, Trim)>,
}

// === impl Tokens ===

impl Tokens {
    fn new(
        words: impl Iterator<Item = (u32, String)>,
        added: List<Added>,
        has_bytes: bool,
        unknown: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let mut tokens = Self { texts: Vec::new(), kinds: Vec::new(), trims: Vec::new() };
        for (id, text) in words {
            let kind = match text.as_str() {
                word if Some(word) == unknown => Kind::Unknown,
                word if has_bytes && word.starts_with("<0x") && word.ends_with('>') => Kind::Byte,
                _ => Kind::Normal,
            };
            tokens.put("model.vocab", id, text, kind)?;
        }
        for token in added.all().map_err(|flaw| in_field("added_tokens", flaw))? {
            if token.single_word {
                return Err(unsupported("added_tokens.single_word", &format!("true of {:?}", token.content)));
            }
            tokens.trims.push((token.id, Trim { before: token.lstrip, after: token.rstrip }));
            let kind = match token.special {
                true if Some(token.content.as_str()) == unknown => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
            tokens.put("added_tokens", token.id, token.content, kind)?;
        }
        Ok(tokens)
    }

    fn put(&mut self, field: &str, id: u32, text: String, kind: Kind) -> Result<(), TokenizerError> {
        let idx = id as usize;
        check_entries(idx).map_err(|flaw| in_field(field, flaw))?;
        if idx >= self.texts.len() {
            self.texts.resize(idx + 1, String::new());
            self.kinds.resize(idx + 1, Kind::Unused);
        }
        if !self.texts[idx].is_empty() && self.texts[idx] != text {
            return Err(in_field(field, Flaw::Twice { id }));
        }
        self.texts[idx] = text;
        self.kinds[idx] = kind;
        Ok(())
    }

    fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary { texts: &self.texts, kinds: self.kinds.clone() }
    }
}

fn ends(
    vocabulary: &Vocabulary<'_>,
    config: &TokenizerConfig,
    template: Option<&Value>,
) -> Result<Ends, TokenizerError> {
    let named = |field: &str, name: &str| {
        let token = vocabulary.texts.iter().position(|text| text == name).map(|id| id as u32);
        token.ok_or_else(|| in_field(field, Flaw::NoToken { name: name.chars().take(80).collect() }))
    };
    let of_config = |field: &str, name: Option<&str>| name.map(|name| named(field, name)).transpose();
    let (bos, eos) = (of_config("bos_token", config.bos_token())?, of_config("eos_token", config.eos_token())?);
    let (first, last) = around(template);
    let of_template = |name: Option<&str>| name.map(|name| named("post_processor", name)).transpose();
    let put = |is_wanted: Option<bool>, own: Option<u32>, of_template: Option<u32>| match is_wanted {
        Some(true) => own,
        Some(false) => None,
        None => of_template,
    };
    let before = put(config.add_bos_token, bos, of_template(first)?);
    let after = put(config.add_eos_token, eos, of_template(last)?);
    let controls = vocabulary.texts.iter().zip(&vocabulary.kinds).enumerate();
    let controls = controls.filter(|(_, (text, kind))| **kind == Kind::Control && is_end_name(text));
    let mut of_answers: Vec<u32> = controls.map(|(id, _)| id as u32).chain(eos).collect();
    of_answers.sort_unstable();
    of_answers.dedup();
    Ok(Ends { bos, eos, before, after, of_answers })
}

/// The names of the tokens that a post-processor puts before and after a text.
fn around(post_processor: Option<&Value>) -> (Option<&str>, Option<&str>) {
    let Some(processor) = post_processor else { return (None, None) };
    if let Some(processors) = processor["processors"].as_array() {
        let found = processors.iter().map(|processor| around(Some(processor)));
        return found.reduce(|one, other| (one.0.or(other.0), one.1.or(other.1))).unwrap_or((None, None));
    }
    let parts = processor["single"].as_array().map_or(&[][..], Vec::as_slice);
    let of_text = parts.iter().position(|part| part.get("Sequence").is_some());
    let token = |idx: usize| parts.get(idx).and_then(|part| part["SpecialToken"]["id"].as_str());
    match of_text {
        Some(idx) => (idx.checked_sub(1).and_then(token), token(idx + 1)),
        None => (None, None),
    }
}
