//! Rules: `x-kubernetes-validations` in CEL, evaluated node by node by the `kube-cel` crate.
//!
//! The walk is ours, since `kube-cel` pairs list items with old ones by position and knows no ratcheting: Kubernetes
//! pairs the items of map lists by their keys, others not at all, and forgives an unchanged node its plain rules.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use kube_cel::{CompiledSchema, ErrorKind, RootContext, ValidationError, Validator, compile_schema};
use serde_json::{Map, Value, json};

use super::{FieldError, FieldErrorKind, correlate, join};
use crate::registry::Kind;

const RULES: &str = "x-kubernetes-validations";

/// The rules of one node of a schema, and of the nodes below it that have any.
#[derive(Debug, Default)]
struct Rules {
    /// Rules that do not look at the old value.
    plain: Option<CompiledSchema>,
    /// Rules that compare with `oldSelf`.
    transition: Option<CompiledSchema>,
    properties: BTreeMap<String, Rules>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
}

/// Whether the schema has any rule.
pub(super) fn exist(schema: &Value) -> bool {
    compiled(schema).is_some()
}

/// Evaluates every rule of a whole object whose structure is right.
pub(super) fn validate(kind: &Kind, schema: &Value, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(rules) = compiled(schema) else {
        return;
    };
    let root = RootContext { api_version: kind.api_version(), api_group: kind.group.clone(), kind: kind.kind.clone() };
    let object = with_doubles(schema, object);
    let old = old.map(|old| with_doubles(schema, old));
    node(&rules, schema, &object, old.as_ref(), "", Some(&root), errors);
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
    // The evaluator panics where Go reports an overflow, and what a person sends must not.
    let result = catch_unwind(AssertUnwindSafe(|| {
        VALIDATOR.with(|validator| validator.validate_compiled_with_context(rules, value, old, root))
    }));
    match result {
        Ok(result) => {
            for failure in result.err().into_iter().flatten() {
                errors.push(field_error(&failure, value, path));
            }
        }
        Err(_) => {
            let detail = "a rule of this field cannot be evaluated for this value, such as by an overflow; \
                 give a smaller value or correct the rule";
            errors.push(FieldError::invalid(path, &named(value), detail));
        }
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

// === compiling ===

/// How many schemas' rules are kept.
const MAX_SCHEMAS: usize = 256;

static COMPILED: LazyLock<Mutex<HashMap<String, Option<Arc<Rules>>>>> = LazyLock::new(Mutex::default);

/// The rules of a schema, compiled once a process; none if it has no rule.
fn compiled(schema: &Value) -> Option<Arc<Rules>> {
    let key = schema.to_string();
    if !key.contains(RULES) {
        return None;
    }
    let mut cache = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= MAX_SCHEMAS {
        cache.clear();
    }
    cache.entry(key).or_insert_with(|| compile(schema).map(Arc::new)).clone()
}

fn compile(schema: &Value) -> Option<Rules> {
    let own = schema.get(RULES).and_then(Value::as_array).cloned().unwrap_or_default();
    let (transition, plain): (Vec<Value>, Vec<Value>) =
        own.into_iter().partition(|rule| rule.to_string().contains("oldSelf"));
    let with_rules = |rules: Vec<Value>| {
        if rules.is_empty() {
            return None;
        }
        let rules: Vec<Value> = rules.into_iter().map(bounded).collect();
        let alone = |rules: Value| {
            let mut alone = without_rules(schema);
            if let Some(fields) = alone.as_object_mut() {
                fields.insert(RULES.to_owned(), rules);
            }
            alone
        };
        // The parser panics on some texts that it should refuse.
        let compiled = catch_unwind(|| compile_schema(&alone(rules.into())));
        Some(compiled.unwrap_or_else(|_| compile_schema(&alone(json!([failing(RULE_UNREADABLE)])))))
    };
    let below = |name: &str| schema.get(name).filter(|child| child.is_object()).and_then(compile).map(Box::new);
    let rules = Rules {
        plain: with_rules(plain),
        transition: with_rules(transition),
        properties: schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, child)| Some((name.clone(), compile(child)?)))
            .collect(),
        items: below("items"),
        additional: below("additionalProperties"),
    };
    let any = rules.plain.is_some()
        || rules.transition.is_some()
        || !rules.properties.is_empty()
        || rules.items.is_some()
        || rules.additional.is_some();
    any.then_some(rules)
}

/// The most brackets in one rule; each may be a dozen calls deep in the parser.
const MAX_RULE_BRACKETS: usize = 64;
/// The most operators in one rule; each may be one call deep in the evaluator.
const MAX_RULE_OPERATORS: usize = 512;
const RULE_TOO_LARGE: &str =
    "a rule of the definition has more than 64 brackets or 512 operators, and cannot be checked; split it";
const RULE_UNREADABLE: &str = "a rule of the definition cannot be read; correct or simplify it";

/// A rule that fits on the stack; any other becomes one that always fails.
fn bounded(rule: Value) -> Value {
    let fits = ["rule", "messageExpression"].iter().all(|field| {
        let text = rule.get(field).and_then(Value::as_str).unwrap_or_default();
        text.matches(['(', '[', '{']).count() <= MAX_RULE_BRACKETS
            && text.matches(OPERATORS).count() <= MAX_RULE_OPERATORS
    });
    if fits { rule } else { failing(RULE_TOO_LARGE) }
}

fn failing(message: &str) -> Value {
    json!({"rule": "false", "message": message})
}

const OPERATORS: [char; 9] = ['?', '!', '+', '-', '*', '/', '%', '.', '&'];

/// The schema as types alone: no rule at any depth, and no defaults, which were filled in before.
fn without_rules(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let map = |children: &Value| -> Value {
        match children {
            Value::Object(children) => {
                children.iter().map(|(name, child)| (name.clone(), without_rules(child))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    };
    fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), RULES | "default" | "allOf" | "anyOf" | "oneOf" | "not"))
        .map(|(name, child)| {
            let child = match name.as_str() {
                "properties" => map(child),
                "items" | "additionalProperties" => without_rules(child),
                _ => child.clone(),
            };
            (name.clone(), child)
        })
        .collect::<Map<_, _>>()
        .into()
}
