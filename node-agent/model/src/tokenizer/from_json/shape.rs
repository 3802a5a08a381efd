//! Shape: how a `tokenizer.json` brings text into the form of its vocabulary, from its `normalizer` and `pre_tokenizer`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::pre_types::GPT2;
use super::super::text_model::Prefix;
use super::super::vocabulary::Script;
use super::super::TokenizerError;
use super::unsupported;

/// Each step has automata of its own.
const MAX_STEPS: usize = 16;

/// What both together make of a text.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) is_composed: bool,
    pub(super) prefix: Prefix,
    /// `None` where neither says it.
    pub(super) script: Option<Script>,
    /// Expressions, each to cut the words of the one before.
    pub(super) steps: Vec<String>,
    pub(super) charsmap: Option<Vec<u8>>,
    pub(super) joins_blanks: bool,
}

// === impl Shape ===

impl Shape {
    /// # Errors
    /// [`TokenizerError::Unsupported`] with the part that is not known.
    pub(super) fn read(normalizer: Option<&Value>, pre_tokenizer: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut shape = Self {
            is_composed: false,
            prefix: Prefix::Never,
            script: None,
            steps: Vec::new(),
            charsmap: None,
            joins_blanks: false,
        };
        for part in parts(normalizer, "normalizers") {
            shape.normalize(part).ok_or_else(|| unsupported("normalizer", &part.to_string()))?;
        }
        for part in parts(pre_tokenizer, "pretokenizers") {
            shape.cut(part).ok_or_else(|| unsupported("pre_tokenizer", &part.to_string()))?;
        }
        if shape.steps.len() > MAX_STEPS {
            return Err(unsupported("pre_tokenizer", &format!("{} steps, over the limit of {MAX_STEPS}", shape.steps.len())));
        }
        Ok(shape)
    }

    fn normalize(&mut self, part: &Value) -> Option<()> {
        match part["type"].as_str()? {
            "NFC" => self.is_composed = true,
            "Prepend" if part["prepend"] == "\u{2581}" => self.prefix = Prefix::Always,
            "Replace" if part["pattern"]["String"] == " " && part["content"] == "\u{2581}" => {
                self.script = Some(Script::Blanks);
            }
            "Replace" if part["pattern"]["Regex"] == " {2,}" => self.joins_blanks = true,
            // Blanks at the end, which are none where they are joined.
            "Strip" if part["strip_left"] == false => self.joins_blanks = true,
            "Precompiled" => self.charsmap = Some(STANDARD.decode(part["precompiled_charsmap"].as_str()?).ok()?),
            _ => return None,
        }
        Some(())
    }

    fn cut(&mut self, part: &Value) -> Option<()> {
        let flag = |name: &str, default: bool| part[name].as_bool().unwrap_or(default);
        match part["type"].as_str()? {
            "ByteLevel" => {
                self.script = Some(Script::Bytes);
                if flag("add_prefix_space", true) {
                    self.prefix = Prefix::UnlessThere;
                }
                if flag("use_regex", true) {
                    self.steps.push(GPT2.to_owned());
                }
            }
            "Digits" => self.steps.push(if flag("individual_digits", false) { r"\p{N}" } else { r"\p{N}+" }.to_owned()),
            "Punctuation" => match part["behavior"].as_str().unwrap_or("Isolated") {
                "Isolated" => self.steps.push(r"[\p{P}$+<=>^`|~]".to_owned()),
                "Contiguous" => self.steps.push(r"[\p{P}$+<=>^`|~]+".to_owned()),
                _ => return None,
            },
            // Every blank has become another character by now.
            "Split" if self.script == Some(Script::Blanks) && part["pattern"]["String"] == " " => {}
            "Split" => {
                let is_known = match part["behavior"].as_str()? {
                    "Isolated" => !flag("invert", false),
                    // Expressions that are used so leave nothing out.
                    "Removed" => flag("invert", false),
                    _ => false,
                };
                let literal = || part["pattern"]["String"].as_str().map(escaped);
                let pattern = part["pattern"]["Regex"].as_str().map(str::to_owned).or_else(literal)?;
                self.steps.push(is_known.then_some(pattern)?);
            }
            "WhitespaceSplit" => self.joins_blanks = true,
            "Metaspace" if part["replacement"] == "\u{2581}" => {
                self.script = Some(Script::Blanks);
                self.prefix = match part["prepend_scheme"].as_str() {
                    None if flag("add_prefix_space", true) => Prefix::UnlessThere,
                    Some("always") => Prefix::UnlessThere,
                    Some("first") => Prefix::FirstUnlessThere,
                    None | Some("never") => Prefix::Never,
                    Some(_) => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }
}

/// The parts of a sequence, or the one part that there is.
fn parts<'v>(of: Option<&'v Value>, list: &str) -> Vec<&'v Value> {
    match of {
        None | Some(Value::Null) => Vec::new(),
        Some(sequence) if sequence["type"] == "Sequence" => {
            sequence[list].as_array().into_iter().flatten().flat_map(|part| parts(Some(part), list)).collect()
        }
        Some(part) => vec![part],
    }
}

/// An expression that matches `text` and nothing else.
fn escaped(text: &str) -> String {
    let escape = |character: char| character.is_ascii_punctuation().then_some('\\').into_iter().chain([character]);
    text.chars().flat_map(escape).collect()
}
