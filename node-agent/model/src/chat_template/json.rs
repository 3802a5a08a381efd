//! `tojson` as `transformers` has it: Python's `json.dumps` without escapes for other letters. The engine's own is for web pages.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::budget::{make, see_all};

/// How lines are set.
#[derive(Clone, Copy)]
struct Layout {
    indent: Option<usize>,
}

/// The widest indentation.
const MAX_INDENT: usize = 16;

/// The filter: `value | tojson(indent=2)`.
pub(super) fn filter(state: &mut State, value: Value, indent: Option<Value>, names: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => names.get::<Option<Value>>("indent")?,
    };
    for passed_over in ["ensure_ascii", "separators", "sort_keys"] {
        let _ = names.get::<Option<Value>>(passed_over)?;
    }
    names.assert_all_used()?;
    let indent = indent.and_then(|indent| indent.as_usize()).map(|indent| indent.min(MAX_INDENT));
    // Depth is bounded with it, and so is the recursion.
    see_all(state, &value)?;
    let mut text = String::new();
    Layout { indent }.put(state, &value, 0, &mut text)?;
    Ok(Value::from(text))
}

// === impl Layout ===

impl Layout {
    fn put(self, state: &mut State, value: &Value, depth: usize, text: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => put(state, "null", text),
            ValueKind::Bool | ValueKind::Number => put(state, &value.to_string(), text),
            ValueKind::String => put_text(state, value.as_str().unwrap_or_default(), text),
            ValueKind::Map => {
                put(state, "{", text)?;
                let mut is_empty = true;
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    self.separate(state, is_empty, depth + 1, text)?;
                    is_empty = false;
                    match key.as_str() {
                        Some(name) => put_text(state, name, text)?,
                        None => put_text(state, &key.to_string(), text)?,
                    }
                    put(state, ": ", text)?;
                    self.put(state, &value.get_item(&key)?, depth + 1, text)?;
                }
                self.close(state, is_empty, depth, "}", text)
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

    fn separate(self, state: &mut State, is_first: bool, depth: usize, text: &mut String) -> Result<(), Error> {
        match (self.indent, is_first) {
            (None, true) => Ok(()),
            (None, false) => put(state, ", ", text),
            (Some(_), true) => self.break_line(state, depth, text),
            (Some(_), false) => put(state, ",", text).and_then(|()| self.break_line(state, depth, text)),
        }
    }

    fn close(self, state: &mut State, is_empty: bool, depth: usize, end: &str, text: &mut String) -> Result<(), Error> {
        if self.indent.is_some() && !is_empty {
            self.break_line(state, depth, text)?;
        }
        put(state, end, text)
    }

    fn break_line(self, state: &mut State, depth: usize, text: &mut String) -> Result<(), Error> {
        let n_spaces = depth * self.indent.unwrap_or(0);
        make(state, 1 + n_spaces as u64)?;
        text.push('\n');
        text.extend(std::iter::repeat_n(' ', n_spaces));
        Ok(())
    }
}

fn put(state: &mut State, piece: &str, text: &mut String) -> Result<(), Error> {
    make(state, piece.len() as u64)?;
    text.push_str(piece);
    Ok(())
}

fn put_text(state: &mut State, piece: &str, text: &mut String) -> Result<(), Error> {
    let quoted = serde_json::to_string(piece).map_err(|_| Error::from(ErrorKind::BadSerialization))?;
    put(state, &quoted, text)
}
