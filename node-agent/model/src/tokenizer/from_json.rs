//! From JSON: the tokenizer that a `tokenizer.json` describes, and the `tokenizer_config.json` beside it. A part that is not known here
//! is refused by its name, never passed over.

mod shape;

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::byte_pairs::{BytePairs, Manner};
use super::charsmap::Charsmap;
use super::cutter::Cutter;
use super::ends::{Ends, is_end_name};
use super::flaw::{Flaw, check_entries};
use super::text_model::{Prefix, Ranked, TextModel};
use super::unigram::{Form, Unigram};
use super::vocabulary::{Kind, Script, Vocabulary};
use super::{Tokenizer, TokenizerError};
use crate::tokenizer_config::TokenizerConfig;
use shape::Shape;

/// The largest known have some 35 MB.
const MAX_FILE_BYTES: usize = 128 << 20;

#[derive(Deserialize)]
struct File<M> {
    model: M,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<Added>,
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
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
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
#[serde(untagged)]
enum Merge {
    Joined(String),
    Apart(String, String),
}

#[derive(Deserialize)]
struct Scored {
    vocab: Vec<(String, f64)>,
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
    let config: TokenizerConfig = config.map(parse).transpose()?.unwrap_or_default();
    match parse::<Head>(tokenizer)?.model.name.as_deref() {
        None | Some("BPE") => ranked(parse(tokenizer)?, &config),
        Some("Unigram") => unigram(parse(tokenizer)?, &config),
        Some(found) => Err(unsupported("model.type", found)),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TokenizerError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(unsupported("file", &format!("{} bytes long, over the limit of {MAX_FILE_BYTES}", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(TokenizerError::Json)
}

fn unsupported(field: &'static str, found: &str) -> TokenizerError {
    TokenizerError::Unsupported { field, found: found.chars().take(80).collect() }
}

fn in_field(field: &str, flaw: impl Into<Flaw>) -> TokenizerError {
    TokenizerError::Field { field: field.to_owned(), source: flaw.into() }
}

fn ranked(file: File<Pairs>, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let model = file.model;
    let affixes = [model.continuing_subword_prefix, model.end_of_word_suffix];
    if let Some(affix) = affixes.into_iter().flatten().find(|affix| !affix.is_empty()) {
        return Err(unsupported("model.continuing_subword_prefix", &affix));
    }
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(unsupported("model.dropout", &dropout.to_string()));
    }
    let shape = Shape::read(file.normalizer.as_ref(), file.pre_tokenizer.as_ref())?;
    let script = shape.script.ok_or_else(|| unsupported("pre_tokenizer", "none that says how text is written"))?;
    if shape.charsmap.is_some() || shape.joins_blanks {
        return Err(unsupported("normalizer", "one of a unigram model"));
    }
    let words = model.vocab.into_iter().map(|(text, id)| (id, text));
    let tokens = Tokens::new(words, &file.added_tokens, model.byte_fallback, model.unk_token.as_deref())?;
    let vocabulary = tokens.vocabulary();
    check_entries(model.merges.len()).map_err(|flaw| in_field("model.merges", flaw))?;
    let merges = model.merges.iter().enumerate().map(|(idx, merge)| match merge {
        Merge::Apart(left, right) => Ok((left.as_str(), right.as_str())),
        Merge::Joined(text) => text.split_once(' ').ok_or_else(|| Flaw::Merge { idx, merge: text.chars().take(80).collect() }),
    });
    let merges = merges.collect::<Result<Vec<_>, _>>().map_err(|flaw| in_field("model.merges", flaw))?;
    let manner = Manner {
        ignores_merges: model.ignore_merges,
        falls_to_bytes: model.byte_fallback,
        unknown: model.unk_token.map(|unknown| (unknown, model.fuse_unk)),
    };
    let pairs =
        BytePairs::new(&vocabulary, merges.into_iter(), manner).map_err(|flaw| in_field("model.merges", flaw))?;
    let cutter = Cutter::new(&shape.steps);
    let cutter = cutter.map_err(|error| in_field("pre_tokenizer", Flaw::Library(error.to_string())))?;
    let model = Ranked { is_composed: shape.is_composed, prefix: shape.prefix, script, cutter, pairs };
    finish(&vocabulary, TextModel::Ranked(model), script, config, file.post_processor.as_ref())
}

fn unigram(file: File<Scored>, config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
    let model = file.model;
    if model.byte_fallback {
        return Err(unsupported("model.byte_fallback", "true of a unigram model"));
    }
    let shape = Shape::read(file.normalizer.as_ref(), file.pre_tokenizer.as_ref())?;
    if shape.is_composed || !shape.steps.is_empty() || shape.script != Some(Script::Blanks) {
        return Err(unsupported("pre_tokenizer", "none of a unigram model"));
    }
    if let Some(id) = model.vocab.iter().position(|word| !word.1.is_finite()) {
        return Err(in_field("model.vocab", Flaw::Score { id, found: model.vocab[id].1 }));
    }
    let n_vocab = model.vocab.len();
    if let Some(id) = model.unk_id.filter(|id| *id as usize >= n_vocab) {
        return Err(in_field("model.unk_id", Flaw::TokenId { id: id.into(), n_vocab }));
    }
    let mut scores: Vec<f64> = model.vocab.iter().map(|word| word.1).collect();
    let unknown = model.unk_id.map(|id| model.vocab[id as usize].0.clone());
    let words = model.vocab.into_iter().enumerate().map(|(id, (text, _))| (id as u32, text));
    let tokens = Tokens::new(words, &file.added_tokens, false, unknown.as_deref())?;
    let vocabulary = tokens.vocabulary();
    scores.resize(vocabulary.texts.len(), 0.0);
    let charsmap = shape.charsmap.as_deref().map(Charsmap::new).transpose();
    let form = Form {
        charsmap: charsmap.map_err(|flaw| in_field("normalizer", flaw))?,
        is_prefixed: shape.prefix != Prefix::Never,
        joins_blanks: shape.joins_blanks,
    };
    let model = Unigram::new(&vocabulary, scores, model.unk_id, form).map_err(|flaw| in_field("model.vocab", flaw))?;
    finish(&vocabulary, TextModel::Unigram(model), Script::Blanks, config, file.post_processor.as_ref())
}

fn finish(
    vocabulary: &Vocabulary<'_>,
    model: TextModel,
    script: Script,
    config: &TokenizerConfig,
    post_processor: Option<&Value>,
) -> Result<Tokenizer, TokenizerError> {
    let ends = ends(vocabulary, config, post_processor)?;
    Tokenizer::new(vocabulary, model, script, ends).map_err(|flaw| in_field("added_tokens", flaw))
}

/// The tokens of a model and those that were added to them.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<Kind>,
}

// === impl Tokens ===

impl Tokens {
    fn new(
        words: impl Iterator<Item = (u32, String)>,
        added: &[Added],
        has_bytes: bool,
        unknown: Option<&str>,
    ) -> Result<Self, TokenizerError> {
        let mut tokens = Self { texts: Vec::new(), kinds: Vec::new() };
        for (id, text) in words {
            let kind = match text.as_str() {
                word if Some(word) == unknown => Kind::Unknown,
                word if has_bytes && word.starts_with("<0x") && word.ends_with('>') => Kind::Byte,
                _ => Kind::Normal,
            };
            tokens.put("model.vocab", id, text, kind)?;
        }
        for token in added {
            for (is_set, field) in [
                (token.single_word, "added_tokens.single_word"),
                (token.lstrip, "added_tokens.lstrip"),
                (token.rstrip, "added_tokens.rstrip"),
            ] {
                if is_set {
                    return Err(unsupported(field, &format!("true of {:?}", token.content)));
                }
            }
            let kind = match token.special {
                true if Some(token.content.as_str()) == unknown => Kind::Unknown,
                true => Kind::Control,
                false => Kind::UserDefined,
            };
            tokens.put("added_tokens", token.id, token.content.clone(), kind)?;
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

fn ends(vocabulary: &Vocabulary<'_>, config: &TokenizerConfig, template: Option<&Value>) -> Result<Ends, TokenizerError> {
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
