//! Byte pairs: words to tokens by merges, the lowest rank first, of equals the leftmost. The library's model, held to what files may say.

use std::collections::{HashMap, HashSet};

use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab};

use super::flaw::Flaw;
use super::vocabulary::Vocabulary;

/// A vocabulary with its merges.
#[derive(Debug)]
pub(super) struct BytePairs {
    model: BPE,
    /// Tokens from here on are none of the file's: merges lead to them, and they fall to their characters.
    n_vocab: u32,
    fallen: Vec<Box<[u32]>>,
}

/// What words and characters become beside merges.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// Whether a character that is no token falls to the tokens of its bytes.
    pub(super) falls_to_bytes: bool,
    /// The text of the token for what has none, else it is left out; and whether neighbours of that kind are one.
    pub(super) unknown: Option<(String, bool)>,
}

// === impl BytePairs ===

impl BytePairs {
    /// `merges` are the left and the right text of each, the lowest rank first.
    ///
    /// # Errors
    /// [`Flaw::MergeOfNoToken`], [`Flaw::Library`].
    pub(super) fn new<'v>(
        vocabulary: &Vocabulary<'v>,
        merges: impl Iterator<Item = (&'v str, &'v str)>,
        manner: Manner,
    ) -> Result<Self, Flaw> {
        let mut ids: HashMap<String, u32> =
            vocabulary.words().map(|(token, text, _)| (text.to_owned(), token)).collect();
        // Bytes and the unknown are words to the library, which asks for both by name.
        let bytes = vocabulary.bytes();
        let bytes = bytes.iter().flatten().filter(|_| manner.falls_to_bytes);
        ids.extend(bytes.map(|&token| (vocabulary.texts[token as usize].clone(), token)));
        let n_vocab = vocabulary.texts.len() as u32;
        if let Some((unknown, _)) = &manner.unknown {
            let token = vocabulary.texts.iter().position(|text| text == unknown);
            let flaw = || Flaw::Library(format!("{unknown:?} is to stand for unknown text and is no token"));
            ids.insert(unknown.clone(), token.ok_or_else(flaw)? as u32);
        }
        let mut fallen = Vec::new();
        let mut known = HashSet::new();
        let mut kept = Vec::new();
        for (idx, (left, right)) in merges.enumerate() {
            if let Some(token) = [left, right].into_iter().find(|side| !ids.contains_key(*side)) {
                return Err(Flaw::MergeOfNoToken { idx, token: token.chars().take(80).collect() });
            }
            // The library lets the last of equal merges count.
            if !known.insert((left, right)) {
                continue;
            }
            let joined = [left, right].concat();
            if !ids.contains_key(&joined) {
                let character = |character: char| ids.get(character.encode_utf8(&mut [0; 4]) as &str).copied();
                fallen.push(joined.chars().filter_map(character).collect());
                ids.insert(joined, n_vocab + fallen.len() as u32 - 1);
            }
            kept.push((left.to_owned(), right.to_owned()));
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(ids.into_iter().collect::<Vocab>(), kept)
            .byte_fallback(manner.falls_to_bytes)
            .ignore_merges(manner.ignores_merges);
        if let Some((unknown, is_fused)) = manner.unknown {
            builder = builder.unk_token(unknown).fuse_unk(is_fused);
        }
        let model = builder.build().map_err(|error| Flaw::Library(error.to_string()))?;
        Ok(Self { model, n_vocab, fallen })
    }

    /// Adds the tokens of one word.
    ///
    /// # Errors
    /// What the library refuses, in its words.
    pub(super) fn encode(&self, word: &str, tokens: &mut Vec<u32>) -> Result<(), String> {
        for token in self.model.tokenize(word).map_err(|error| error.to_string())? {
            match token.id.checked_sub(self.n_vocab) {
                None => tokens.push(token.id),
                Some(idx) => tokens.extend_from_slice(&self.fallen[idx as usize]),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::vocabulary::Kind;
    use super::*;

    fn encode(texts: &[&str], merges: &[(&str, &str)], manner: Manner, word: &str) -> Result<Vec<u32>, Flaw> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let kind = |text: &String| match text.as_str() {
            "<s>" | "sss" => Kind::Control,
            "<u>" => Kind::Unknown,
            text if text.starts_with("<0x") => Kind::Byte,
            _ => Kind::Normal,
        };
        let vocabulary = Vocabulary { texts: &texts, kinds: texts.iter().map(kind).collect() };
        let mut tokens = Vec::new();
        BytePairs::new(&vocabulary, merges.iter().copied(), manner)?.encode(word, &mut tokens).unwrap();
        Ok(tokens)
    }

    #[test]
    fn the_first_of_equal_merges_counts() {
        let merges = [("a", "b"), ("b", "a"), ("a", "b")];
        assert_eq!(encode(&["a", "b", "ab", "ba"], &merges, Manner::default(), "aba").unwrap(), [2, 0]);
    }

    #[test]
    fn a_result_that_is_no_token_falls_to_its_characters() {
        let merges = [("a", "b"), ("ab", "c")];
        assert_eq!(encode(&["a", "b", "c"], &merges, Manner::default(), "cabca").unwrap(), [2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_word_that_is_a_token_may_be_taken_whole_but_never_as_a_control_token() {
        let whole = Manner { ignores_merges: true, ..Manner::default() };
        assert_eq!(encode(&["a", "b", "ab"], &[], whole.clone(), "ab").unwrap(), [2]);
        assert_eq!(encode(&["a", "b", "ab"], &[], Manner::default(), "ab").unwrap(), [0, 1]);
        let merges = [("s", "s"), ("ss", "s")];
        assert_eq!(encode(&["s", "ss", "sss"], &merges, whole, "sss").unwrap(), [0, 0, 0], "not the token of that name");
    }

    #[test]
    fn what_has_no_token_falls_to_its_bytes_or_is_unknown() {
        let manner = Manner { falls_to_bytes: true, unknown: Some(("<u>".into(), true)), ..Manner::default() };
        let texts = ["<u>", "<0xC3>", "<0xA9>", "a"];
        assert_eq!(encode(&texts, &[], manner.clone(), "aéèèa").unwrap(), [3, 1, 2, 0, 3]);
        let apart = Manner { unknown: Some(("<u>".into(), false)), ..manner.clone() };
        assert_eq!(encode(&texts, &[], apart, "èè").unwrap(), [0, 0]);
        let nobody = Manner { unknown: Some(("<x>".into(), false)), ..manner };
        assert!(matches!(encode(&texts, &[], nobody, "a"), Err(Flaw::Library(_))));
    }

    #[test]
    fn a_merge_of_what_is_no_token_is_refused() {
        let flaw = encode(&["a"], &[("a", "z")], Manner::default(), "a").unwrap_err();
        assert_eq!(flaw, Flaw::MergeOfNoToken { idx: 0, token: "z".into() });
    }
}
