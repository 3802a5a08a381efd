//! Forms: how an object is kept and how it is served. They differ in the version, and for events in the names of fields.

use serde_json::{Map, Value, json};

use crate::registry::Kind;

/// core/v1 names of an event's fields beside those of events.k8s.io/v1, after Kubernetes' own conversion.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The object as a client of `kind` reads it.
pub fn served(kind: &Kind, stored: &Value) -> Value {
    let mut object = stored.clone();
    if kind.group == "events.k8s.io" {
        rename(&mut object, EVENT_FIELDS.iter().map(|(core, events)| (*core, *events)));
    }
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object
}

/// The object as it is kept: the reverse of [`served`].
pub fn stored(kind: &Kind, mut served: Value) -> Value {
    if kind.group == "events.k8s.io" {
        rename(&mut served, EVENT_FIELDS.iter().map(|(core, events)| (*events, *core)));
        served["apiVersion"] = json!("v1");
    }
    served
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// When an event was last seen, as RFC 3339, in either version's fields.
pub fn last_seen(event: &Value) -> Option<&str> {
    [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ]
    .into_iter()
    .find_map(|pointer| event.pointer(pointer).and_then(Value::as_str))
}

/// `metadata` as an object, made if there is none.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("it was just made an object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn an_event_is_one_object_under_two_names() {
        let registry = Registry::builtin();
        let new = registry.get("events.k8s.io", "v1", "events").expect("built in");
        let old = registry.get("", "v1", "events").expect("built in");
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "reason": "Moved", "note": "a moved",
            "regarding": {"kind": "Widget", "name": "w"}, "reportingController": "c", "eventTime": "2026-01-01T00:00:00Z",
        });
        let kept = stored(new, event.clone());
        assert_eq!(served(new, &kept), event);
        let core = served(old, &kept);
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(core["involvedObject"]["name"], "w");
        assert_eq!(core["message"], "a moved");
        assert_eq!(core["reportingComponent"], "c");
    }
}
