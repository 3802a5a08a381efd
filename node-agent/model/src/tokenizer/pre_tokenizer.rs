//! Pre-tokenizers: how a family cuts text before merging. Goes by the name in `tokenizer.ggml.pre`.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::TokenizerError;

/// One family's way of cutting, with the switches that go with it in its `tokenizer.json`.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    cut: Cut,
    /// Whether a piece that is in the vocabulary is taken whole, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether text is brought to Unicode NFC first.
    pub(super) normalizes: bool,
    /// Whether a begin token is added where the file does not say.
    pub(super) adds_bos: bool,
}

#[derive(Clone, Copy)]
enum Cut {
    /// GPT-2's own expression, built into the library.
    Gpt2,
    /// Each digit alone, then as GPT-2.
    DigitsThenGpt2,
    Expression(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Runs of what is none of these signs, each with at most one space before it; what lies between them stays together.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// From the `tokenizer.json` of GPT-2, SmolLM2, Llama 3, Qwen2 and BLOOM; names as in llama.cpp's `llama-vocab.cpp`.
const TABLE: [PreTokenizer; 5] = [
    PreTokenizer { names: &["gpt-2"], cut: Cut::Gpt2, ignores_merges: false, normalizes: false, adds_bos: false },
    PreTokenizer {
        names: &["smollm"],
        cut: Cut::DigitsThenGpt2,
        ignores_merges: false,
        normalizes: false,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Expression(LLAMA3),
        ignores_merges: true,
        normalizes: false,
        adds_bos: true,
    },
    PreTokenizer {
        names: &["qwen2"],
        cut: Cut::Expression(QWEN2),
        ignores_merges: false,
        normalizes: true,
        adds_bos: false,
    },
    PreTokenizer {
        names: &["bloom"],
        cut: Cut::Expression(BLOOM),
        ignores_merges: false,
        normalizes: false,
        adds_bos: false,
    },
];

/// The family called `name`.
///
/// # Errors
/// [`TokenizerError::PreTokenizer`] with the names that there are.
pub(super) fn named(name: &str) -> Result<PreTokenizer, TokenizerError> {
    TABLE.into_iter().find(|family| family.names.contains(&name)).ok_or_else(|| TokenizerError::PreTokenizer {
        found: name.chars().take(80).collect(),
        supported: TABLE.iter().map(|family| family.names[0]).collect::<Vec<_>>().join(", "),
    })
}

// === impl PreTokenizer ===

impl PreTokenizer {
    /// The library's pre-tokenizer: cut, then each byte to a character of the byte-level alphabet.
    pub(super) fn build(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let byte_level = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, false, use_regex));
        let steps = match self.cut {
            Cut::Gpt2 => vec![byte_level(true)],
            Cut::DigitsThenGpt2 => vec![Digits::new(true).into(), byte_level(true)],
            Cut::Expression(expression) => {
                let pattern = SplitPattern::Regex(expression.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                    .map_err(|error| TokenizerError::Vocabulary(error.to_string()))?;
                vec![split.into(), byte_level(false)]
            }
        };
        Ok(Sequence::new(steps).into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    fn cut(family: &str, text: &str) -> Vec<String> {
        let mut text = PreTokenizedString::from(text);
        named(family).unwrap().build().unwrap().pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
        splits.into_iter().map(|split| split.0.to_owned()).collect()
    }

    #[test]
    fn each_family_cuts_digits_words_and_lines_in_its_own_way() {
        let text = "It'S 1234\n\n  ok";
        assert_eq!(cut("gpt-2", text), ["It", "'", "S", "Ġ1234", "ĊĊĠ", "Ġok"]);
        assert_eq!(cut("smollm", text), ["It", "'", "S", "Ġ", "1", "2", "3", "4", "ĊĊĠ", "Ġok"]);
        assert_eq!(cut("llama-bpe", text), ["It", "'S", "Ġ", "123", "4", "ĊĊ", "Ġ", "Ġok"]);
        assert_eq!(cut("bloom", text), ["It'S", "Ġ1234", "ĊĊĠ", "Ġok"]);
        assert_eq!(cut("bloom", "Hi, you. (x|y)"), ["Hi", ",", "Ġyou", ".Ġ(", "x", "|", "y", ")"]);
        assert_eq!(cut("qwen2", text), ["It", "'S", "Ġ", "1", "2", "3", "4", "ĊĊ", "Ġ", "Ġok"]);
    }

    #[test]
    fn an_unknown_family_is_refused_with_the_known_ones() {
        let error = named("tekken").err().unwrap().to_string();
        assert!(error.contains("`tekken`") && error.contains("gpt-2, smollm, llama-bpe, qwen2, bloom"), "{error}");
    }
}
