//! Components: the schema of each kind, of its list, and those that all kinds share.

use serde_json::{Map, Value, json};

use super::group_version_kind;
use crate::registry::Kind;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// A reference to a shared schema such as `ObjectMeta`.
pub(super) fn shared(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{META}.{name}")})
}

/// A reference to the schema of a kind or of its list.
pub(super) fn reference(kind: &Kind, name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", component(kind, name))})
}

/// The name of a schema: the group reversed, version and kind, as in Kubernetes.
pub(super) fn component(kind: &Kind, name: &str) -> String {
    let package = match kind.group.strip_suffix(".k8s.io") {
        _ if kind.group.is_empty() => "io.k8s.api.core".to_owned(),
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_owned(),
        Some(group) if !kind.is_custom() => format!("io.k8s.api.{group}"),
        _ => kind.group.split('.').rev().collect::<Vec<_>>().join("."),
    };
    format!("{package}.{}.{name}", kind.version)
}

/// Adds the schemas of a kind and of its list.
pub(super) fn add(kind: &Kind, schemas: &mut Map<String, Value>) {
    schemas.insert(component(kind, &kind.kind), object(kind));
    let list = json!({
        "description": format!("{} is a list of {}.", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": api_version(),
            "kind": kind_name(),
            "metadata": described(shared("ListMeta"), "Metadata of the list: its resource version and where it goes on."),
            "items": {
                "description": format!("The objects, each a {}.", kind.kind),
                "type": "array",
                "items": reference(kind, &kind.kind),
            },
        },
        "x-kubernetes-group-version-kind": [group_version_kind(kind, &kind.list_kind)],
    });
    schemas.insert(component(kind, &kind.list_kind), list);
}

/// A kind's own schema, completed by what every object has.
fn object(kind: &Kind) -> Value {
    let mut schema = match &kind.schema {
        Some(schema) => as_openapi_3_0(schema.document()),
        None => json!({"x-kubernetes-preserve-unknown-fields": true}),
    };
    let Some(fields) = schema.as_object_mut() else {
        return json!({"type": "object"});
    };
    fields.insert("type".to_owned(), "object".into());
    fields.insert("x-kubernetes-group-version-kind".to_owned(), json!([group_version_kind(kind, &kind.kind)]));
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".to_owned(), api_version());
        properties.insert("kind".to_owned(), kind_name());
        let metadata =
            described(shared("ObjectMeta"), "Metadata that every object has: name, labels, annotations, owners.");
        properties.insert("metadata".to_owned(), metadata);
    }
    schema
}

/// A schema without forms that only later JSON Schemas know: clients refuse the whole document otherwise.
fn as_openapi_3_0(schema: &Value) -> Value {
    let Value::Object(fields) = schema else {
        return schema.clone();
    };
    let mut converted = Map::new();
    for (name, value) in fields {
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(children)) => {
                children.iter().map(|(name, child)| (name.clone(), as_openapi_3_0(child))).collect::<Map<_, _>>().into()
            }
            ("items" | "additionalProperties" | "not", child) => as_openapi_3_0(child),
            ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => branches.iter().map(as_openapi_3_0).collect(),
            ("$schema", _) => continue,
            _ => value.clone(),
        };
        converted.insert(name.clone(), value);
    }
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if let Some(limit) = converted.get(exclusive).filter(|limit| limit.is_number()).cloned() {
            converted.insert(bound.to_owned(), limit);
            converted.insert(exclusive.to_owned(), true.into());
        }
    }
    converted.into()
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description})
}

