//! Special tokens: finding them by name in text, before the rest is cut and merged.

/// The tokens that stand outside of the merges, by name.
pub(super) struct Specials {
    /// By the first byte of the name; within it the longest name first.
    by_first_byte: Vec<Vec<Special>>,
}

struct Special {
    name: Box<str>,
    token: u32,
    /// Found only where control tokens are looked for; the others always.
    is_control: bool,
}

/// A stretch of text, or one special token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    Text(&'t str),
    Token(u32),
}

// === impl Specials ===

impl Specials {
    /// From (name, token, is a control token); empty names are passed over.
    pub(super) fn new<'n>(specials: impl Iterator<Item = (&'n str, u32, bool)>) -> Self {
        let mut by_first_byte: Vec<Vec<Special>> = (0..256).map(|_| Vec::new()).collect();
        for (name, token, is_control) in specials {
            if let Some(&first) = name.as_bytes().first() {
                by_first_byte[usize::from(first)].push(Special { name: name.into(), token, is_control });
            }
        }
        for names in &mut by_first_byte {
            names.sort_by_key(|special| (std::cmp::Reverse(special.name.len()), special.token));
        }
        Self { by_first_byte }
    }

    /// Cuts `text` at special tokens: the leftmost first, of those the longest. No part is empty.
    pub(super) fn split<'t>(&self, text: &'t str, with_control: bool) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut text_from = 0;
        let mut at = 0;
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let names = &self.by_first_byte[usize::from(rest[0])];
            let found = names
                .iter()
                .find(|special| (with_control || !special.is_control) && rest.starts_with(special.name.as_bytes()));
            match found {
                // A name is whole characters and matched byte for byte, so both its ends are character bounds.
                Some(special) => {
                    if text_from < at {
                        parts.push(Part::Text(&text[text_from..at]));
                    }
                    parts.push(Part::Token(special.token));
                    at += special.name.len();
                    text_from = at;
                }
                None => at += 1,
            }
        }
        if text_from < text.len() {
            parts.push(Part::Text(&text[text_from..]));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specials() -> Specials {
        Specials::new([("<a>", 1, true), ("<a>>", 2, true), ("  ", 3, false), ("", 4, true)].into_iter())
    }

    #[test]
    fn the_leftmost_and_then_the_longest_name_wins() {
        let expected =
            [Part::Text("é"), Part::Token(2), Part::Token(1), Part::Text("<a"), Part::Token(3), Part::Text(" x")];
        assert_eq!(specials().split("é<a>><a><a   x", true), expected);
    }

    #[test]
    fn control_tokens_are_text_where_they_are_not_looked_for() {
        assert_eq!(specials().split("<a>  b", false), [Part::Text("<a>"), Part::Token(3), Part::Text("b")]);
        assert_eq!(specials().split("", true), []);
    }
}
