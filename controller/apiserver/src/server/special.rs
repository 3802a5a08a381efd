//! What the built-in kinds ask for beyond any other: namespaces hold things, definitions are judged, secrets encode.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::lifetime::{finalizers, is_leaving, rfc3339};
use super::path::lookup;
use crate::registry::Kind;
use crate::schema::FieldErrorKind;
use crate::store::{Key, Transaction};

pub const NAMESPACES: &str = "namespaces";
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Holds a definition until its objects are gone.
pub const DEFINITION_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// These are made at start-up and may not be deleted.
pub const NAMESPACES_AT_START: [&str; 3] = ["default", "kube-system", "polyphony-system"];

/// Whether something may be created at `key`: its namespace has to be there and to stay.
pub fn check_place(transaction: &Transaction, kind: &Kind, key: &Key) -> Result<(), Failure> {
    if kind.namespaced {
        let namespace = transaction.get(&Key::new(NAMESPACES, "", &key.namespace));
        let Some(namespace) = namespace else {
            let namespaces = Kind { plural: NAMESPACES.to_owned(), ..Kind::default() };
            return Err(Failure::not_found(&namespaces, &key.namespace));
        };
        if is_leaving(&namespace) {
            let detail =
                format!("unable to create new content in namespace {} because it is being terminated", key.namespace);
            return Err(Failure::forbidden_for(kind, &key.name, &detail));
        }
    }
    let definition = transaction.get(&Key::new(DEFINITIONS, "", &kind.resource()));
    if kind.is_custom() && definition.is_some_and(|definition| is_leaving(&definition)) {
        return Err(Failure::method_not_allowed());
    }
    Ok(())
}

/// Fills in and checks what only this kind has.
pub fn prepare(kind: &Kind, object: &mut Value, old: Option<&Value>, now: Timestamp) -> Result<(), Failure> {
    match kind.resource().as_str() {
        NAMESPACES => {
            let name = object["metadata"]["name"].clone();
            if object["metadata"]["labels"].is_null() {
                object["metadata"]["labels"] = json!({});
            }
            if object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            }
            if old.is_none() {
                object["spec"] = json!({"finalizers": ["kubernetes"]});
                object["status"] = json!({"phase": "Active"});
            }
        }
        "secrets" => {
            encode_secret(object);
            check_immutable(kind, object, old)?;
        }
        "configmaps" => check_immutable(kind, object, old)?,
        DEFINITIONS => prepare_definition(kind, object, old, now)?,
        _ => {}
    }
    Ok(())
}

/// Whether something still has to happen before a leaving object is gone.
pub fn is_held(kind: &Kind, object: &Value) -> bool {
    let held = |finalizers: &Value| finalizers.as_array().is_some_and(|list| !list.is_empty());
    !finalizers(object).is_empty() || kind.resource() == NAMESPACES && held(&object["spec"]["finalizers"])
}

/// Whether an object may be deleted at all.
pub fn check_deletion(kind: &Kind, name: &str) -> Result<(), Failure> {
    if kind.resource() == NAMESPACES && NAMESPACES_AT_START.contains(&name) {
        return Err(Failure::forbidden_for(kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn encode_secret(object: &mut Value) {
    let plain = object.as_object_mut().and_then(|fields| fields.remove("stringData"));
    if let Some(Value::Object(plain)) = plain {
        if !object["data"].is_object() {
            object["data"] = json!({});
        }
        for (name, value) in plain {
            object["data"][name] = match value {
                Value::String(text) => json!(BASE64_STANDARD.encode(text)),
                other => other,
            };
        }
    }
    if object["type"].is_null() {
        object["type"] = json!("Opaque");
    }
}

/// What was once said to be immutable stays so.
fn check_immutable(kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return Ok(());
    };
    for field in ["immutable", "data", "binaryData", "type"] {
        if old[field] != object[field] {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let detail = "Forbidden: field is immutable when `immutable` is set";
            return Err(Failure::invalid_field(kind, name, field, FieldErrorKind::Forbidden, detail));
        }
    }
    Ok(())
}

fn prepare_definition(kind: &Kind, object: &mut Value, old: Option<&Value>, now: Timestamp) -> Result<(), Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let invalid = |path: &str, detail: String| {
        Failure::invalid_field(kind, &name, path, FieldErrorKind::Invalid, format!("Invalid value: {detail}"))
    };
    let served = Kind::served_by_crd(object).map_err(|error| invalid(&error.path, error.detail))?;
    for path in ["spec.group", "spec.scope", "spec.names.kind", "spec.names.plural"] {
        let (before, after) = (old.and_then(|old| lookup(old, path)), lookup(object, path));
        if let Some(before) = before.filter(|before| Some(*before) != after) {
            return Err(invalid(
                path,
                format!("{}: field is immutable, and was {before}", after.unwrap_or(&Value::Null)),
            ));
        }
    }
    for kind in &served {
        let fault = kind.schema.as_ref().and_then(|schema| schema.faults().first());
        // Kubernetes refuses it here, and so no object is refused for it later.
        if let Some(fault) = fault {
            let versions = object["spec"]["versions"].as_array().into_iter().flatten();
            let i = versions.take_while(|version| version["name"] != kind.version.as_str()).count();
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema.{}", fault.path);
            return Err(invalid(&path, fault.why.to_string()));
        }
    }
    if served.iter().any(|kind| !kind.is_custom()) {
        return Err(invalid("spec.group", "this group is built in".to_owned()));
    }
    let storage = Kind::from_crd(object).map_err(|error| invalid(&error.path, error.detail))?;
    let names = &mut object["spec"]["names"];
    names["singular"] = json!(storage.singular);
    names["listKind"] = json!(storage.list_kind);
    let accepted = names.clone();
    if object["spec"]["conversion"].is_null() {
        object["spec"]["conversion"] = json!({"strategy": "None"});
    }
    if old.is_none_or(|old| old["status"]["conditions"].is_null()) {
        let at = rfc3339(now);
        let condition = |r#type: &str, reason: &str, message: &str| json!({"type": r#type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at});
        object["status"]["conditions"] = json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]);
    }
    object["status"]["acceptedNames"] = accepted;
    object["status"]["storedVersions"] = json!([storage.version]);
    Ok(())
}
