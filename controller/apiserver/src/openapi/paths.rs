//! Paths: the operations on each kind, and which kind each is about.

use serde_json::{Map, Value, json};

use super::components::{reference, shared};
use super::{group_version_kind, parameters, root};
use crate::registry::Kind;

const PATCHES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];

/// Adds the paths of a kind: of all its objects, of one, and of its subresources.
pub(super) fn add(kind: &Kind, paths: &mut Map<String, Value>) {
    let root = root(&kind.group, &kind.version);
    let everywhere = format!("{root}/{}", kind.plural);
    let all = if kind.namespaced {
        put(paths, &everywhere, [("get", list(kind, "ForAllNamespaces"))]);
        format!("{root}/namespaces/{{namespace}}/{}", kind.plural)
    } else {
        everywhere
    };
    let one = format!("{all}/{{name}}");
    put(paths, &all, [("get", list(kind, "")), ("post", create(kind)), ("delete", delete(kind, true))]);
    let [get, replace, patch] = on_object(kind, "");
    put(paths, &one, [get, replace, patch, ("delete", delete(kind, false))]);
    if kind.status {
        put(paths, &format!("{one}/status"), on_object(kind, "Status"));
    }
    if kind.scale.is_some() {
        let mut operations = on_object(kind, "Scale");
        for (_, operation) in &mut operations {
            operation["x-kubernetes-group-version-kind"] =
                json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        }
        put(paths, &format!("{one}/scale"), operations);
    }
}

fn put<const N: usize>(paths: &mut Map<String, Value>, path: &str, operations: [(&str, Value); N]) {
    let mut item: Map<String, Value> =
        operations.into_iter().map(|(method, operation)| (method.to_owned(), operation)).collect();
    let names = parameters::of_path(path);
    if !names.is_empty() {
        item.insert("parameters".to_owned(), names.into());
    }
    paths.insert(path.to_owned(), item.into());
}

/// One operation; `verb` is its name for people, `action` Kubernetes' own.
fn operation(kind: &Kind, verb: &str, action: &str, below: &str, parameters: Vec<Value>, answer: Value) -> Value {
    let title = |text: &str| {
        let mut letters = text.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    let group: String = kind.group.split('.').map(title).collect();
    let scope = if kind.namespaced && below != "ForAllNamespaces" { "Namespaced" } else { "" };
    json!({
        "operationId": format!("{verb}{group}{}{scope}{}{below}", title(&kind.version), kind.kind),
        "description": format!("{verb} {}", kind.kind),
        "tags": [format!("{}_{}", kind.group.replace('.', "_"), kind.version)],
        "parameters": parameters,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": answer}}},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(kind, &kind.kind),
    })
}

fn with_body(mut operation: Value, types: &[&str], schema: &Value) -> Value {
    let content: Map<String, Value> =
        types.iter().map(|of_type| ((*of_type).to_owned(), json!({"schema": schema}))).collect();
    operation["requestBody"] = json!({"required": true, "content": content});
    operation
}

fn list(kind: &Kind, below: &str) -> Value {
    operation(kind, "list", "list", below, parameters::of_list(), reference(kind, &kind.list_kind))
}

fn create(kind: &Kind) -> Value {
    let object = reference(kind, &kind.kind);
    let create = operation(kind, "create", "post", "", parameters::of_write(false), object.clone());
    with_body(create, &["*/*"], &object)
}

fn delete(kind: &Kind, all: bool) -> Value {
    let (verb, action) = if all { ("deleteCollection", "deletecollection") } else { ("delete", "delete") };
    let mut parameters = parameters::of_delete();
    if all {
        parameters.extend(parameters::of_list().into_iter().filter(|parameter| {
            matches!(parameter["name"].as_str(), Some("fieldSelector" | "labelSelector" | "limit" | "continue"))
        }));
    }
    let mut delete =
        with_body(operation(kind, verb, action, "", parameters, shared("Status")), &["*/*"], &shared("DeleteOptions"));
    delete["requestBody"]["required"] = false.into();
    delete
}

/// Read, replace and patch, of an object or of a subresource.
fn on_object(kind: &Kind, below: &str) -> [(&'static str, Value); 3] {
    let object = reference(kind, &kind.kind);
    let read = operation(kind, "read", "get", below, Vec::new(), object.clone());
    let replace = operation(kind, "replace", "put", below, parameters::of_write(false), object.clone());
    let patch = operation(kind, "patch", "patch", below, parameters::of_write(true), object.clone());
    [
        ("get", read),
        ("put", with_body(replace, &["*/*"], &object)),
        ("patch", with_body(patch, &PATCHES, &shared("Patch"))),
    ]
}
