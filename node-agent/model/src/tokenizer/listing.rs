//! Listing: texts with their tokens, as a person looks at them. Reads and prints nothing.

use serde::{Deserialize, Serialize};

use super::{Tokenizer, TokenizerError};

/// A text, its tokens, and what these stand for, all pieces joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tokenized {
    pub text: String,
    pub ids: Vec<u32>,
    pub decoded: String,
}

/// A line of JSON that has a text: a string, or an object with `text`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

/// Why a line has no text.
#[derive(Debug, thiserror::Error)]
#[error("{line:?} is no text in JSON: write \"a text\", or {{\"text\": \"a text\"}}, one a line")]
pub struct LineError {
    line: String,
}

// === impl Tokenized ===

impl Tokenized {
    /// With `is_special` names of control tokens in the text are those tokens; with `adds_special` what the model wants before and after a
    /// text stands there.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(
        tokenizer: &Tokenizer,
        text: String,
        is_special: bool,
        adds_special: bool,
    ) -> Result<Self, TokenizerError> {
        let ids = match adds_special {
            true => tokenizer.encode_prompt(&text, is_special)?,
            false => tokenizer.encode(&text, is_special)?,
        };
        let decoded = tokenizer.decode(&ids, false);
        Ok(Self { text, ids, decoded })
    }
}

/// The text of one line of JSON.
///
/// # Errors
/// [`LineError`] with the line.
pub fn text_of_line(line: &str) -> Result<String, LineError> {
    match serde_json::from_str(line) {
        Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
        Err(_) => Err(LineError { line: line.chars().take(80).collect() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_a_text_or_has_one() {
        assert_eq!(text_of_line(r#""a\n""#).unwrap(), "a\n");
        assert_eq!(text_of_line(r#"{"special": true, "text": "b"}"#).unwrap(), "b");
        for line in ["", "a", "3", "{}", r#"{"text": 3}"#, r#"["a"]"#] {
            assert!(text_of_line(line).unwrap_err().to_string().contains("one a line"), "{line}");
        }
    }
}
