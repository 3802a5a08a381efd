//! Special tokens: finding them by name in text, before the rest is cut and merged. One pass, however many names there are.

use std::collections::HashMap;

use super::flaw::Flaw;
use crate::names::{Among, MAX_NAME_BYTES, Names, NamesError};

/// The tokens that stand outside of the merges, by name.
pub(super) struct Specials {
    /// Those that are no control tokens are plain: found wherever they stand.
    names: Names,
    /// The token of each name.
    tokens: Vec<u32>,
    control: HashMap<Box<str>, u32>,
    /// Tokens that take blanks beside them away.
    trims: HashMap<u32, Trim>,
}

/// Which blanks beside a special token count as its own, and are no text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trim {
    pub(super) before: bool,
    pub(super) after: bool,
}

/// A stretch of text, or one special token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

// === impl Specials ===

impl Specials {
    /// From (name, token, is a control token); empty names are passed over, and of equal ones the first token counts.
    ///
    /// # Errors
    /// [`Flaw::LongWord`], and [`Flaw::Names`] when the names are more than can be looked for at once.
    pub(super) fn new<'n>(specials: impl Iterator<Item = (&'n str, u32, bool)>) -> Result<Self, Flaw> {
        let named: Vec<_> = specials.filter(|special| !special.0.is_empty()).collect();
        let mut control = HashMap::new();
        for &(name, token, is_control) in &named {
            if is_control {
                control.entry(Box::from(name)).or_insert(token);
            }
        }
        let names = Names::new(named.iter().map(|special| (special.0, !special.2))).map_err(|error| match error {
            NamesError::Long { idx, found } => Flaw::LongWord { id: named[idx].1, found, limit: MAX_NAME_BYTES },
            NamesError::TooMany { .. } => Flaw::Names(error.to_string()),
        })?;
        Ok(Self { names, tokens: named.iter().map(|special| special.1).collect(), control, trims: HashMap::new() })
    }

    /// These tokens take blanks beside them away.
    pub(super) fn trim(&mut self, trims: impl Iterator<Item = (u32, Trim)>) {
        self.trims.extend(trims.filter(|(_, trim)| trim.before || trim.after));
    }

    /// Whether blanks may be no text.
    pub(super) fn trims_any(&self) -> bool {
        !self.trims.is_empty()
    }

    /// What is left of a text between two special tokens.
    pub(super) fn trimmed<'t>(&self, before: Option<u32>, text: &'t str, after: Option<u32>) -> &'t str {
        let trim = |token: Option<u32>| token.and_then(|token| self.trims.get(&token)).copied().unwrap_or_default();
        let text = if trim(before).after { text.trim_start() } else { text };
        if trim(after).before { text.trim_end() } else { text }
    }

    /// The control token of this name.
    pub(super) fn control(&self, name: &str) -> Option<u32> {
        self.control.get(name).copied()
    }

    pub(super) fn control_names(&self) -> impl Iterator<Item = &str> {
        self.control.keys().map(|name| &**name)
    }

    /// Cuts `text` at special tokens: the leftmost first, of those the longest. No part is empty.
    pub(super) fn split<'t>(&self, text: &'t str, with_control: bool) -> Vec<Part<'t>> {
        let among = if with_control { Among::All } else { Among::Plain };
        let mut parts = Vec::new();
        let (mut from, mut before) = (0, None);
        let put = |parts: &mut Vec<_>, before, text, after| {
            let text = self.trimmed(before, text, after);
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
        };
        // A name is whole characters and matched byte for byte, so both its ends are character bounds.
        for found in self.names.find(text, among) {
            let token = self.tokens[found.idx];
            put(&mut parts, before, &text[from..found.from], Some(token));
            parts.push(Part::Token(token));
            (from, before) = (found.to, Some(token));
        }
        put(&mut parts, before, &text[from..], None);
        parts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn specials() -> Specials {
        let named = [("<a>", 1, true), ("<a>>", 2, true), ("  ", 3, false), ("", 4, true), ("<a>", 5, true)];
        Specials::new(named.into_iter()).unwrap()
    }

    #[test]
    fn the_leftmost_and_then_the_longest_name_wins() {
        let expected =
            [Part::Text("é"), Part::Token(2), Part::Token(1), Part::Text("<a"), Part::Token(3), Part::Text(" x")];
        assert_eq!(specials().split("é<a>><a><a   x", true), expected);
        assert_eq!(specials().control("<a>"), Some(1));
    }

    #[test]
    fn blanks_beside_a_token_are_taken_away_where_it_says_so() {
        let named = [("<u>", 1, true), ("<e>", 2, true), ("<m>", 3, true), ("  ", 4, false)];
        let mut specials = Specials::new(named.into_iter()).unwrap();
        let after = Trim { after: true, ..Trim::default() };
        specials.trim([(1, after), (3, Trim { before: true, after: false })].into_iter());
        let expected = [
            Part::Token(1),
            Part::Text("hi \n"),
            Part::Token(2),
            Part::Text("\nto"),
            Part::Token(3),
            Part::Text(" x"),
            Part::Token(1),
        ];
        assert_eq!(specials.split("<u> \n hi \n<e>\nto\n<m> x<u>\n", true), expected);
        assert_eq!(specials.trimmed(Some(1), " a ", Some(3)), "a");
        assert_eq!(specials.trimmed(None, " a ", Some(2)), " a ");
    }

    #[test]
    fn control_tokens_are_text_where_they_are_not_looked_for() {
        assert_eq!(specials().split("<a>  b", false), [Part::Text("<a>"), Part::Token(3), Part::Text("b")]);
        assert_eq!(specials().split("", true), []);
    }

    #[test]
    fn ten_thousand_names_in_a_megabyte_are_found_in_one_pass() {
        let names: Vec<String> = (0..10_000).map(|idx| format!("{}|{idx}>", "<".repeat(50))).collect();
        let specials = Specials::new(names.iter().zip(0..).map(|(name, token)| (name.as_str(), token, true))).unwrap();
        let text = "<".repeat(1 << 20);
        assert_eq!(specials.split(&text, true), [Part::Text(&text)]);
    }
}
