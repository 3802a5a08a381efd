//! Pruning: drops what the schema does not know, and says what it dropped.

use serde_json::Value;

use super::{FieldError, FieldErrorKind, flag, join};

/// The fields that every resource has, whatever its schema says.
const RESOURCE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields of a whole object; its metadata is left alone.
pub(super) fn prune(object: &mut Value, schema: &Value, unknown: &mut Vec<FieldError>) {
    walk(object, Some(schema), "", true, unknown);
}

/// The error for an unknown field, with the nearest of the `known` names if one is near.
pub(super) fn unknown_field<'a>(path: &str, key: &str, known: impl Iterator<Item = &'a str>) -> FieldError {
    let field = join(path, key);
    let mut detail = format!("unknown field {field:?}");
    if let Some(near) = nearest(key, known) {
        detail.push_str(&format!(" (did you mean {near:?}?)"));
    }
    FieldError { path: field, kind: FieldErrorKind::Unknown, detail }
}

/// `schema` is none where nothing may be kept (inside `additionalProperties: true`, as in Kubernetes).
fn walk(value: &mut Value, schema: Option<&Value>, path: &str, resource: bool, unknown: &mut Vec<FieldError>) {
    let preserve = schema.is_some_and(|schema| flag(schema, "x-kubernetes-preserve-unknown-fields"));
    let resource = resource || schema.is_some_and(|schema| flag(schema, "x-kubernetes-embedded-resource"));
    match value {
        Value::Object(fields) => {
            let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
            let additional = schema
                .and_then(|schema| schema.get("additionalProperties"))
                .filter(|additional| **additional != Value::Bool(false));
            fields.retain(|key, child| {
                if resource && RESOURCE_FIELDS.contains(&key.as_str()) {
                    return true;
                }
                let child_path = join(path, key);
                if let Some(property) = properties.and_then(|properties| properties.get(key)) {
                    walk(child, Some(property), &child_path, false, unknown);
                } else if let Some(additional) = additional {
                    walk(child, Some(additional).filter(|a| a.is_object()), &child_path, false, unknown);
                } else if !preserve {
                    let known = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                    unknown.push(unknown_field(path, key, known));
                    return false;
                }
                true
            });
        }
        Value::Array(items) => {
            let item_schema = schema.and_then(|schema| schema.get("items"));
            if preserve && item_schema.is_none() {
                return;
            }
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, item_schema, &format!("{path}[{index}]"), false, unknown);
            }
        }
        _ => {}
    }
}

/// The known name at most two edits away (or one, for short names), ignoring case.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let key = key.to_lowercase();
    let limit = if key.chars().count() <= 4 { 1 } else { 2 };
    known
        .map(|name| (edits(&key, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance, in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
