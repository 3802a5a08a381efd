//! Schemas: prune, default and validate one object as its CRD says, in Kubernetes' words. Reads no store and no clock.

use serde_json::{Value, json};

use crate::registry::Kind;

/// What to do with fields that the schema does not know (query parameter `fieldValidation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Strict,
    Warn,
    Ignore,
}

/// One thing wrong with an object: where, of which sort, and in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct FieldError {
    /// `spec.replicas`, `spec.ports[0].name`, or empty for the object itself.
    pub path: String,
    pub kind: &'static str,
    pub detail: String,
}

impl FieldError {
    /// The entry of a `Status`'s `details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.kind, "message": self.detail, "field": self.path})
    }
}

pub fn admit(
    _kind: &Kind,
    _object: &mut Value,
    _old: Option<&Value>,
    _mode: FieldValidation,
) -> Result<Vec<String>, Vec<FieldError>> {
    Ok(Vec::new())
}
