//! Explanations: a kind's fields as its schema describes them, in the layout of `kubectl explain`. Pure.

use serde_json::Value;

use crate::discovery::Resource;
use crate::schema::{of_kind, resolve};

/// Descriptions are wrapped to this, and then indented by [`INDENT`].
const WIDTH: usize = 76;
const INDENT: &str = "    ";
/// A schema that refers in circles is followed this far.
const MAX_DEPTH: usize = 16;

/// Values of an enum that a list of fields shows, as kubectl's does.
const MAX_LISTED_VALUES: usize = 4;

/// Why a field cannot be explained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("the server publishes no schema of {kind} in {api_version}")]
    NoSchema { kind: String, api_version: String },
    /// Carries the header, which is printed all the same.
    #[error("field {field:?} does not exist{}", suggestion(.nearest))]
    NoField { header: String, field: String, nearest: Option<String> },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("\nDid you mean {name:?}?"))
}

/// What the schema of `resource` says of the field at `path`, or of the kind itself.
///
/// # Errors
/// [`ExplainError`] when there is no such schema or field.
pub fn explain(document: &Value, resource: &Resource, path: &[&str], recursive: bool) -> Result<String, ExplainError> {
    let mut schema = of_kind(document, resource)
        .ok_or_else(|| ExplainError::NoSchema { kind: resource.kind.clone(), api_version: resource.api_version() })?;
    let group = if resource.group.is_empty() { String::new() } else { format!("GROUP:      {}\n", resource.group) };
    let mut text = format!("{group}KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version);
    for field in path {
        let fields = fields_of(document, schema);
        schema = fields.iter().find(|(name, _)| name == field).map(|(_, schema)| *schema).ok_or_else(|| {
            ExplainError::NoField {
                header: text.clone(),
                field: path.last().copied().unwrap_or_default().to_owned(),
                nearest: crate::discovery::nearest(field, fields.iter().map(|(name, _)| *name)),
            }
        })?;
    }
    if let Some(field) = path.last() {
        text.push_str(&format!("FIELD: {field} <{}>\n", type_of(document, schema)));
        if let Some(values) = enum_of(schema) {
            text.push_str("ENUM:\n");
            values.iter().for_each(|value| text.push_str(&format!("{INDENT}{value}\n")));
            text.push('\n');
        } else {
            text.push_str("\n\n");
        }
    }
    let described = description_of(document, schema);
    text.push_str("DESCRIPTION:\n");
    if described.is_empty() {
        text.push_str(&format!("{INDENT}<empty>\n"));
    } else {
        text.push_str(&indented(&format!("{described}\n")));
        text.push('\n');
    }
    let fields = fields_of(document, schema);
    if !fields.is_empty() {
        text.push_str("FIELDS:\n");
        write_fields(&mut text, document, schema, 1, recursive);
    }
    text.push('\n');
    Ok(text)
}

fn write_fields(text: &mut String, document: &Value, schema: &Value, level: usize, recursive: bool) {
    let required = required_of(document, schema);
    for (name, schema) in fields_of(document, schema) {
        let indent = "  ".repeat(level);
        let mark = if required.contains(&name) { " -required-" } else { "" };
        text.push_str(&format!("{indent}{name}\t<{}>{mark}\n", type_of(document, schema)));
        if let Some(values) = enum_of(schema) {
            let rest = if values.len() > MAX_LISTED_VALUES { ", ...." } else { "" };
            let first = &values[..values.len().min(MAX_LISTED_VALUES)];
            text.push_str(&format!("{indent}enum: {}{rest}\n", first.join(", ")));
        }
        if recursive && level < MAX_DEPTH {
            write_fields(text, document, schema, level + 1, recursive);
        } else if !recursive {
            // In a list a field's own words are enough.
            let own = schema["description"].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            let described = own.unwrap_or_else(|| description_of(document, schema));
            let described = if described.is_empty() { "<no description>".to_owned() } else { described };
            text.push_str(&format!("{}\n\n", indented(&described)));
        }
    }
}

/// The fields of an object, of the elements of a list, or of the values of a map, by name.
fn fields_of<'a>(document: &'a Value, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
    let schema = element_of(document, schema);
    schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect()
}