fn integer(description: &str) -> Value {
    json!({"type": "integer", "format": "int64", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string", "default": ""}, "description": description})
}

fn api_version() -> Value {
    text("Group and version of the schema that this object is written in, such as example.com/v1.")
}

fn kind_name() -> Value {
    text("What the object is, in CamelCase; it cannot be changed.")
}

/// A reference cannot have a description beside it; `allOf` can.
fn described(reference: Value, description: &str) -> Value {
    json!({"allOf": [reference], "default": {}, "description": description})
}

fn list_of(reference: Value, description: &str) -> Value {
    json!({"type": "array", "items": described(reference, ""), "description": description})
}

/// Adds the schemas that kinds of every group refer to.
pub(super) fn add_shared(schemas: &mut Map<String, Value>) {
    let mut add = |name: &str, description: &str, required: Value, properties: Value| {
        let mut schema = json!({"type": "object", "description": description, "properties": properties});
        if let Some(schema) = schema.as_object_mut().filter(|_| required != json!([])) {
            schema.insert("required".to_owned(), required);
        }
        schemas.insert(format!("{META}.{name}"), schema);
    };
    add(
        "ObjectMeta",
        "ObjectMeta is metadata that every stored object has.",
        json!([]),
        json!({
            "annotations": texts("Any text that tools keep with the object; it cannot be selected by."),
            "creationTimestamp": time("When the server stored the object first. Read-only."),
            "deletionGracePeriodSeconds": integer("Seconds that the object has for an orderly end once it is being deleted. Read-only."),
            "deletionTimestamp": time("Set once deletion was asked for; the object goes when its finalizers are gone. Read-only."),
            "finalizers": {"type": "array", "items": {"type": "string", "default": ""}, "x-kubernetes-list-type": "set",
                "description": "Who must do something before the object goes; each removes its own entry."},
            "generateName": text("A prefix that the server makes a unique name of, if name is not given."),
            "generation": integer("Counts the changes of the desired state. Read-only."),
            "labels": texts("Short texts by which objects are selected."),
            "managedFields": list_of(shared("ManagedFieldsEntry"), "Who owns which fields. Kept by the server."),
            "name": text("The name, unique among objects of the kind in the namespace. It cannot be changed."),
            "namespace": text("The namespace of the object; empty for objects of cluster scope. It cannot be changed."),
            "ownerReferences": {"type": "array", "items": described(shared("OwnerReference"), ""),
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
                "description": "Objects that this one depends on; when all are gone, it is deleted."},
            "resourceVersion": text("The version of the stored object, for watching and for updates that must not overwrite others. Read-only."),
            "selfLink": text("Not set any more."),
            "uid": text("Unique in time and space: a new object of the same name has another. Read-only."),
        }),
    );
    add(
        "OwnerReference",
        "OwnerReference names an object that owns this one.",
        json!(["apiVersion", "kind", "name", "uid"]),
        json!({
            "apiVersion": text("API version of the owner."),
            "blockOwnerDeletion": {"type": "boolean", "description": "Whether a foreground deletion of the owner waits for this object."},
            "controller": {"type": "boolean", "description": "Whether the owner is the controller of this object."},
            "kind": text("Kind of the owner."),
            "name": text("Name of the owner."),
            "uid": text("UID of the owner."),
        }),
    );
    add(
        "ManagedFieldsEntry",
        "ManagedFieldsEntry says which fields one manager owns.",
        json!([]),
        json!({
            "apiVersion": text("The version that the fields are written in."),
            "fieldsType": text("The form of the fields: FieldsV1."),
            "fieldsV1": {"type": "object", "description": "The fields, as a tree of f:name, k:keys and v:value."},
            "manager": text("Who owns the fields."),
            "operation": text("Apply or Update."),
            "subresource": text("The subresource through which they were written."),
            "time": time("When the fields were last written."),
        }),
    );
    add(
        "ListMeta",
        "ListMeta is metadata of a list.",
        json!([]),
        json!({
            "continue": text("Where the next part of the list begins; empty at the end."),
            "remainingItemCount": integer("How many objects follow in later parts."),
            "resourceVersion": text("The version of the store that the list shows."),
            "selfLink": text("Not set any more."),
        }),
    );
    add(
        "Status",
        "Status is the answer of a call that returns no object, or why it failed.",
        json!([]),
        json!({
            "apiVersion": api_version(),
            "code": {"type": "integer", "format": "int32", "description": "The HTTP status code."},
            "details": {"type": "object", "description": "What the message is about, with a cause a field."},
            "kind": kind_name(),
            "message": text("What happened, for a person."),
            "metadata": described(shared("ListMeta"), "Metadata of the answer."),
            "reason": text("What happened, in one word for programs."),
            "status": text("Success or Failure."),
        }),
    );
    add(
        "DeleteOptions",
        "DeleteOptions says how an object is deleted.",
        json!([]),
        json!({
            "apiVersion": api_version(),
            "dryRun": {"type": "array", "items": {"type": "string", "default": ""}, "description": "All: nothing is stored."},
            "gracePeriodSeconds": integer("Seconds for an orderly end."),
            "kind": kind_name(),
            "orphanDependents": {"type": "boolean", "description": "Replaced by propagationPolicy."},
            "preconditions": {"type": "object", "description": "uid and resourceVersion that the object must have."},
            "propagationPolicy": text("Background, Foreground or Orphan."),
        }),
    );
    add("Patch", "Patch is a change of an object, in the form that the content type says.", json!([]), json!({}));
}
