//! Parameters: what each verb takes in its query and its path.

use serde_json::{Value, json};

/// Those of create, replace and patch. `kubectl` leaves validation to servers that declare `fieldValidation`.
pub(super) fn of_write(patch: bool) -> Vec<Value> {
    let mut parameters = vec![
        query("dryRun", "string", "All: do everything but store the result."),
        query("fieldManager", "string", "Who is writing, for the ownership of fields."),
        query("fieldValidation", "string", "What to do with unknown and duplicate fields: Strict, Warn or Ignore."),
    ];
    if patch {
        parameters.push(query("force", "boolean", "Whether an apply takes fields over that others own."));
    }
    parameters
}

pub(super) fn of_list() -> Vec<Value> {
    vec![
        query("allowWatchBookmarks", "boolean", "Whether a watch tells of new resource versions without an object."),
        query("continue", "string", "Where the list goes on, as the part before said."),
        query("fieldSelector", "string", "Only objects with these field values."),
        query("labelSelector", "string", "Only objects with these labels."),
        query("limit", "integer", "At most so many objects; the rest is had by continue."),
        query("resourceVersion", "string", "The version to list at or to watch from."),
        query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
        query("sendInitialEvents", "boolean", "Whether a watch begins with the objects there are."),
        query("timeoutSeconds", "integer", "When a list or a watch ends."),
        query("watch", "boolean", "Changes as they come instead of a list."),
    ]
}

pub(super) fn of_delete() -> Vec<Value> {
    vec![
        query("dryRun", "string", "All: do everything but delete."),
        query("gracePeriodSeconds", "integer", "Seconds for an orderly end."),
        query("propagationPolicy", "string", "Background, Foreground or Orphan."),
    ]
}

/// The names in a path such as `/namespaces/{namespace}/widgets/{name}`.
pub(super) fn of_path(path: &str) -> Vec<Value> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": format!("The {name} of the object."),
                "schema": {"type": "string", "uniqueItems": true},
            })
        })
        .collect()
}

fn query(name: &str, of_type: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": of_type, "uniqueItems": true},
    })
}
