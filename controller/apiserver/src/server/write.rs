//! Writes: what a create or an update makes of an object, inside one transaction of the store.
//!
//! The order is Kubernetes': identity, preconditions, what the endpoint may change, schema, generation, ownership.
//! A write that changes nothing is answered with what is there, and leaves revision and watchers alone.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::form::{metadata_mut, served, stored};
use super::identity::{SYSTEM_FIELDS, check_identity, keep_metadata, name_of_new};
use super::lifetime::{is_leaving, rfc3339};
use super::random;
use super::request::Subresource;
use super::special;
use crate::registry::Kind;
use crate::schema::{FieldErrorKind, FieldValidation, admit};
use crate::store::{Key, Transaction};
use crate::{apply, schema};

/// One write: at which object, by whom, how checked.
#[derive(Clone, Debug)]
pub struct Write {
    pub kind: Arc<Kind>,
    pub key: Key,
    pub subresource: Subresource,
    pub manager: String,
    pub validation: FieldValidation,
    /// Faults found while the body was decoded.
    pub faults: Vec<String>,
    pub dry_run: bool,
    pub now: Timestamp,
}

/// What a write left.
#[derive(Clone, Debug)]
pub struct Written {
    /// In the served form.
    pub object: Value,
    pub created: bool,
    pub warnings: Vec<String>,
}

/// Who keeps the record of field owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The write takes what it changed.
    Track,
    /// The new object already carries the record: it was applied.
    Applied,
}

/// Creates the object of `write.key`; an empty name is made from `metadata.generateName`.
pub fn create(
    transaction: &mut Transaction,
    write: &Write,
    mut object: Value,
    ownership: Ownership,
) -> Result<Written, Failure> {
    let kind = &*write.kind;
    check_type(kind, &object)?;
    let key = name_of_new(transaction, kind, &write.key, &mut object)?;
    special::check_place(transaction, kind, &key)?;
    if transaction.get(&key).is_some() {
        return Err(Failure::already_exists(kind, &key.name));
    }
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty() && version != "0") {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = metadata_mut(&mut object);
    for field in SYSTEM_FIELDS {
        metadata.remove(field);
    }
    metadata.remove("resourceVersion");
    metadata.retain(|_, value| !value.is_null());
    metadata.insert("name".to_owned(), json!(key.name));
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), json!(key.namespace));
    } else {
        metadata.remove("namespace");
    }
    metadata.insert("uid".to_owned(), json!(random::uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(rfc3339(write.now)));
    if has_generation(kind) {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if kind.status
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    special::prepare(kind, &mut object, None, write.now)?;
    let warnings = admitted(write, &mut object, None)?;
    if ownership == Ownership::Track {
        track(write, None, &mut object);
    }
    let object = transaction.put(key, stored(kind, object))?;
    finish(transaction, write, &object, true, warnings)
}

/// Changes the object of `write.key` to what `change` makes of it, as far as the endpoint may.
pub fn update(
    transaction: &mut Transaction,
    write: &Write,
    ownership: Ownership,
    change: impl FnOnce(&Value) -> Result<Value, Failure>,
) -> Result<Written, Failure> {
    let kind = &*write.kind;
    let name = &write.key.name;
    let Some(kept) = transaction.get(&write.key) else {
        return Err(Failure::not_found(kind, name));
    };
    let old = served(kind, &kept);
    let mut new = change(&old)?;
    check_type(kind, &new)?;
    check_identity(kind, &write.key, &old, &new)?;
    if write.subresource == Subresource::Status {
        let mut object = old.clone();
        object["status"] = new["status"].take();
        if object["status"].is_null()
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        set_or_remove(&mut object["metadata"], "managedFields", new["metadata"]["managedFields"].take());
        new = object;
    } else if kind.status {
        set_or_remove(&mut new, "status", old["status"].clone());
    }
    keep_metadata(kind, name, &old, &mut new)?;
    special::prepare(kind, &mut new, Some(&old), write.now)?;
    let warnings = admitted(write, &mut new, Some(&old))?;
    if has_generation(kind) && desire(kind, &old) != desire(kind, &new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation + 1);
    }
    if ownership == Ownership::Track {
        track(write, Some(&old), &mut new);
    }
    if is_same(&old, &new) {
        return finish(transaction, write, &kept, false, warnings);
    }
    let object = if is_leaving(&new) && !special::is_held(kind, &new) {
        // The last finalizer went: so does the object.
        transaction.remove(&write.key)?.ok_or_else(|| Failure::not_found(kind, name))?;
        let revision = transaction.next_revision() - 1;
        new["metadata"]["resourceVersion"] = json!(revision.to_string());
        Arc::new(stored(kind, new))
    } else {
        transaction.put(write.key.clone(), stored(kind, new))?
    };
    finish(transaction, write, &object, false, warnings)
}

