//! Templates: text with paths in braces, as `-o jsonpath=` takes it.

use std::str::FromStr;

use serde_json::Value;

use crate::fault::{Fault, JsonPathError};
use crate::path::Path;
use crate::reader::Reader;

/// Text with paths in braces, loops (`{range .items[*]}…{end}`) and quoted text (`{"\n"}`).
///
/// Without any brace it is one path.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Part>),
}

/// A value as text: strings bare, nothing for null, everything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

// === impl Template ===

impl Template {
    /// The template's text for `root`; several values of one path are separated by spaces.
    pub fn render(&self, root: &Value) -> String {
        let mut text = String::new();
        write(&self.parts, root, &mut text);
        text
    }
}

fn write(parts: &[Part], at: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => text.push_str(&path.find(at).into_iter().map(text_of).collect::<Vec<_>>().join(" ")),
            Part::Range(path, parts) => path.find(at).into_iter().for_each(|value| write(parts, value, text)),
        }
    }
}

impl FromStr for Template {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        if !text.contains('{') {
            return Ok(Self { parts: vec![Part::Path(text.parse()?)] });
        }
        let mut reader = Reader::new(text);
        let (parts, ended) = parts(&mut reader)?;
        if ended { Err(reader.error(Fault::NothingToEnd)) } else { Ok(Self { parts }) }
    }
}

/// The parts up to `{end}` or the end of the text, and which of the two it was.
fn parts(reader: &mut Reader) -> Result<(Vec<Part>, bool), JsonPathError> {
    let mut parts = Vec::new();
    loop {
        let length = reader.rest().find('{').unwrap_or(reader.rest().len());
        if length > 0 {
            parts.push(Part::Text(reader.advance(length).to_owned()));
        }
        if !reader.take("{") {
            return Ok((parts, false));
        }
        reader.skip_spaces();
        if is_word(reader.rest(), "end") {
            reader.take("end");
            close(reader)?;
            return Ok((parts, true));
        }
        if is_word(reader.rest(), "range") {
            reader.take("range");
            let path = reader.path()?;
            close(reader)?;
            // One that is not ended goes to the end, as kubectl's does.
            let (inner, _) = reader.deeper(self::parts)?;
            parts.push(Part::Range(path, inner));
            continue;
        }
        if reader.rest().starts_with(['\'', '"']) {
            parts.push(Part::Text(reader.quoted()?));
        } else {
            parts.push(Part::Path(reader.path()?));
        }
        close(reader)?;
    }
}

fn is_word(text: &str, word: &str) -> bool {
    let rest = text.strip_prefix(word);
    rest.is_some_and(|rest| rest.starts_with([' ', '\t', '}', '.', '[', '$', '@']))
}

fn close(reader: &mut Reader) -> Result<(), JsonPathError> {
    reader.skip_spaces();
    if reader.take("}") {
        Ok(())
    } else {
        Err(reader.error(if reader.is_at_end() { Fault::OpenBrace } else { Fault::NoStep }))
    }
}
