//! What others wrote, such as a model's file or a person with rights on an object, as a terminal may show it: control characters would
//! move its cursor, rename its window or worse.

use std::borrow::Cow;

/// Text of one line: each control character in caret notation, as kubectl and `cat -v` write it.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, char::is_control)
}

/// Text of several lines: line breaks and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

fn escaped(text: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !is_unfit(c) => escaped.push(c),
            // Of ASCII, the letter that makes it with Ctrl.
            '\0'..='\x1f' | '\x7f' => escaped.extend(['^', char::from(c as u8 ^ 0x40)]),
            c => escaped.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_all_else_is_as_it_was() {
        assert_eq!(line("a\x1b[31mb\r\nc\td\x7f\u{9b}e"), "a^[[31mb^M^Jc^Id^?\\u{9b}e");
        assert_eq!(lines("a\x1b]0;x\x07\r\n\tb"), "a^[]0;x^G^M\n\tb");
        assert!(matches!(line("größer – 🦀"), Cow::Borrowed(_)));
    }
}