/// Whether `metadata.generation` counts the changes of what is desired: not of the simple built-in kinds.
pub fn has_generation(kind: &Kind) -> bool {
    kind.is_custom() || kind.kind == "CustomResourceDefinition"
}

/// Makes the answer; a dry run keeps nothing, and shows the version of what is there.
fn finish(
    transaction: &mut Transaction,
    write: &Write,
    object: &Value,
    created: bool,
    warnings: Vec<String>,
) -> Result<Written, Failure> {
    let mut object = served(&write.kind, object);
    if write.dry_run {
        transaction.discard();
        let key = Key::new(&write.key.resource, &write.key.namespace, name_of(&object));
        let kept = transaction.before(&key).map(|kept| kept["metadata"]["resourceVersion"].clone());
        set_or_remove(&mut object["metadata"], "resourceVersion", kept.unwrap_or_default());
    }
    Ok(Written { object, created, warnings })
}

fn check_type(kind: &Kind, object: &Value) -> Result<(), Failure> {
    if !object.is_object() {
        return Err(Failure::bad_request(format!("the body must be one {} as an object", kind.kind)));
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (expected, actual) = (kind.api_version(), text("apiVersion"));
    if actual != expected {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({actual}) does not match the expected API version ({expected})"
        )));
    }
    if text("kind") != kind.kind {
        return Err(Failure::bad_request(format!(
            "the kind in the data ({}) does not match the expected kind ({})",
            text("kind"),
            kind.kind
        )));
    }
    Ok(())
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn admitted(write: &Write, object: &mut Value, old: Option<&Value>) -> Result<Vec<String>, Failure> {
    let kind = &*write.kind;
    let admitted = admit(kind, object, old, write.validation);
    let strict = write.validation == FieldValidation::Strict;
    match admitted {
        Ok(_) if strict && !write.faults.is_empty() => Err(Failure::strict(kind, &write.faults)),
        Ok(mut warnings) => {
            if write.validation == FieldValidation::Warn {
                warnings.extend(write.faults.iter().cloned());
            }
            Ok(warnings)
        }
        Err(errors) if errors.iter().all(|error| error.kind == FieldErrorKind::Unknown) => {
            let mut faults = write.faults.clone();
            faults.extend(errors.into_iter().map(|error: schema::FieldError| error.detail));
            Err(Failure::strict(kind, &faults))
        }
        Err(errors) => Err(Failure::invalid(kind, name_of(object), &errors)),
    }
}

fn track(write: &Write, old: Option<&Value>, new: &mut Value) {
    // An event has two shapes, and nobody shares one.
    if write.kind.plural != "events" {
        let now = rfc3339(write.now);
        apply::track_update(&write.kind, old, new, &write.manager, write.subresource.name(), &now);
    }
}

/// What the generation counts: all but metadata, and status where it is written apart.
fn desire(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("metadata");
        if kind.status {
            fields.remove("status");
        }
    }
    object
}

/// Equal but for the times at which owners last wrote.
fn is_same(old: &Value, new: &Value) -> bool {
    let without_times = |object: &Value| {
        let mut object = object.clone();
        for entry in object["metadata"].get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
        }
        object
    };
    without_times(old) == without_times(new)
}

fn set_or_remove(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        if value.is_null() {
            fields.remove(field);
        } else {
            fields.insert(field.to_owned(), value);
        }
    }
}
