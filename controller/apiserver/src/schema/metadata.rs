//! Object metadata: its known fields, and what names, labels, annotations and finalizers may be.

use polyphony_selector::name::{key_faults, subdomain_faults, value_faults};
use serde_json::Value;

use super::prune::unknown_field;
use super::{FieldError, FieldErrorKind, type_name};
use crate::registry::Kind;

const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Kubernetes' bound on all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Drops unknown fields of `metadata`.
pub(super) fn prune(object: &mut Value, unknown: &mut Vec<FieldError>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.retain(|name, _| {
        let known = FIELDS.contains(&name.as_str());
        if !known {
            unknown.push(unknown_field("metadata", name, FIELDS.into_iter()));
        }
        known
    });
}

/// Drops nulls in `metadata`, its labels and its annotations.
pub(super) fn drop_nulls(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    metadata.retain(|_, value| !value.is_null());
    for name in ["labels", "annotations"] {
        if let Some(entries) = metadata.get_mut(name).and_then(Value::as_object_mut) {
            entries.retain(|_, value| !value.is_null());
        }
    }
}

/// Checks the metadata; parts equal to `old` are not looked at.
pub(super) fn validate(kind: &Kind, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(metadata) = object.get("metadata") else {
        return;
    };
    if !metadata.is_object() {
        errors.push(FieldError::type_invalid("metadata", metadata, "object"));
        return;
    }
    let field = |name: &str| {
        let value = metadata.get(name)?;
        (old.and_then(|old| old.get("metadata")?.get(name)) != Some(value)).then_some(value)
    };
    for (name, path) in [("name", "metadata.name"), ("generateName", "metadata.generateName")] {
        match field(name) {
            None => {}
            Some(Value::String(text)) => object_name(kind, path, text, name == "generateName", errors),
            Some(other) => errors.push(FieldError::type_invalid(path, other, "string")),
        }
    }
    for (name, path) in
        [("namespace", "metadata.namespace"), ("uid", "metadata.uid"), ("resourceVersion", "metadata.resourceVersion")]
    {
        if let Some(other) = field(name).filter(|value| !value.is_string()) {
            errors.push(FieldError::type_invalid(path, other, "string"));
        }
    }
    if let Some(labels) = field("labels") {
        texts("metadata.labels", labels, errors, |path, key, value, errors| {
            faults(path, key, key_faults(key), errors);
            faults(path, value, value_faults(value), errors);
        });
    }
    if let Some(annotations) = field("annotations") {
        let mut bytes = 0;
        texts("metadata.annotations", annotations, errors, |path, key, value, errors| {
            bytes += key.len() + value.len();
            faults(path, key, key_faults(&key.to_lowercase()), errors);
        });
        if bytes > MAX_ANNOTATION_BYTES {
            let detail = format!("may not be more than {MAX_ANNOTATION_BYTES} bytes");
            errors.push(FieldError::without_value(FieldErrorKind::TooLong, "metadata.annotations", &detail));
        }
    }
    if let Some(finalizers) = field("finalizers") {
        list("metadata.finalizers", finalizers, errors, |path, finalizer, errors| match finalizer.as_str() {
            Some(text) => faults(path, text, key_faults(text), errors),
            None => errors.push(FieldError::type_invalid(path, finalizer, "string")),
        });
    }
    if let Some(owners) = field("ownerReferences") {
        list("metadata.ownerReferences", owners, errors, |path, owner, errors| {
            for name in ["apiVersion", "kind", "name", "uid"] {
                if owner.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    let path = format!("{path}.{name}");
                    let detail = format!("{name} must not be empty");
                    errors.push(FieldError::with_value(FieldErrorKind::Invalid, &path, &"".into(), &detail));
                }
            }
        });
        controllers(owners, errors);
    }
}

/// At most one owner is the controller.
fn controllers(owners: &Value, errors: &mut Vec<FieldError>) {
    let count = owners
        .as_array()
        .into_iter()
        .flatten()
        .filter(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
        .count();
    if count > 1 {
        let detail =
            format!("Only one reference can have Controller set to true. Found \"true\" in {count} references");
        errors.push(FieldError::invalid("metadata.ownerReferences", owners, &detail));
    }
}

fn texts(
    path: &str,
    entries: &Value,
    errors: &mut Vec<FieldError>,
    mut check: impl FnMut(&str, &str, &str, &mut Vec<FieldError>),
) {
    let Some(map) = entries.as_object() else {
        errors.push(FieldError::type_invalid(path, entries, "object"));
        return;
    };
    for (key, value) in map {
        match value.as_str() {
            Some(text) => check(path, key, text, errors),
            None => {
                let detail = format!("{path}.{key} must be a string, not {}", type_name(value));
                errors.push(FieldError::with_value(FieldErrorKind::TypeInvalid, path, value, &detail));
            }
        }
    }
}

fn list(path: &str, items: &Value, errors: &mut Vec<FieldError>, check: impl Fn(&str, &Value, &mut Vec<FieldError>)) {
    let Some(items_list) = items.as_array() else {
        errors.push(FieldError::type_invalid(path, items, "array"));
        return;
    };
    for (index, item) in items_list.iter().enumerate() {
        check(&format!("{path}[{index}]"), item, errors);
    }
}

/// Custom objects are named as DNS subdomains; built-in kinds by whatever fits into a path.
fn object_name(kind: &Kind, path: &str, name: &str, prefix: bool, errors: &mut Vec<FieldError>) {
    // The random end of a generated name follows, so a prefix may end in a dash.
    let whole = if prefix { format!("{name}0") } else { name.to_owned() };
    let mut wrong = |detail: &str| errors.push(FieldError::invalid(path, &name.into(), detail));
    if kind.schema.is_none() {
        if name.is_empty() || matches!(name, "." | "..") || name.contains(['/', '%']) {
            wrong("may not be empty, '.' or '..', and may not contain '/' or '%'");
        }
        return;
    }
    for fault in subdomain_faults(&whole) {
        wrong(&fault);
    }
}

fn faults(path: &str, value: &str, faults: Vec<String>, errors: &mut Vec<FieldError>) {
    errors.extend(faults.into_iter().map(|fault| FieldError::invalid(path, &value.into(), &fault)));
}
