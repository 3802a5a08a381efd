//! Merge patches (RFC 7386): what turns one object into another. Pure.

use serde_json::{Map, Value};

/// The patch that makes `after` of `before`; none when they are equal.
pub fn between(before: &Value, after: &Value) -> Option<Value> {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (field, value) in new {
                match old.get(field) {
                    Some(known) => {
                        if let Some(change) = between(known, value) {
                            patch.insert(field.clone(), change);
                        }
                    }
                    None => {
                        patch.insert(field.clone(), value.clone());
                    }
                }
            }
            for field in old.keys().filter(|field| !new.contains_key(*field)) {
                patch.insert(field.clone(), Value::Null);
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (before, after) => (before != after).then(|| after.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_names_what_changed_and_nothing_else() {
        let before = json!({"a": 1, "b": {"c": [1, 2], "d": "x", "same": true}, "gone": {}});
        let after = json!({"a": 2, "b": {"c": [2], "d": "x", "same": true}, "new": {"e": 1}});
        let expected = json!({"a": 2, "b": {"c": [2]}, "new": {"e": 1}, "gone": null});
        assert_eq!(between(&before, &after), Some(expected));
        assert_eq!(between(&before, &before), None);
    }
}
