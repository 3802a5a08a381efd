//! Structure: types, bounds, enums, patterns, formats, lists and junctors of an OpenAPI v3 schema.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::{FieldError, FieldErrorKind, correlate, flag, format, is_integer, join, junctors};

/// Checks a whole object; parts equal to `old` are not looked at.
pub(super) fn validate(schema: &Value, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    node(schema, object, old, "", errors);
}

pub(super) fn node(schema: &Value, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if old == Some(value) {
        return;
    }
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    if !has_type(schema, value) {
        let expected = schema.get("type").and_then(Value::as_str).unwrap_or("integer,string");
        errors.push(FieldError::type_invalid(path, value, expected));
        return;
    }
    allowed(schema, value, path, errors);
    match value {
        Value::Number(_) => number(schema, value, path, errors),
        Value::String(text) => string(schema, value, text, path, errors),
        Value::Array(items) => list(schema, items, old, path, errors),
        Value::Object(fields) => object(schema, fields, old, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    let judge = |branch: &Value| {
        let mut errors = Vec::new();
        node(branch, value, None, path, &mut errors);
        errors
    };
    junctors::check(schema, path, &judge, errors);
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if flag(schema, "x-kubernetes-int-or-string") {
        return value.is_string() || (value.is_number() && is_integer(value));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_number() && is_integer(value),
        _ => true,
    }
}

fn allowed(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(values) = schema.get("enum").and_then(Value::as_array) else {
        return;
    };
    if values.contains(value) {
        return;
    }
    let texts: Vec<String> = values
        .iter()
        .map(|value| match value {
            Value::String(text) => format!("{text:?}"),
            other => format!("{:?}", other.to_string()),
        })
        .collect();
    let detail = format!("supported values: {}", texts.join(", "));
    errors.push(FieldError::with_value(FieldErrorKind::NotSupported, path, value, &detail));
}

fn number(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(actual) = value.as_f64() else { return };
    if let Some(name) = schema.get("format").and_then(Value::as_str)
        && !format::fits_number(name, actual)
    {
        let detail = format!("{path} in body must be of type {name}: {value}");
        errors.push(FieldError::with_value(FieldErrorKind::TypeInvalid, path, value, &detail));
    }
    let mut wrong = |words: &str, bound: &Value| {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body should be {words} {bound}")));
    };
    // OpenAPI 3.0 says `exclusiveMinimum: true` beside `minimum`; JSON Schema's later form is the bound itself.
    let bound = |name: &str| schema.get(name).filter(|bound| bound.is_number());
    if let Some((minimum, bound)) = bound("minimum").and_then(|bound| Some((bound.as_f64()?, bound))) {
        if flag(schema, "exclusiveMinimum") {
            if actual <= minimum {
                wrong("greater than", bound);
            }
        } else if actual < minimum {
            wrong("greater than or equal to", bound);
        }
    }
    if let Some((maximum, bound)) = bound("maximum").and_then(|bound| Some((bound.as_f64()?, bound))) {
        if flag(schema, "exclusiveMaximum") {
            if actual >= maximum {
                wrong("less than", bound);
            }
        } else if actual > maximum {
            wrong("less than or equal to", bound);
        }
    }
    if let Some(bound) = bound("exclusiveMinimum").filter(|bound| bound.as_f64().is_some_and(|b| actual <= b)) {
        wrong("greater than", bound);
    }
    if let Some(bound) = bound("exclusiveMaximum").filter(|bound| bound.as_f64().is_some_and(|b| actual >= b)) {
        wrong("less than", bound);
    }
    if let Some(bound) = bound("multipleOf")
        && let Some(factor) = bound.as_f64().filter(|factor| *factor > 0.0)
    {
        let quotient = actual / factor;
        if (quotient - quotient.round()).abs() > 1e-9 * quotient.abs().max(1.0) {
            wrong("a multiple of", bound);
        }
    }
}

fn string(schema: &Value, value: &Value, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let length = text.chars().count() as u64;
    if let Some(max) = limit(schema, "maxLength").filter(|max| length > *max) {
        let detail = format!("may not be more than {max} bytes");
        errors.push(FieldError::without_value(FieldErrorKind::TooLong, path, &detail));
    }
    if let Some(min) = limit(schema, "minLength").filter(|min| length < *min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        errors.push(FieldError::invalid(path, value, &detail));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        match matches(pattern, text) {
            Some(true) => {}
            Some(false) => {
                let detail = format!("{path} in body should match '{pattern}'");
                errors.push(FieldError::invalid(path, value, &detail));
            }
            None => {
                let detail =
                    format!("{path} in body cannot be checked: pattern '{pattern}' is not a regular expression");
                errors.push(FieldError::invalid(path, value, &detail));
            }
        }
    }
    if let Some(name) = schema.get("format").and_then(Value::as_str)
        && !flag(schema, "x-kubernetes-int-or-string")
        && !format::fits(name, text)
    {
        let detail = format!("{path} in body must be of type {name}: {text:?}");
        errors.push(FieldError::with_value(FieldErrorKind::TypeInvalid, path, value, &detail));
    }
}

fn list(schema: &Value, items: &[Value], old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    bounds(schema, "Items", items.len() as u64, path, errors);
    if flag(schema, "uniqueItems") && !duplicates(items.iter()).is_empty() {
        let detail = format!("{path} in body shouldn't contain duplicates");
        errors.push(FieldError::invalid(path, &Value::from(items), &detail));
    }
    if let Some(item_schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            let old_item = correlate::item(schema, old, item);
            node(item_schema, item, old_item, &format!("{path}[{index}]"), errors);
        }
    }
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    if list_type == Some("set") {
        for index in duplicates(items.iter()) {
            errors.push(FieldError::duplicate(&format!("{path}[{index}]"), &items[index]));
        }
    }
    if let Some(keys) = correlate::map_keys(schema) {
        let item_schema = schema.get("items").unwrap_or(&Value::Null);
        let identities: Vec<Value> = items
            .iter()
            .map(|item| {
                let values = correlate::key_values(&keys, item_schema, item);
                keys.iter()
                    .zip(values)
                    .filter_map(|(key, value)| Some(((*key).to_owned(), value?.clone())))
                    .collect::<Map<String, Value>>()
                    .into()
            })
            .collect();
        for index in duplicates(identities.iter()) {
            errors.push(FieldError::duplicate(&format!("{path}[{index}]"), &identities[index]));
        }
    }
}

/// Positions whose value was seen before.
fn duplicates<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    values.enumerate().filter(|(_, value)| !seen.insert(value.to_string())).map(|(index, _)| index).collect()
}

