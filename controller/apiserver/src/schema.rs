//! Schemas: prune, default and validate one object as its definition says, in Kubernetes' words. Reads no store and no clock.
//!
//! The order is Kubernetes' own: unknown fields, defaults, structure, then the rules in CEL, which are skipped
//! while the structure is wrong. A part that is as it was in the old object is never an error (ratcheting).

mod correlate;
mod defaults;
mod format;
mod junctors;
mod metadata;
mod prune;
mod rules;
mod validate;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::registry::Kind;

/// What to do with fields that the schema does not know (query parameter `fieldValidation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the object.
    Strict,
    /// Drop the fields and say so.
    Warn,
    /// Drop the fields.
    Ignore,
}

/// Which sort of wrong a field is; each has its words and its reason in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum FieldErrorKind {
    /// The schema knows no such field. Answered as a bad request, not as an invalid object.
    #[strum(serialize = "FieldValueInvalid")]
    Unknown,
    #[strum(serialize = "FieldValueRequired")]
    Required,
    #[strum(serialize = "FieldValueInvalid")]
    Invalid,
    /// Of another type or format than the schema says.
    #[strum(serialize = "FieldValueTypeInvalid")]
    TypeInvalid,
    #[strum(serialize = "FieldValueNotSupported")]
    NotSupported,
    #[strum(serialize = "FieldValueDuplicate")]
    Duplicate,
    #[strum(serialize = "FieldValueForbidden")]
    Forbidden,
    #[strum(serialize = "FieldValueTooLong")]
    TooLong,
    #[strum(serialize = "FieldValueTooMany")]
    TooMany,
    #[strum(serialize = "InternalError")]
    Internal,
}

/// One thing wrong with an object: where, of which sort, and in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// `spec.replicas`, `spec.ports[0].name`; empty for the object itself.
    pub path: String,
    pub kind: FieldErrorKind,
    /// `Invalid value: -1: spec.replicas in body should be greater than or equal to 0`, or
    /// `unknown field "spec.replica"`.
    pub detail: String,
}

/// Prunes, defaults and validates `object` in place, and returns the warnings for the client.
///
/// `old` is the stored object of an update; parts equal to it are not errors, and transition rules compare with it.
/// A kind without a schema is kept as it comes; only its metadata is checked. When only unknown fields are wrong
/// under [`FieldValidation::Strict`], every error is of kind [`FieldErrorKind::Unknown`], which Kubernetes answers
/// with 400 `strict decoding error: …`; all others are answered with 422 `Invalid`.
pub fn admit(
    kind: &Kind,
    object: &mut Value,
    old: Option<&Value>,
    mode: FieldValidation,
) -> Result<Vec<String>, Vec<FieldError>> {
    if !object.is_object() {
        return Err(vec![FieldError::type_invalid("", object, "object")]);
    }
    let mut unknown = Vec::new();
    if let Some(schema) = &kind.schema {
        prune::prune(object, schema.document(), &mut unknown);
    }
    metadata::prune(object, &mut unknown);
    if mode == FieldValidation::Strict && !unknown.is_empty() {
        return Err(unknown);
    }
    let warnings = match mode {
        FieldValidation::Warn => unknown.iter().map(|error| error.detail.clone()).collect(),
        FieldValidation::Strict | FieldValidation::Ignore => Vec::new(),
    };

    normalize(kind, object);
    let mut errors = Vec::new();
    metadata::validate(kind, object, old, &mut errors);
    if let Some(schema) = &kind.schema {
        validate::validate(schema.document(), object, old, &mut errors);
        if errors.iter().any(|error| error.kind.blocks_rules()) {
            if schema.rules().is_some() {
                errors.push(FieldError::invalid("", &Value::Null, RULES_SKIPPED));
            }
        } else {
            rules::validate(kind, schema, object, old, &mut errors);
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(errors) }
}

/// Fills defaults and drops nulls as [`admit`] does, and judges nothing.
pub(crate) fn normalize(kind: &Kind, object: &mut Value) {
    metadata::drop_nulls(object);
    if let Some(schema) = &kind.schema {
        defaults::apply(object, schema.document());
    }
}

const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; \
     correct the existing errors to complete validation";

// === impl FieldErrorKind ===

impl FieldErrorKind {
    /// The machine-readable reason of a cause.
    pub fn reason(self) -> &'static str {
        self.into()
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unknown => "unknown field",
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    fn blocks_rules(self) -> bool {
        matches!(self, Self::NotSupported | Self::Required | Self::TooLong | Self::TooMany | Self::TypeInvalid)
    }
}

// === impl FieldError ===

impl FieldError {
    /// The entry of a `Status`'s `details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind.reason(), "message": self.detail, "field": self.field()})
    }

    /// Whether the only fault is that the schema knows no such field.
    pub fn is_unknown_field(&self) -> bool {
        self.kind == FieldErrorKind::Unknown
    }

    fn field(&self) -> &str {
        if self.path.is_empty() { "<nil>" } else { &self.path }
    }

    fn with_value(kind: FieldErrorKind, path: &str, value: &Value, detail: &str) -> Self {
        let mut text = format!("{}: {}", kind.words(), shown(value));
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(detail);
        }
        Self { path: path.to_owned(), kind, detail: text }
    }

    fn without_value(kind: FieldErrorKind, path: &str, detail: &str) -> Self {
        let text = if detail.is_empty() { kind.words().to_owned() } else { format!("{}: {detail}", kind.words()) };
        Self { path: path.to_owned(), kind, detail: text }
    }

    fn invalid(path: &str, value: &Value, detail: &str) -> Self {
        Self::with_value(FieldErrorKind::Invalid, path, value, detail)
    }

    /// `found` is not of type or format `expected`.
    fn type_invalid(path: &str, found: &Value, expected: &str) -> Self {
        let actual = type_name(found);
        let detail = format!("{path} in body must be of type {expected}: {actual:?}");
        Self::with_value(FieldErrorKind::TypeInvalid, path, &Value::from(actual), &detail)
    }

    fn required(path: &str) -> Self {
        Self::without_value(FieldErrorKind::Required, path, "")
    }

    fn duplicate(path: &str, value: &Value) -> Self {
        Self::with_value(FieldErrorKind::Duplicate, path, value, "")
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_unknown_field() { f.write_str(&self.detail) } else { write!(f, "{}: {}", self.field(), self.detail) }
    }
}

impl std::error::Error for FieldError {}

/// A value as Kubernetes' field errors show it: texts quoted, numbers plain, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// The OpenAPI type of a value; a number without a fraction is an integer.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
