//! Paths: simple JSON paths (`.spec.replicas`) into objects, for selectors and the scale subresource.

use serde_json::{Map, Value};

/// The value at a path of dotted fields, with or without the leading dot.
pub fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    fields(path).try_fold(object, |value, field| value.get(field))
}

/// Sets the value at a path, making the objects on the way; what is in the way and no object stays as it is.
pub fn assign(object: &mut Value, path: &str, new: Value) {
    let mut at = object;
    for field in fields(path) {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else {
            return;
        };
        at = map.entry(field).or_insert(Value::Null);
    }
    *at = new;
}

fn fields(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|field| !field.is_empty())
}