fn object(schema: &Value, fields: &Map<String, Value>, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    bounds(schema, "Properties", fields.len() as u64, path, errors);
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            errors.push(FieldError::required(&join(path, name)));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|additional| additional.is_object());
    for (name, value) in fields {
        let Some(child) = properties.and_then(|properties| properties.get(name)).or(additional) else {
            continue;
        };
        node(child, value, correlate::property(old, name), &join(path, name), errors);
    }
}

/// `minItems` and `maxItems`, or the same of `Properties`.
fn bounds(schema: &Value, of: &str, actual: u64, path: &str, errors: &mut Vec<FieldError>) {
    let noun = of.to_lowercase();
    if let Some(max) = limit(schema, &format!("max{of}")).filter(|max| actual > *max) {
        let detail = format!("must have at most {max} items");
        errors.push(FieldError::with_value(FieldErrorKind::TooMany, path, &actual.into(), &detail));
    }
    if let Some(min) = limit(schema, &format!("min{of}")).filter(|min| actual < *min) {
        let detail = format!("{path} in body should have at least {min} {noun}");
        errors.push(FieldError::invalid(path, &actual.into(), &detail));
    }
}

fn limit(schema: &Value, name: &str) -> Option<u64> {
    schema.get(name)?.as_u64()
}

/// How many compiled patterns are kept.
const MAX_PATTERNS: usize = 1024;

static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

/// Whether `text` has a match of `pattern`; none if the pattern is no regular expression.
fn matches(pattern: &str, text: &str) -> Option<bool> {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if patterns.len() >= MAX_PATTERNS {
        patterns.clear();
    }
    let regex = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok()).clone();
    drop(patterns);
    regex.map(|regex| regex.is_match(text))
}
