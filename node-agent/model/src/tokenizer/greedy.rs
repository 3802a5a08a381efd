//! Greedy: sentencepiece's byte-pair encoding. Neighbours are joined by the score of what they become; what is no word falls to bytes.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::flaw::Flaw;
use super::vocabulary::{BLANK, Vocabulary};

/// A vocabulary of scored words.
#[derive(Debug)]
pub(super) struct Greedy {
    words: HashMap<Box<str>, Word>,
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    /// Of the longest word.
    max_bytes: usize,
    /// Whether a blank is put before the text.
    is_prefixed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    token: u32,
    score: f32,
}

/// A stretch of the text between its neighbours; one that was joined to its left is empty.
#[derive(Clone, Copy)]
struct Symbol {
    from: u32,
    to: u32,
    before: u32,
    after: u32,
}

/// Two neighbours that can be joined.
#[derive(Clone, Copy, PartialEq)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Where the pair ended when it was found: one that has changed since is passed over.
    to: u32,
}

const NONE: u32 = u32::MAX;

// === impl Greedy ===

impl Greedy {
    /// `scores` has one for each token.
    ///
    /// # Errors
    /// [`Flaw::LongWord`].
    pub(super) fn new(
        vocabulary: &Vocabulary<'_>,
        scores: &[f32],
        unknown: Option<u32>,
        is_prefixed: bool,
    ) -> Result<Self, Flaw> {
        vocabulary.check_words()?;
        let word = |(token, text, _): (u32, &str, _)| {
            // No zero below zero: of equals the leftmost is joined first.
            (Box::from(text), Word { token, score: scores[token as usize] + 0.0 })
        };
        let words: HashMap<Box<str>, Word> = vocabulary.words().map(word).collect();
        let max_bytes = words.keys().map(|text| text.len()).max().unwrap_or(0);
        Ok(Self { words, bytes: vocabulary.bytes(), unknown, max_bytes, is_prefixed })
    }

    /// Adds the tokens of `text`, which [`super::MAX_TEXT_BYTES`] bounds.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        let prefix = if self.is_prefixed && !text.is_empty() { " " } else { "" };
        let text = format!("{prefix}{text}").replace(' ', BLANK.encode_utf8(&mut [0; 4]));
        let mut symbols = symbols(&text);
        let mut pairs = BinaryHeap::new();
        for left in 0..symbols.len() as u32 {
            pairs.extend(self.pair(&text, &symbols, left));
        }
        while let Some(Pair { left, right, to, .. }) = pairs.pop() {
            let (begin, end) = (symbols[left as usize], symbols[right as usize]);
            let is_joined = |symbol: Symbol| symbol.from == symbol.to;
            if is_joined(begin) || is_joined(end) || begin.after != right || end.to != to {
                continue;
            }
            symbols[left as usize] = Symbol { to, after: end.after, ..begin };
            symbols[right as usize].to = end.from;
            if let Some(next) = symbols.get_mut(end.after as usize) {
                next.before = left;
            }
            pairs.extend(self.pair(&text, &symbols, begin.before));
            pairs.extend(self.pair(&text, &symbols, left));
        }
        for symbol in symbols.iter().filter(|symbol| symbol.from < symbol.to) {
            self.emit(&text[symbol.from as usize..symbol.to as usize], tokens);
        }
    }

    /// The symbol at `left` and the one after it, if they join to a word.
    fn pair(&self, text: &str, symbols: &[Symbol], left: u32) -> Option<Pair> {
        let begin = symbols.get(left as usize)?;
        let end = symbols.get(begin.after as usize)?;
        let joined = &text[begin.from as usize..end.to as usize];
        let word = if joined.len() <= self.max_bytes { self.words.get(joined)? } else { return None };
        Some(Pair { score: word.score, left, right: begin.after, to: end.to })
    }

    fn emit(&self, symbol: &str, tokens: &mut Vec<u32>) {
        if let Some(word) = self.words.get(symbol) {
            tokens.push(word.token);
            return;
        }
        let bytes: Option<Vec<u32>> = symbol.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        match bytes {
            Some(bytes) => tokens.extend(bytes),
            None => tokens.extend(self.unknown),
        }
    }
}

/// A symbol for each character.
fn symbols(text: &str) -> Vec<Symbol> {
    let symbol = |(idx, (from, character)): (usize, (usize, char))| {
        let (idx, from) = (idx as u32, from as u32);
        Symbol { from, to: from + character.len_utf8() as u32, before: idx.checked_sub(1).unwrap_or(NONE), after: idx + 1 }
    };
    text.char_indices().enumerate().map(symbol).collect()
}

// === impl Pair ===

impl Eq for Pair {}

impl Ord for Pair {
    /// The greatest is joined first: that of the highest score, of equals the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |pair: &Self| (Reverse(pair.left), pair.to);
        self.score.total_cmp(&other.score).then_with(|| key(self).cmp(&key(other)))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::vocabulary::Kind;
    use super::*;

    fn encode(words: &[(&str, f32)], is_prefixed: bool, text: &str) -> Vec<u32> {
        let texts: Vec<String> = words.iter().map(|word| word.0.to_owned()).collect();
        let scores: Vec<f32> = words.iter().map(|word| word.1).collect();
        let kind = |text: &String| if text.starts_with("<0x") { Kind::Byte } else { Kind::Normal };
        let vocabulary = Vocabulary { texts: &texts, kinds: texts.iter().map(kind).collect() };
        let mut tokens = Vec::new();
        Greedy::new(&vocabulary, &scores, Some(99), is_prefixed).unwrap().encode(text, &mut tokens);
        tokens
    }

    #[test]
    fn the_highest_score_is_joined_first_and_of_equals_the_leftmost() {
        let words = [("a", -9.0), ("b", -9.0), ("ab", -2.0), ("ba", -1.0), ("aa", -3.0), ("bab", -0.5), ("▁", -9.0)];
        assert_eq!(encode(&words, false, "abab"), [0, 5], "a ba b, then a bab");
        assert_eq!(encode(&words, false, "aaa"), [4, 0]);
        assert_eq!(encode(&words, true, "ab"), [6, 2]);
        assert_eq!(encode(&words, true, ""), Vec::<u32>::new());
    }

    #[test]
    fn what_is_no_word_falls_to_its_bytes_or_is_unknown() {
        let words = [("<0xC3>", 0.0), ("<0xA9>", 0.0), ("e", 0.0)];
        assert_eq!(encode(&words, false, "eée"), [2, 0, 1, 2]);
        assert_eq!(encode(&words, false, "eèe"), [2, 99, 2], "one of its bytes has no token");
    }

    #[test]
    fn a_long_text_takes_one_pass() {
        let words = [("a", -9.0), ("aa", -1.0), ("aaaa", -2.0)];
        assert_eq!(encode(&words, false, &"a".repeat(1 << 18)), vec![2; 1 << 16]);
    }
}
