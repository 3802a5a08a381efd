//! Correlation: which part of the old object a part of the new one was.

use serde_json::Value;

/// The old value of the property or map entry `key`.
pub(super) fn property<'a>(old: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    old?.get(key)
}

/// The old value of a list's `item`: only lists of `x-kubernetes-list-type: map` have one, found by the item's keys.
pub(super) fn item<'a>(schema: &Value, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let keys = map_keys(schema)?;
    let items = schema.get("items")?;
    let wanted = key_values(&keys, items, item);
    old?.as_array()?.iter().find(|candidate| key_values(&keys, items, candidate) == wanted)
}

/// The key fields of a list of `x-kubernetes-list-type: map`.
pub(super) fn map_keys(schema: &Value) -> Option<Vec<&str>> {
    if schema.get("x-kubernetes-list-type")?.as_str()? != "map" {
        return None;
    }
    Some(schema.get("x-kubernetes-list-map-keys")?.as_array()?.iter().filter_map(Value::as_str).collect())
}

/// What an item has in its key fields, or what the schema gives by default; `None` for each that is missing.
pub(super) fn key_values<'a>(keys: &[&str], items: &'a Value, item: &'a Value) -> Vec<Option<&'a Value>> {
    keys.iter().map(|key| item.get(key).or_else(|| items.get("properties")?.get(key)?.get("default"))).collect()
}
