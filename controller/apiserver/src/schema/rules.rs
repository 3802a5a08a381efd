//! Rules: what `x-kubernetes-validations` say about one object, node by node. They were compiled with their definition.
//!
//! The walk is ours, since `kube-cel` pairs list items with old ones by position and knows no ratcheting: Kubernetes
//! pairs the items of map lists by their keys, others not at all, and forgives an unchanged node its plain rules.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kube_cel::{CompiledSchema, ErrorKind, RootContext, ValidationError, Validator};
use serde_json::{Map, Value};

use super::{FieldError, FieldErrorKind, correlate, join};
use crate::registry::{Kind, Rules, Schema};

/// Evaluates every rule of a whole object whose structure is right.
pub(super) fn validate(
    kind: &Kind,
    schema: &Schema,
    object: &Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    let Some(rules) = schema.rules() else {
        return;
    };
    let schema = schema.document();
    let root = RootContext { api_version: kind.api_version(), api_group: kind.group.clone(), kind: kind.kind.clone() };
    let object = with_doubles(schema, object);
    let old = old.map(|old| with_doubles(schema, old));
    node(rules, schema, &object, old.as_ref(), "", Some(&root), errors);
}

/// The value with each number of type `number` as a double, though written without a fraction: rules have no mixed
/// arithmetic.
fn with_doubles(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Number(number) if schema["type"] == "number" => {
            number.as_f64().map_or_else(|| value.clone(), Value::from)
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, child)| {
                let declared = schema.get("properties").and_then(|properties| properties.get(name));
                let child = match declared.or_else(|| schema.get("additionalProperties")) {
                    Some(schema) => with_doubles(schema, child),
                    None => child.clone(),
                };
                (name.clone(), child)
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => match schema.get("items") {
            Some(schema) => items.iter().map(|item| with_doubles(schema, item)).collect(),
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

fn node(
    rules: &Rules,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    root: Option<&RootContext>,
    errors: &mut Vec<FieldError>,
) {
    if value.is_null() {
        return;
    }
    if let Some(plain) = rules.plain.as_ref().filter(|_| old != Some(value)) {
        evaluate(plain, value, None, path, root, errors);
    }
    if let Some(transition) = &rules.transition {
        evaluate(transition, value, old, path, root, errors);
    }
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                let old = correlate::property(old, name);
                if let Some(child_schema) = schema.get("properties").and_then(|properties| properties.get(name)) {
                    if let Some(rules) = rules.properties.get(name) {
                        node(rules, child_schema, child, old, &join(path, name), None, errors);
                    }
                } else if let (Some(rules), Some(child_schema)) =
                    (&rules.additional, schema.get("additionalProperties"))
                {
                    node(rules, child_schema, child, old, &format!("{path}[{name}]"), None, errors);
                }
            }
        }
        Value::Array(items) => {
            let (Some(rules), Some(item_schema)) = (&rules.items, schema.get("items")) else {
                return;
            };
            for (index, item) in items.iter().enumerate() {
                let old = correlate::item(schema, old, item);
                node(rules, item_schema, item, old, &format!("{path}[{index}]"), None, errors);
            }
        }
        _ => {}
    }
}

thread_local! {
    static VALIDATOR: Validator = Validator::new();
}

fn evaluate(
    rules: &CompiledSchema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    root: Option<&RootContext>,
    errors: &mut Vec<FieldError>,
) {
    // In a build with checked arithmetic the evaluator panics at the least number's negation, where Go reports an
    // overflow, and what a person sends must not.
    let result = catch_unwind(AssertUnwindSafe(|| {
        VALIDATOR.with(|validator| validator.validate_compiled_with_context(rules, value, old, root))
    }));
    let Ok(result) = result else {
        let detail = "a rule of this field cannot be evaluated for this value, such as by an overflow; \
             give a smaller value or correct the rule";
        errors.push(FieldError::invalid(path, &named(value), detail));
        return;
    };
    for failure in result.err().into_iter().flatten() {
        errors.push(field_error(&failure, value, path));
    }
}

/// Objects and lists are named, not shown.
fn named(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::from("object"),
        Value::Array(_) => Value::from("array"),
        Value::Number(number) => match number.as_f64() {
            // Doubles are shown as Go shows them.
            Some(double) if double.fract() == 0.0 && double.abs() < 1e15 => Value::from(double as i64),
            _ => value.clone(),
        },
        scalar => scalar.clone(),
    }
}

/// A failed rule in Kubernetes' words.
fn field_error(failure: &ValidationError, value: &Value, path: &str) -> FieldError {
    let path = match failure.field_path.as_str() {
        "" => path.to_owned(),
        below if path.is_empty() => below.trim_start_matches('.').to_owned(),
        below if below.starts_with('[') => format!("{path}{below}"),
        below => join(path, below.trim_start_matches('.')),
    };
    let shown = named(value);
    if failure.kind != ErrorKind::ValidationFailure {
        let detail = match failure.kind {
            ErrorKind::EvaluationError => {
                format!("{} evaluating rule: {}", failure.message, failure.rule)
            }
            _ => failure.message.clone(),
        };
        return FieldError::invalid(&path, &shown, &detail);
    }
    match failure.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::without_value(FieldErrorKind::Forbidden, &path, &failure.message),
        Some("FieldValueRequired") => FieldError::without_value(FieldErrorKind::Required, &path, &failure.message),
        Some("FieldValueDuplicate") => {
            FieldError::with_value(FieldErrorKind::Duplicate, &path, &shown, &failure.message)
        }
        _ => FieldError::invalid(&path, &shown, &failure.message),
    }
}
