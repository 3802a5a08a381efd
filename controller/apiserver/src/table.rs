//! Tables: what `kubectl get` prints, as `meta.k8s.io/v1` Table. Takes the time as an argument.

use serde_json::{Value, json};

use crate::registry::Kind;

pub fn render(_kind: &Kind, _items: &[Value], list_metadata: Option<&Value>, _now: jiff::Timestamp) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": list_metadata, "columnDefinitions": [], "rows": []})
}
