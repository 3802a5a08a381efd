//! Server-side apply: who owns which field, and what an apply or an update makes of an object. Reads no store and no clock.

use serde_json::Value;

use crate::registry::Kind;

/// A field that someone else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: String,
    pub field: String,
}

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("apply failed with {} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
    #[error("{0}")]
    Invalid(String),
}

pub fn apply(
    _kind: &Kind,
    _live: Option<&Value>,
    config: &Value,
    _manager: &str,
    _force: bool,
    _subresource: Option<&str>,
    _now_rfc3339: &str,
) -> Result<Value, ApplyError> {
    Ok(config.clone())
}

pub fn track_update(
    _kind: &Kind,
    _old: Option<&Value>,
    _new: &mut Value,
    _manager: &str,
    _subresource: Option<&str>,
    _now_rfc3339: &str,
) {
}
