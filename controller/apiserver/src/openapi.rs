//! OpenAPI v3: the index and one document a group-version, as `kubectl apply` and `kubectl explain` read them.

use serde_json::{Value, json};

use crate::registry::Registry;

pub fn index(_registry: &Registry) -> Value {
    json!({"paths": {}})
}

pub fn document(_registry: &Registry, _group: &str, _version: &str) -> Option<Value> {
    None
}
