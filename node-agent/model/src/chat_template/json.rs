//! `tojson` as `transformers` has it: Python's `json.dumps`, without escapes for other letters unless they are asked for. The engine's own
//! is for web pages.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::budget::{make, see_all};
use super::number::fraction;

/// How a value is set.
struct Layout {
    indent: Option<usize>,
    between_items: String,
    after_key: String,
    sorts_keys: bool,
    is_ascii: bool,
}

/// The widest indentation.
const MAX_INDENT: usize = 16;

/// The filter: `value | tojson(indent=2)`.
pub(super) fn filter(state: &mut State, value: Value, indent: Option<Value>, names: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => names.get::<Option<Value>>("indent")?,
    };
    let indent = indent.and_then(|indent| indent.as_usize()).map(|indent| indent.min(MAX_INDENT));
    let separators = names.get::<Option<Value>>("separators")?.filter(|separators| !separators.is_none());
    let flag = |name: &str| names.get::<Option<Value>>(name).map(|flag| flag.is_some_and(|flag| flag.is_true()));
    let (between_items, after_key) = match separators {
        Some(separators) => separators_of(&separators)?,
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let (sorts_keys, is_ascii) = (flag("sort_keys")?, flag("ensure_ascii")?);
    names.assert_all_used()?;
    // Depth is bounded with it, and so is the recursion.
    see_all(state, &value)?;
    let mut text = String::new();
    Layout { indent, between_items, after_key, sorts_keys, is_ascii }.put(state, &value, 0, &mut text)?;
    Ok(Value::from(text))
}

fn separators_of(separators: &Value) -> Result<(String, String), Error> {
    let text = |idx: usize| Some(separators.get_item_by_index(idx).ok()?.as_str()?.to_owned());
    text(0).zip(text(1)).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "separators of JSON are two texts"))
}

// === impl Layout ===

impl Layout {
    fn put(&self, state: &mut State, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => put(state, "null", text),
            ValueKind::Bool => put(state, if value.is_true() { "true" } else { "false" }, text),
            ValueKind::Number => put(state, &fraction(value).unwrap_or_else(|| value.to_string()), text),
            ValueKind::String => self.put_text(state, value.as_str().unwrap_or_default(), text),
            ValueKind::Map => {
                let mut keys = value.try_iter()?.checked().collect::<Result<Vec<Value>, _>>()?;
                make(state, (size_of::<Value>() * keys.len()) as u64)?;
                if self.sorts_keys {
                    keys.sort();
                }
                put(state, "{", text)?;
                for (idx, key) in keys.iter().enumerate() {
                    self.separate(state, idx == 0, depth + 1, text)?;
                    match key.as_str() {
                        Some(name) => self.put_text(state, name, text)?,
                        None => self.put_text(state, &key.to_string(), text)?,
                    }
                    put(state, &self.after_key, text)?;
                    self.put(state, &value.get_item(key)?, depth + 1, text)?;
                }
                self.close(state, keys.is_empty(), depth, "}", text)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                put(state, "[", text)?;
                let mut is_empty = true;
                for item in value.try_iter()?.checked() {
                    self.separate(state, is_empty, depth + 1, text)?;
                    is_empty = false;
                    self.put(state, &item?, depth + 1, text)?;
                }
                self.close(state, is_empty, depth, "]", text)
            }
            other => Err(Error::new(ErrorKind::InvalidOperation, format!("{other} is nothing that JSON has"))),
        }
    }

    fn separate(&self, state: &mut State, is_first: bool, depth: usize, text: &mut String) -> Result<(), Error> {
        if !is_first {
            put(state, &self.between_items, text)?;
        }
        self.break_line(state, depth, text)
    }

    fn close(
        &self,
        state: &mut State,
        is_empty: bool,
        depth: usize,
        end: &str,
        text: &mut String,
    ) -> Result<(), Error> {
        if !is_empty {
            self.break_line(state, depth, text)?;
        }
        put(state, end, text)
    }

    fn break_line(&self, state: &mut State, depth: usize, text: &mut String) -> Result<(), Error> {
        let Some(indent) = self.indent else { return Ok(()) };
        let n_spaces = depth * indent;
        make(state, 1 + n_spaces as u64)?;
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', n_spaces));
        Ok(())
    }

    fn put_text(&self, state: &mut State, piece: &str, text: &mut String) -> Result<(), Error> {
        let quoted = serde_json::to_string(piece).map_err(|_| Error::from(ErrorKind::BadSerialization))?;
        if !self.is_ascii || quoted.is_ascii() {
            return put(state, &quoted, text);
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                put(state, character.encode_utf8(&mut [0; 4]), text)?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    put(state, &format!("\\u{unit:04x}"), text)?;
                }
            }
        }
        Ok(())
    }
}

fn put(state: &mut State, piece: &str, text: &mut String) -> Result<(), Error> {
    make(state, piece.len() as u64)?;
    text.push_str(piece);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ChatTemplate;
    use crate::chat::Chat;

    fn render(source: &str) -> String {
        let template = ChatTemplate::new(source, String::new(), String::new(), &[]).unwrap();
        template.render(&Chat::default()).unwrap().text()
    }

    #[test]
    fn values_are_set_as_they_are_asked_for() {
        let value = "{'b': [1, 1e16, true], 'a': 'é😀<', 'e': {}}";
        for (arguments, expected) in [
            ("", r#"{"b": [1, 1e+16, true], "a": "é😀<", "e": {}}"#),
            ("separators=(',', ':')", r#"{"b":[1,1e+16,true],"a":"é😀<","e":{}}"#),
            ("sort_keys=true, ensure_ascii=true", r#"{"a": "\u00e9\ud83d\ude00<", "b": [1, 1e+16, true], "e": {}}"#),
            ("indent=1", "{\n \"b\": [\n  1,\n  1e+16,\n  true\n ],\n \"a\": \"é😀<\",\n \"e\": {}\n}"),
            ("separators=none, ensure_ascii=false", r#"{"b": [1, 1e+16, true], "a": "é😀<", "e": {}}"#),
        ] {
            assert_eq!(render(&format!("{{{{ {value} | tojson({arguments}) }}}}")), expected, "{arguments}");
        }
        assert_eq!(render("{{ 1e16 }} {{ 0.00001 ~ '' }} {{ 2.0 }}"), "1e+16 1e-05 2.0");
    }
}
