//! Objects as text: YAML, JSON and names, in kubectl's layout.

use std::io::{self, Write};

use polyphony_jsonpath::{JsonPathError, Template};
use serde::Serialize;
use serde_json::{Value, json};

use crate::discovery::Resource;
use crate::yaml;

/// The forms of `-o`.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(Template),
}

/// Reads the value of `-o`.
///
/// # Errors
/// A text that names the forms.
pub fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "wide" => Ok(Format::Table { wide: true }),
        "json" => Ok(Format::Json),
        "yaml" => Ok(Format::Yaml),
        "name" => Ok(Format::Name),
        _ => match text.strip_prefix("jsonpath=") {
            Some(template) => Ok(Format::JsonPath(template.parse().map_err(|error: JsonPathError| error.to_string())?)),
            None => Err("allowed formats are: wide, json, yaml, name, jsonpath=TEMPLATE".to_owned()),
        },
    }
}

/// Writes one object in a form that is not a table; `resource` names it.
///
/// # Errors
/// When the output cannot be written.
pub fn write_object(out: &mut dyn Write, format: &Format, resource: &Resource, object: &Value) -> io::Result<()> {
    match format {
        Format::Name => {
            writeln!(out, "{}/{}", resource.singular_name(), object["metadata"]["name"].as_str().unwrap_or_default())
        }
        _ => write_value(out, format, object),
    }
}

/// Writes a value that needs no name: YAML, a path's values, else JSON.
///
/// # Errors
/// When the output cannot be written.
pub fn write_value(out: &mut dyn Write, format: &Format, value: &Value) -> io::Result<()> {
    match format {
        Format::Yaml => write!(out, "{}", yaml::to_string(value).map_err(io::Error::other)?),
        Format::JsonPath(template) => write!(out, "{}", template.render(value)),
        Format::Json | Format::Name | Format::Table { .. } => writeln!(out, "{}", json_text(value)?),
    }
}

/// Several objects as kubectl wraps them.
pub fn list_of(objects: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// `object` with its kind, which lists leave out, and without what only machines read.
pub fn for_people(mut object: Value, resource: &Resource, keep_managed_fields: bool) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| json!(resource.api_version()));
        fields.entry("kind").or_insert_with(|| json!(resource.kind));
    }
    shorten_numbers(&mut object);
    if !keep_managed_fields && let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

/// Whole numbers without a fraction, as kubectl prints them: `19`, not `19.0`.
fn shorten_numbers(value: &mut Value) {
    /// Beyond it a double no longer holds every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Object(fields) => fields.values_mut().for_each(shorten_numbers),
        Value::Array(elements) => elements.iter_mut().for_each(shorten_numbers),
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < EXACT) {
                *value = json!(whole as i64);
            }
        }
        _ => {}
    }
}

fn json_text(value: &Value) -> io::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(io::Error::other)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn printed(format: &str) -> String {
        let resource = crate::discovery::tests::catalogue().find("phone").unwrap().clone();
        let object = json!({"metadata": {"name": "p", "managedFields": [1]}, "spec": {"list": ["a", 19.0, 0.5]}});
        let object = for_people(object, &resource, false);
        let mut out = Vec::new();
        write_object(&mut out, &parse_format(format).unwrap(), &resource, &object).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn objects_are_printed_in_every_form() {
        assert_eq!(printed("name"), "phone.polyphony.dev/p\n");
        assert_eq!(
            printed("yaml"),
            "apiVersion: polyphony.dev/v1alpha1\nkind: Phone\nmetadata:\n  name: p\nspec:\n  list:\n  - a\n  - 19\n  - 0.5\n"
        );
        assert_eq!(
            printed("json"),
            "{\n    \"apiVersion\": \"polyphony.dev/v1alpha1\",\n    \"kind\": \"Phone\",\n    \"metadata\": {\n        \"name\": \"p\"\n    },\n    \"spec\": {\n        \"list\": [\n            \"a\",\n            19,\n            0.5\n        ]\n    }\n}\n"
        );
        assert_eq!(printed("jsonpath={.metadata.name}!"), "p!");
    }
}
