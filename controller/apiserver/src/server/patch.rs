//! Patches: merge, JSON, strategic for the built-in kinds, and apply. Each becomes a new object or a failure.

use http::HeaderMap;
use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value};

use super::body::{Body, Encoding, decode, media_type};
use super::failure::Failure;
use crate::registry::Kind;

/// Steps of one JSON patch, as Kubernetes bounds them.
const JSON_PATCH_LIMIT: usize = 10_000;

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A decoded patch.
#[derive(Debug)]
pub enum Change {
    Merge(Value),
    Json(Vec<PatchOperation>),
    Strategic(Value),
    /// The fields that one manager wants; see [`crate::apply`].
    Apply(Value),
}

// === impl Change ===

impl Change {
    /// Reads the patch that the content type says; comes back with the faults of its text.
    pub fn parse(kind: &Kind, headers: &HeaderMap, bytes: &[u8]) -> Result<(Change, Vec<String>), Failure> {
        let json = |bytes| decode(bytes, Encoding::Json);
        match media_type(headers) {
            MERGE => {
                let Body { value, faults } = json(bytes)?;
                Ok((Change::Merge(value), faults))
            }
            STRATEGIC if !kind.is_custom() => {
                let Body { value, faults } = json(bytes)?;
                Ok((Change::Strategic(value), faults))
            }
            APPLY => {
                let Body { value, faults } = decode(bytes, Encoding::Yaml)?;
                Ok((Change::Apply(value), faults))
            }
            JSON => {
                let Patch(steps) = serde_json::from_slice(bytes)
                    .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
                if steps.len() > JSON_PATCH_LIMIT {
                    return Err(Failure::too_large(JSON_PATCH_LIMIT));
                }
                Ok((Change::Json(steps), Vec::new()))
            }
            _ if kind.is_custom() => Err(Failure::unsupported_media_type(&[JSON, MERGE, APPLY])),
            _ => Err(Failure::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    /// What the patch makes of `old`. An apply is not for here: it needs the record of owners.
    pub fn make(&self, old: &Value) -> Result<Value, Failure> {
        let mut new = old.clone();
        match self {
            Change::Merge(patch) => json_patch::merge(&mut new, patch),
            Change::Strategic(patch) => merge_strategically(&mut new, patch, ""),
            Change::Json(steps) => {
                for step in steps {
                    take_step(&mut new, step)?;
                }
            }
            Change::Apply(config) => new = config.clone(),
        }
        Ok(new)
    }
}

fn take_step(object: &mut Value, step: &PatchOperation) -> Result<(), Failure> {
    if let PatchOperation::Test(test) = step
        && test.value.is_null()
        && test.path.resolve(&*object).is_err()
    {
        // In Kubernetes an absent field is null to a test; kube's finalizers count on it.
        return Ok(());
    }
    json_patch::patch(object, std::slice::from_ref(step)).map_err(|error| {
        let message = format!("the server rejected our request due to an error in our request: {error}");
        Failure::new(http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    })
}

/// A strategic merge patch, as far as the built-in kinds here need it: objects merge, lists are replaced, but for
/// finalizers (a set) and owner references (by uid).
fn merge_strategically(object: &mut Value, patch: &Value, path: &str) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if changes.get("$patch").is_some_and(|directive| directive == "replace") {
        let kept = changes.iter().filter(|(name, _)| *name != "$patch");
        *object = Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
        return;
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(items), Some(gone)) = (fields.get_mut(list).and_then(Value::as_array_mut), change.as_array()) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        // Orders and retained keys say nothing that a merge of objects does not already do.
        if name.starts_with('$') {
            continue;
        }
        let path = format!("{path}.{name}");
        match (change, path.as_str()) {
            (Value::Null, _) => {
                fields.remove(name);
            }
            (Value::Array(items), ".metadata.finalizers") => merge_list(fields, name, items, |a, b| a == b),
            (Value::Array(items), ".metadata.ownerReferences") => {
                merge_list(fields, name, items, |a, b| a["uid"] == b["uid"]);
            }
            (Value::Object(directive), _) if directive.get("$patch").is_some_and(|directive| directive == "delete") => {
                fields.remove(name);
            }
            (change, _) => merge_strategically(fields.entry(name.clone()).or_insert(Value::Null), change, &path),
        }
    }
}

fn merge_list(fields: &mut Map<String, Value>, name: &str, items: &[Value], same: impl Fn(&Value, &Value) -> bool) {
    let list = fields.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else {
        return;
    };
    for item in items {
        let delete = item["$patch"] == "delete";
        match list.iter().position(|old| same(old, item)) {
            Some(i) if delete => drop(list.remove(i)),
            Some(i) => json_patch::merge(&mut list[i], item),
            None if delete => {}
            None => list.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn json_patch(object: Value, steps: Value) -> Result<Value, Failure> {
        Change::Json(serde_json::from_value(steps).unwrap()).make(&object)
    }

    #[test]
    fn a_test_for_null_holds_where_nothing_is() {
        let object = json!({"metadata": {"name": "a"}});
        let steps = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["f"]},
        ]);
        let new = json_patch(object.clone(), steps.clone()).unwrap();
        assert_eq!(new["metadata"]["finalizers"], json!(["f"]));
        assert_eq!(json_patch(new, steps).unwrap_err().status_code(), 422);
        let failed = json_patch(object, json!([{"op": "test", "path": "/metadata/name", "value": "b"}]));
        assert_eq!(failed.unwrap_err().status_code(), 422);
    }

    #[test]
    fn a_strategic_patch_merges_finalizers_and_owners_and_replaces_other_lists() {
        let object = json!({
            "metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "name": "x"}], "labels": {"l": "1", "m": "2"}},
            "list": [1, 2], "data": {"k": "v"}, "gone": {"x": 1},
        });
        let patch = json!({
            "metadata": {
                "finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"],
                "ownerReferences": [{"uid": "1", "$patch": "delete"}, {"uid": "2", "name": "y"}], "labels": {"l": null},
            },
            "list": [3], "data": {"$patch": "replace", "n": "w"}, "gone": {"$patch": "delete"},
        });
        let new = Change::Strategic(patch).make(&object).unwrap();
        let expected = json!({
            "metadata": {"finalizers": ["b", "c"], "ownerReferences": [{"uid": "2", "name": "y"}], "labels": {"m": "2"}},
            "list": [3], "data": {"n": "w"},
        });
        assert_eq!(new, expected);
    }
}
