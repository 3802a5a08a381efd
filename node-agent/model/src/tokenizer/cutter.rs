//! Cutter: text to words by expressions, in time that grows with the text alone. Knows no token.
//!
//! Published expressions look ahead in two ways, and forbid to go back in two, for which an engine has to try again and again, in a long
//! text a million times. These are found by their very words here and done by hand; all else is matched by automata. An expression that
//! needs more is refused.

use std::error::Error as _;

use regex_automata::meta::{BuildError, Regex};
use regex_automata::{Input, Match};

/// A run of blanks, but not the one before a word: the end of nearly every expression.
const BLANKS: [&str; 2] = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)"];
/// Groups of three digits, counted from the last one.
pub(super) const THREES: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
/// Quantifiers that give nothing back, where nothing comes after that would take it: they are as good as those that do.
const GIVING_NOTHING_BACK: [(&str, &str); 2] = [
    (r"[^\r\n\p{L}\p{N}]?+\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+"),
    (r"[^\s\p{L}\p{N}]++[\r\n]*", r"[^\s\p{L}\p{N}]+[\r\n]*"),
];
/// Memory that the automata of one expression may take.
const MAX_AUTOMATON_BYTES: usize = 16 << 20;

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
    #[error("{}", told(.0))]
    Engine(#[from] BuildError),
}

/// The engine's own words name no cause.
fn told(error: &BuildError) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[derive(Debug)]
enum Step {
    /// Words are what matches. The second pattern, where there is one, is a run of blanks that gives its last one back.
    Matches(Regex),
    Threes(Regex),
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
    pub(super) fn each_word(&self, text: &str, take: &mut dyn FnMut(&str)) {
        cut(&self.steps, text, take);
    }
}

fn cut(steps: &[Step], text: &str, take: &mut dyn FnMut(&str)) {
    match steps.split_first() {
        None => take(text),
        Some((step, rest)) => step.each_word(text, &mut |word| cut(rest, word, take)),
    }
}

// === impl Step ===

impl Step {
    fn new(expression: &str) -> Result<Self, CutterError> {
        let mut builder = Regex::builder();
        builder.configure(Regex::config().nfa_size_limit(Some(MAX_AUTOMATON_BYTES)));
        if expression == THREES {
            return Ok(Self::Threes(builder.build(r"\d+\b")?));
        }
        let plain = GIVING_NOTHING_BACK.iter().fold(expression.to_owned(), |all, (from, to)| all.replace(*from, to));
        if is_possessive(&plain) {
            return Err(CutterError::Possessive);
        }
        Ok(Self::Matches(match BLANKS.iter().find_map(|blanks| plain.strip_suffix(*blanks)) {
            Some(before) => builder.build_many(&[before, r"\s+"])?,
            None => builder.build(&plain)?,
        }))
    }

    fn each_word(&self, text: &str, take: &mut dyn FnMut(&str)) {
        let mut from = 0;
        match self {
            Self::Matches(regex) => {
                while let Some(found) = next(regex, text, from) {
                    let end = if found.pattern().as_usize() == 0 { found.end() } else { end_of_blanks(text, &found) };
                    word(&text[from..found.start()], take);
                    word(&text[found.start()..end], take);
                    from = end;
                }
            }
            Self::Threes(regex) => {
                while let Some(found) = next(regex, text, from) {
                    word(&text[from..found.start()], take);
                    each_three(&text[found.range()], take);
                    from = found.end();
                }
            }
        }
        word(&text[from..], take);
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
                // The braces of `\p{L}` count nothing.
                if matches!(rest.next(), Some('p' | 'P')) && rest.peek() == Some(&'{') {
                    rest.by_ref().find(|end| *end == '}');
                }
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

/// The next match that is not empty.
fn next(regex: &Regex, text: &str, mut from: usize) -> Option<Match> {
    loop {
        let found = regex.search(&Input::new(text).range(from..))?;
        if !found.is_empty() {
            return Some(found);
        }
        from = text.ceil_char_boundary(found.end() + 1);
        if found.end() >= text.len() {
            return None;
        }
    }
}

/// Where a run of blanks ends that leaves the last one to the word after it.
fn end_of_blanks(text: &str, blanks: &Match) -> usize {
    let last = text[blanks.range()].char_indices().next_back().map_or(0, |(at, _)| at);
    if blanks.end() < text.len() && last > 0 { blanks.start() + last } else { blanks.end() }
}

fn each_three(digits: &str, take: &mut dyn FnMut(&str)) {
    let starts: Vec<usize> = digits.char_indices().map(|(at, _)| at).collect();
    let mut from = 0;
    for (idx, &at) in starts.iter().enumerate().skip(1) {
        if (starts.len() - idx).is_multiple_of(3) {
            take(&digits[from..at]);
            from = at;
        }
    }
    take(&digits[from..]);
}

fn word(text: &str, take: &mut dyn FnMut(&str)) {
    if !text.is_empty() {
        take(text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(expressions: &[&str], text: &str) -> Vec<String> {
        let mut words = Vec::new();
        Cutter::new(expressions).unwrap().each_word(text, &mut |word| words.push(word.to_owned()));
        words
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
    }

    #[test]
    fn what_a_step_does_not_match_is_a_word_of_the_next_one() {
        assert_eq!(words(&["[0-9]", "b+|"], "abba12bb"), ["a", "bb", "a", "1", "2", "bb"]);
        assert_eq!(words(&[], "ab"), ["ab"]);
        assert_eq!(words(&["x*"], ""), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_matched_in_linear_time_is_refused() {
        for expression in [r"a(?=b)", r"(?<!a)b", r"(a)\1", "(", r"(\p{L}{1000}){1000}", "a?+b", "a*+", r"\pL{1,2}+", "(a+)++"] {
            assert!(Cutter::new(&[expression]).is_err(), "{expression}");
        }
        for expression in [r"\p{L}+", r"[?+]+", r"\++", "a+?|b", "(?:a)+"] {
            assert!(!is_possessive(expression), "{expression}");
        }
    }

    #[test]
    fn a_million_blanks_or_digits_are_one_pass() {
        let expressions = [THREES, r"\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+"];
        let text = "1".repeat(1 << 20) + "a" + &" ".repeat(1 << 20) + "b";
        assert_eq!(words(&expressions, &text).iter().map(String::len).sum::<usize>(), text.len());
    }
}