fn required_of<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a str> {
    let schema = element_of(document, schema);
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn element_of<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = resolve(document, schema);
    for _ in 0..MAX_DEPTH {
        let inner = if schema["items"].is_object() { &schema["items"] } else { &schema["additionalProperties"] };
        if !inner.is_object() {
            break;
        }
        schema = resolve(document, inner);
    }
    schema
}

/// `string`, `[]string`, `map[string]string`, `Object`, or the name of a shared schema.
fn type_of(document: &Value, schema: &Value) -> String {
    if schema["items"].is_object() {
        return format!("[]{}", type_of(document, &schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        return format!("map[string]{}", type_of(document, &schema["additionalProperties"]));
    }
    let reference = match schema["allOf"].as_array().map_or(&[][..], Vec::as_slice) {
        [one] => one["$ref"].as_str(),
        _ => schema["$ref"].as_str(),
    };
    if let Some(reference) = reference {
        let target = resolve(document, schema);
        return match target["type"].as_str() {
            Some(plain) if plain != "object" => plain.to_owned(),
            _ => reference.rsplit(['.', '/']).next().unwrap_or("Object").to_owned(),
        };
    }
    match schema["type"].as_str() {
        None | Some("object") => "Object".to_owned(),
        Some(plain) => plain.to_owned(),
    }
}

fn enum_of(schema: &Value) -> Option<Vec<String>> {
    let values = schema["enum"].as_array()?;
    Some(values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect())
}

/// A schema's own words, then those of what it is made of.
fn description_of(document: &Value, schema: &Value) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut next = Some(schema);
    for _ in 0..MAX_DEPTH {
        let Some(schema) = next else { break };
        parts.extend(schema["description"].as_str().filter(|text| !text.is_empty()));
        let resolved = resolve(document, schema);
        if !std::ptr::eq(resolved, schema) {
            next = Some(resolved);
        } else {
            next = [&schema["items"], &schema["additionalProperties"]].into_iter().find(|inner| inner.is_object());
        }
    }
    parts.join("\n")
}

fn indented(text: &str) -> String {
    wrap(text, WIDTH).split('\n').map(|line| format!("{INDENT}{line}")).collect::<Vec<_>>().join("\n")
}

/// Breaks lines between words, as Go's `wordwrap` that kubectl uses: line breaks and double spaces are kept.
fn wrap(text: &str, limit: usize) -> String {
    let (mut out, mut word, mut space) = (String::new(), String::new(), String::new());
    let (mut column, mut word_length) = (0, 0);
    for character in text.chars() {
        if character == '\n' {
            if !word.is_empty() || column + space.len() <= limit {
                out.push_str(&space);
            }
            out.push_str(&word);
            out.push('\n');
            (column, word_length) = (0, 0);
            space.clear();
            word.clear();
        } else if character.is_whitespace() {
            if space.is_empty() || !word.is_empty() {
                column += space.len() + word_length;
                out.push_str(&space);
                out.push_str(&word);
                space.clear();
                word.clear();
                word_length = 0;
            }
            space.push(character);
        } else {
            word.push(character);
            word_length += 1;
            if column + space.len() + word_length > limit && word_length < limit {
                out.push('\n');
                column = 0;
                space.clear();
            }
        }
    }
    if !word.is_empty() || column + space.len() <= limit {
        out.push_str(&space);
    }
    out.push_str(&word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_keep_their_spaces() {
        assert_eq!(wrap("one two three", 7), "one two\nthree");
        assert_eq!(wrap("a.  b", 20), "a.  b");
        assert_eq!(wrap("one\ntwo", 5), "one\ntwo");
        assert_eq!(wrap("overlongword x", 5), "overlongword\nx");
    }
}
