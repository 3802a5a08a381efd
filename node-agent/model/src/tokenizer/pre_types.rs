//! Pre-types: how families of byte-level vocabularies cut text into words. A family is a row of data, found by `tokenizer.ggml.pre`.
//!
//! Expressions are as published in each family's `tokenizer.json`; what of them cannot be matched in linear time is told apart by the
//! [`super::cutter`].

/// One family.
pub(super) struct PreType {
    /// As in llama.cpp's `llama-vocab.cpp`; the first is the family's own.
    pub(super) names: &'static [&'static str],
    /// Each cuts the words of the one before; what it does not match stays a word.
    pub(super) steps: &'static [&'static str],
    /// The same of words in the byte alphabet, in which `½` is a letter and a digit.
    pub(super) steps_of_bytes: &'static [&'static str],
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether a begin token is added where the file does not say.
    pub(super) adds_bos: bool,
}

const DIGIT: &str = r"\p{N}";
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const KIMI_K2: &str = r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILINGMOE: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// Runs of what is none of these signs, each with at most one space before it; what lies between them stays together.
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

const fn family(names: &'static [&'static str], steps: &'static [&'static str]) -> PreType {
    PreType { names, steps, steps_of_bytes: &[], ignores_merges: false, adds_bos: false }
}

const TABLE: [PreType; 19] = [
    family(
        &["gpt-2", "phi-2", "jais", "trillion", "granite-docling", "exaone4", "modern-bert", "mpt", "olmo"],
        &[GPT2],
    ),
    // What a file without a name of a family gets.
    family(&["default"], &[r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    PreType {
        ignores_merges: true,
        adds_bos: true,
        ..family(&["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"], &[LLAMA3])
    },
    family(&["qwen2", "deepseek-r1-qwen", "megrez", "solar-open", "grok-2", "stablelm2", "hunyuan"], &[QWEN2]),
    family(&["qwen35"], &[QWEN35]),
    family(
        &["smollm", "starcoder", "refact", "command-r", "exaone", "codeshell", "minerva-7b", "mellum2"],
        &[DIGIT, GPT2],
    ),
    family(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    PreType { ignores_merges: true, ..family(&["glm4", "glm5"], &[LLAMA3]) },
    PreType { ignores_merges: true, adds_bos: true, ..family(&["tekken"], &[TEKKEN]) },
    family(&["gpt-4o", "kanana2", "talkie", "llama4", "minimax-m2"], &[GPT4O]),
    family(&["tiny_aya"], &[super::cutter::THREES, GPT4O]),
    family(&["kimi-k2"], &[KIMI_K2]),
    PreType { steps_of_bytes: &[r"\p{N}+", "[0-9][0-9][0-9]"], ..family(&["falcon"], &[r"[\p{P}$+<=>^`~|]+", GPT2]) },
    family(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            r"[一-龥ࠀ-一가-퟿]+",
            DIGIT,
        ],
    ),
    family(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", DIGIT]),
    family(&["deepseek-v3", "hunyuan-dense", "joyai-llm"], &[r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_V3]),
    family(&["seed-coder"], &[SEED_CODER]),
    family(&["bailingmoe"], &[BAILINGMOE]),
    family(&["bloom"], &[BLOOM]),
];

/// The family called `name`.
pub(super) fn named(name: &str) -> Option<PreType> {
    TABLE.into_iter().find(|family| family.names.contains(&name))
}

/// The names of all families.
pub(super) fn names() -> String {
    TABLE.iter().map(|family| family.names.join(", ")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::cutter::Cutter;
    use super::super::effort::Effort;
    use super::*;

    fn cut(family: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut effort = Effort::of(text.len());
        let cutter = Cutter::new(named(family).unwrap().steps).unwrap();
        let take = &mut |word: &str, _: &mut Effort| {
            words.push(word.to_owned());
            Ok(())
        };
        cutter.each_word(text, &mut effort, take).unwrap();
        words
    }

    #[test]
    fn each_family_cuts_digits_words_and_lines_in_its_own_way() {
        let text = "It'S 1234\n\n  ok";
        assert_eq!(cut("gpt-2", text), ["It", "'", "S", " 1234", "\n\n ", " ok"]);
        assert_eq!(cut("smollm", text), ["It", "'", "S", " ", "1", "2", "3", "4", "\n\n ", " ok"]);
        assert_eq!(cut("llama-bpe", text), ["It", "'S", " ", "123", "4", "\n\n", " ", " ok"]);
        assert_eq!(cut("bloom", text), ["It'S", " 1234", "\n\n ", " ok"]);
        assert_eq!(cut("bloom", "Hi, you. (x|y)"), ["Hi", ",", " you", ". (", "x", "|", "y", ")"]);
        assert_eq!(cut("qwen2", text), ["It", "'S", " ", "1", "2", "3", "4", "\n\n", " ", " ok"]);
        assert_eq!(cut("tiny_aya", text), ["It'S", " ", "1", "234", "\n\n", " ", " ok"]);
        assert_eq!(cut("default", text), ["It", "'", "S", " ", "123", "4", "\n\n ", " ok"]);
    }

    #[test]
    fn every_family_can_be_built_and_no_name_is_of_two() {
        let mut names: Vec<&str> = Vec::new();
        for family in TABLE {
            Cutter::new(family.steps).unwrap();
            Cutter::new(family.steps_of_bytes).unwrap();
            names.extend(family.names);
        }
        let n_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_names);
        assert!(named("no such").is_none());
    }

    #[test]
    fn no_family_finds_a_text_of_all_of_unicode_too_dear() {
        let characters: Vec<char> = (1..=0x2_ffff).filter_map(char::from_u32).collect();
        // Each character beside others than before, so that automata meet as many states as they can.
        let shuffled: String = (0..characters.len()).map(|idx| characters[idx * 7919 % characters.len()]).collect();
        for family in TABLE {
            let cutter = Cutter::new(family.steps).unwrap();
            // What one text has made of an automaton is there for the next.
            for _ in 0..3 {
                let mut n_bytes = 0;
                let take = &mut |word: &str, _: &mut Effort| {
                    n_bytes += word.len();
                    Ok(())
                };
                let cut = cutter.each_word(&shuffled, &mut Effort::of(shuffled.len()), take);
                assert!(cut.is_ok(), "{}", family.names[0]);
                assert_eq!(n_bytes, shuffled.len(), "{}", family.names[0]);
            }
        }
    }
}
