//! Cutter: text to words by expressions, in time that grows with the text alone. Knows no token.
//!
//! Published expressions look ahead in two ways, and forbid to go back in two, for which an engine has to try again and again, in a long
//! text a million times. These are found by their very words here and done by hand; all else is matched by automata. An expression that
//! needs more is refused, and a text in which one looks ahead in vain again and again ([`Effort`]).

use regex_automata::Match;

use super::TokenizerError;
use super::effort::Effort;
use super::finder::{Finder, FinderError};

/// A run of blanks, but not the one before a word: the end of nearly every expression.
const BLANKS: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
/// Groups of three digits, counted from the last one.
pub(super) const THREES: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// Quantifiers that give nothing back, where nothing comes after that would take it: they are as good as those that do.
const GIVING_NOTHING_BACK: [(&str, &str); 2] = [
    (r"[^\r\n\p{L}\p{N}]?+\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+"),
    (r"[^\s\p{L}\p{N}]++[\r\n]*", r"[^\s\p{L}\p{N}]+[\r\n]*"),
];
/// A run of digits that letters follow, which is not grouped, and one that is.
const DIGITS: [&str; 2] = [r"\d+[\w--\d]", r"\d+"];

/// What becomes of a word.
pub(super) type Take<'t> = dyn FnMut(&str, &mut Effort) -> Result<(), TokenizerError> + 't;

/// Cuts text step by step, each time the words of the step before.
#[derive(Debug)]
pub(super) struct Cutter {
    steps: Vec<Step>,
}

