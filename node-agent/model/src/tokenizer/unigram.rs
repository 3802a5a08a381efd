//! Unigram: sentencepiece's model of T5. Of all ways to cut a text into words, the one with the greatest sum of scores.

use super::charsmap::Charsmap;
use super::effort::{Effort, TooDear};
use super::flaw::Flaw;
use super::vocabulary::{BLANK, Kind, Vocabulary};
use super::words::Words;

/// A vocabulary of scored words, and how text is brought into its form.
#[derive(Debug)]
pub(super) struct Unigram {
    words: Words,
    /// Of each token.
    scores: Vec<f64>,
    unknown: Option<u32>,
    score_of_unknown: f64,
    form: Form,
}

/// How text is brought into the form that the words have.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) charsmap: Option<Charsmap>,
    /// Whether a blank is put before the first character that is none.
    pub(super) is_prefixed: bool,
    /// Whether runs of blanks become one, and none at either end.
    pub(super) joins_blanks: bool,
}

/// The best way to a place of the text.
#[derive(Clone, Copy)]
struct Way {
    score: f64,
    /// Where its last token begins.
    from: u32,
    /// `None` is the unknown.
    token: Option<u32>,
}

/// What an unknown character counts less than the least word.
const PENALTY: f64 = 10.0;
/// Steps that a byte of a word takes, which is looked for among all words. Words of a text have some ten, and the longest known 130.
const STEPS_OF_WORD: usize = 2;

// === impl Unigram ===

impl Unigram {
    /// `scores` has one for each token.
    ///
    /// # Errors
    /// [`Flaw::LongWord`].
    pub(super) fn new(
        vocabulary: &Vocabulary<'_>,
        mut scores: Vec<f64>,
        unknown: Option<u32>,
        form: Form,
    ) -> Result<Self, Flaw> {
        vocabulary.check_words()?;
        let least = vocabulary.words().filter(|word| word.2 == Kind::Normal).map(|word| scores[word.0 as usize]);
        let least = least.fold(f64::INFINITY, f64::min);
        for (token, ..) in vocabulary.words().filter(|word| word.2 == Kind::UserDefined) {
            scores[token as usize] = 0.0;
        }
        Ok(Self {
            words: Words::new(vocabulary.words().map(|(token, text, _)| (text, token))),
            scores,
            unknown,
            score_of_unknown: if least.is_finite() { least - PENALTY } else { -PENALTY },
            form,
        })
    }

    /// Adds the tokens of `text`, which [`super::MAX_TEXT_BYTES`] bounds.
    ///
    /// # Errors
    /// [`TooDear`]: a text of the beginnings of long words, again and again.
    pub(super) fn encode(&self, text: &str, effort: &mut Effort, tokens: &mut Vec<u32>) -> Result<(), TooDear> {
        let text = self.form.of(text);
        let mut ways = vec![Way { score: f64::NEG_INFINITY, from: 0, token: None }; text.len() + 1];
        ways[0].score = 0.0;
        for (from, character) in text.char_indices() {
            let before = ways[from].score;
            let mut go = |n_bytes: usize, token: Option<u32>, score: f64| {
                let way = &mut ways[from + n_bytes];
                if before + score > way.score {
                    *way = Way { score: before + score, from: from as u32, token };
                }
            };
            let mut is_known = false;
            let n_looked_at = self.words.each_prefix(&text.as_bytes()[from..], |n_bytes, token| {
                is_known |= n_bytes == character.len_utf8();
                go(n_bytes, Some(token), self.scores[token as usize]);
            });
            effort.spend(n_looked_at * STEPS_OF_WORD)?;
            if !is_known {
                go(character.len_utf8(), None, self.score_of_unknown);
            }
        }
        let begin = tokens.len();
        let mut at = text.len();
        let mut after_unknown = false;
        while at > 0 {
            let Way { from, token, .. } = ways[at];
            match token {
                Some(token) => tokens.push(token),
                None if after_unknown => {}
                None => tokens.extend(self.unknown),
            }
            after_unknown = token.is_none();
            at = from as usize;
        }
        tokens[begin..].reverse();
        Ok(())
    }
}

// === impl Form ===

impl Form {
    fn of(&self, text: &str) -> String {
        let mut formed = String::with_capacity(text.len() + BLANK.len_utf8());
        let mut blanks = Blanks { form: self, is_within_word: false, has_begun: false };
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            match self.charsmap.as_ref().and_then(|map| map.replaced(rest)) {
                Some((replacement, n_bytes)) => {
                    replacement.chars().for_each(|character| blanks.put(character, &mut formed));
                    rest = &rest[n_bytes..];
                }
                None => {
                    blanks.put(character, &mut formed);
                    rest = &rest[character.len_utf8()..];
                }
            }
        }
        formed
    }
}

/// Where in a text we are, as to its blanks.
struct Blanks<'f> {
    form: &'f Form,
    is_within_word: bool,
    has_begun: bool,
}

// === impl Blanks ===

impl Blanks<'_> {
    fn put(&mut self, character: char, formed: &mut String) {
        if character == ' ' {
            self.is_within_word = false;
            if !self.form.joins_blanks {
                formed.push(BLANK);
            }
            return;
        }
        if !self.is_within_word {
            let is_first = !std::mem::replace(&mut self.has_begun, true);
            let has_blank = if is_first { self.form.is_prefixed } else { self.form.joins_blanks };
            formed.extend(has_blank.then_some(BLANK));
        }
        self.is_within_word = true;
        formed.push(character);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn form(is_prefixed: bool, joins_blanks: bool) -> Form {
        Form { charsmap: None, is_prefixed, joins_blanks }
    }

    #[test]
    fn blanks_are_joined_and_put_first_as_the_file_says() {
        for (is_prefixed, joins_blanks, expected) in
            [(true, true, "▁a▁b"), (false, true, "a▁b"), (true, false, "▁▁a▁▁b▁"), (false, false, "▁a▁▁b▁")]
        {
            assert_eq!(form(is_prefixed, joins_blanks).of(" a  b "), expected);
        }
        assert_eq!(form(true, true).of("   "), "");
    }

    #[test]
    fn the_greatest_sum_wins_and_neighbouring_unknowns_are_one() {
        let words = [("a", -3.0), ("b", -3.0), ("ab", -5.0), ("abc", -5.5), ("c", -1.0), ("<u>", -7.0)];
        let texts: Vec<String> = words.iter().map(|word| word.0.to_owned()).collect();
        let scores: Vec<f64> = words.iter().map(|word| word.1).collect();
        let mut kinds = vec![Kind::Normal; 5];
        kinds.push(Kind::UserDefined);
        let vocabulary = Vocabulary { texts: &texts, kinds };
        let unigram = Unigram::new(&vocabulary, scores, Some(9), form(false, true)).unwrap();
        let encode = |text: &str| {
            let mut tokens = vec![7];
            unigram.encode(text, &mut Effort::of(text.len()), &mut tokens).unwrap();
            tokens
        };
        assert_eq!(encode("abc"), [7, 3]);
        assert_eq!(encode("abab"), [7, 2, 2]);
        assert_eq!(encode("azéb"), [7, 0, 9, 1]);
        assert_eq!(encode("<u>"), [7, 5]);
        assert_eq!((encode(""), encode("  ")), (vec![7], vec![7]));
    }

    #[test]
    fn a_text_of_the_beginnings_of_long_words_is_refused() {
        let texts: Vec<String> = (1..=1000).map(|length| "a".repeat(length)).chain(["b".to_owned()]).collect();
        let vocabulary = Vocabulary { texts: &texts, kinds: vec![Kind::Normal; 1001] };
        let unigram = Unigram::new(&vocabulary, vec![-1.0; 1001], None, form(false, false)).unwrap();
        let encode = |text: &str| {
            let mut tokens = Vec::new();
            unigram.encode(text, &mut Effort::of(text.len()), &mut tokens).map(|()| tokens)
        };
        assert_eq!(encode(&"a".repeat(100_000)), Err(TooDear));
        assert_eq!(encode(&"aaaab".repeat(10_000)).unwrap(), [3, 1000].repeat(10_000));
    }
}