/// Why an expression cannot cut text here.
#[derive(Debug, thiserror::Error)]
pub(super) enum CutterError {
    #[error("a quantifier of it gives nothing back (`?+`, `*+`, `++`, `}}+`), which is not matched in linear time")]
    Possessive,
    #[error(transparent)]
    Finder(#[from] FinderError),
}

#[derive(Debug)]
enum Step {
    /// Words are what matches. The second pattern, where there is one, is a run of blanks that gives its last one back.
    Matches(Finder),
    Threes(Finder),
}

// === impl Cutter ===

impl Cutter {
    /// # Errors
    /// [`CutterError`]: an expression that looks around or refers back, is none at all, or takes too much memory.
    pub(super) fn new(expressions: &[impl AsRef<str>]) -> Result<Self, CutterError> {
        let steps = expressions.iter().map(|expression| Step::new(expression.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }

    /// Gives every word of `text` in order. Put together they are the text.
    ///
    /// # Errors
    /// [`TokenizerError::TooDear`], and what becomes of a word.
    pub(super) fn each_word(&self, text: &str, effort: &mut Effort, take: &mut Take<'_>) -> Result<(), TokenizerError> {
        cut(&self.steps, text, effort, take)
    }
}

fn cut(steps: &[Step], text: &str, effort: &mut Effort, take: &mut Take<'_>) -> Result<(), TokenizerError> {
    match steps.split_first() {
        None => take(text, effort),
        Some((step, rest)) => step.each_word(text, effort, &mut |word, effort| cut(rest, word, effort, take)),
    }
}

// === impl Step ===

impl Step {
    fn new(expression: &str) -> Result<Self, CutterError> {
        if expression == THREES {
            return Ok(Self::Threes(Finder::new(&DIGITS)?));
        }
        let plain = GIVING_NOTHING_BACK.iter().fold(expression.to_owned(), |all, (from, to)| all.replace(*from, to));
        if is_possessive(&plain) {
            return Err(CutterError::Possessive);
        }
        Ok(Self::Matches(match BLANKS.iter().find_map(|blanks| plain.strip_suffix(*blanks)) {
            Some(before) => Finder::new(&[before, r"\s+"])?,
            None => Finder::new(&[&plain])?,
        }))
    }

    fn each_word(&self, text: &str, effort: &mut Effort, take: &mut Take<'_>) -> Result<(), TokenizerError> {
        // From where nothing has been given, and from where is searched.
        let (mut from, mut at) = (0, 0);
        let (Self::Matches(finder) | Self::Threes(finder)) = self;
        let mut states = finder.states();
        while let Some(found) = finder.next(&mut states, text, at, effort)? {
            let is_first = found.pattern().as_usize() == 0;
            at = match self {
                Self::Matches(_) if !is_first => end_of_blanks(text, &found),
                _ => found.end(),
            };
            match self {
                // Digits within a word stay in it.
                Self::Threes(_) if is_first => continue,
                Self::Threes(_) => {
                    word(&text[from..found.start()], effort, take)?;
                    each_three(&text[found.range()], effort, take)?;
                }
                Self::Matches(_) => {
                    word(&text[from..found.start()], effort, take)?;
                    word(&text[found.start()..at], effort, take)?;
                }
            }
            from = at;
        }
        word(&text[from..], effort, take)
    }
}

/// Whether a quantifier follows another: to some engines it forbids to go back, to ours it repeats what is repeated.
fn is_possessive(expression: &str) -> bool {
    let mut rest = expression.chars().peekable();
    let (mut n_classes, mut after_quantifier) = (0_usize, false);
    while let Some(character) = rest.next() {
        let mut is_quantifier = false;
        match character {
            '\\' => {
                let is_property = matches!(rest.next(), Some('p' | 'P')) && rest.peek() == Some(&'{');
                // The braces of `\p{L}` count nothing.
                while is_property && rest.next().is_some_and(|next| next != '}') {}
            }
            '[' => n_classes += 1,
            ']' => n_classes = n_classes.saturating_sub(1),
            _ if n_classes > 0 => {}
            '+' if after_quantifier => return true,
            '?' | '*' | '+' | '}' => is_quantifier = true,
            _ => {}
        }
        after_quantifier = is_quantifier;
    }
    false
}

/// Where a run of blanks ends that leaves the last one to the word after it.
fn end_of_blanks(text: &str, blanks: &Match) -> usize {
    let last = text[blanks.range()].char_indices().next_back().map_or(0, |(at, _)| at);
    if blanks.end() < text.len() && last > 0 { blanks.start() + last } else { blanks.end() }
}

fn each_three(digits: &str, effort: &mut Effort, take: &mut Take<'_>) -> Result<(), TokenizerError> {
    let starts: Vec<usize> = digits.char_indices().map(|(at, _)| at).collect();
    let mut from = 0;
    for (idx, &at) in starts.iter().enumerate().skip(1) {
        if (starts.len() - idx).is_multiple_of(3) {
            take(&digits[from..at], effort)?;
            from = at;
        }
    }
    take(&digits[from..], effort)
}

fn word(text: &str, effort: &mut Effort, take: &mut Take<'_>) -> Result<(), TokenizerError> {
    if text.is_empty() { Ok(()) } else { take(text, effort) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(expressions: &[&str], text: &str) -> Vec<String> {
        cut(expressions, text).unwrap()
    }

    fn cut(expressions: &[&str], text: &str) -> Result<Vec<String>, TokenizerError> {
        let mut words = Vec::new();
        let mut effort = Effort::of(text.len());
        let take: &mut Take<'_> = &mut |word, _| {
            words.push(word.to_owned());
            Ok(())
        };
        Cutter::new(expressions).unwrap().each_word(text, &mut effort, take)?;
        Ok(words)
    }

    #[test]
    fn a_run_of_blanks_leaves_its_last_one_to_the_word_after_it() {
        let expression = [r" ?[a-z]+|\s+(?!\S)|\s+"];
        assert_eq!(words(&expression, "a   b\t\u{3000}c  "), ["a", "  ", " b", "\t", "\u{3000}", "c", "  "]);
        assert_eq!(words(&expression, " 1"), [" ", "1"]);
    }

    #[test]
    fn digits_are_grouped_from_the_last_one_unless_letters_follow() {
        assert_eq!(words(&[THREES], "1234567 12 1234a"), ["1", "234", "567", " ", "12", " 1234a"]);
        assert_eq!(words(&[THREES], "٣٤٥٦"), ["٣", "٤٥٦"]);
        assert_eq!(words(&[THREES], "1234é5678 a1234_"), ["1234é", "5", "678", " a1234_"]);
    }

    #[test]
    fn what_a_step_does_not_match_is_a_word_of_the_next_one() {
        assert_eq!(words(&["[0-9]", "b+|"], "abba12bb"), ["a", "bb", "a", "1", "2", "bb"]);
        assert_eq!(words(&[], "ab"), ["ab"]);
        assert_eq!(words(&["x*"], ""), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_matched_in_linear_time_is_refused() {
        for expression in [
            r"a(?=b)",
            r"(?<!a)b",
            r"(a)\1",
            "(",
            r"(\p{L}{1000}){1000}",
            "a?+b",
            "a*+",
            r"\pL{1,2}+",
            "(a+)++",
            r"a\b",
        ] {
            assert!(Cutter::new(&[expression]).is_err(), "{expression}");
        }
        for expression in [r"\p{L}+", r"[?+]+", r"\++", "a+?|b", "(?:a)+"] {
            assert!(!is_possessive(expression), "{expression}");
        }
    }

    #[test]
    fn a_text_in_which_an_expression_looks_ahead_in_vain_again_and_again_is_refused() {
        let long = "a".repeat(1 << 20);
        // One falls back to a shorter match, one to none, one matches nothing at all, and one does so in the second step.
        for expressions in [&["a+b|a"] as &[&str], &["(?:a+b)?"], &["a+b|a*c|"], &["a+", "a+b|a"]] {
            assert!(matches!(cut(expressions, &long), Err(TokenizerError::TooDear)), "{expressions:?}");
        }
        assert_eq!(words(&["a+b|a"], "aaaab"), ["aaaab"]);
        assert_eq!(words(&["a+b|a"], &long[..300]).len(), 300, "short texts are not dear");
        // Looks ahead by far, and each time in vain once.
        assert_eq!(words(&["a{1000}b|a+"], &long), [long.as_str()]);
    }

    #[test]
    fn an_expression_of_ever_new_states_is_refused_when_it_has_text() {
        // Which of the last places had an `a`: more states than there are bytes.
        let expression = [r"[ab]*a[ab]{600}c|[ab]"];
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed >> 31 == 0 { 'a' } else { 'b' }
        };
        let text: String = (0..1 << 18).map(|_| random()).collect();
        assert!(matches!(cut(&expression, &text), Err(TokenizerError::TooDear)));
    }

    #[test]
    fn a_million_blanks_or_digits_are_one_pass() {
        let expressions = [THREES, r"\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+"];
        let text = "1".repeat(1 << 20) + "a" + &" ".repeat(1 << 20) + "b";
        assert_eq!(words(&expressions, &text).iter().map(String::len).sum::<usize>(), text.len());
    }
}
