//! Identity: the name and the metadata of an object, which no write may change once they are given.

use serde_json::Value;

use super::failure::Failure;
use super::form::metadata_mut;
use super::lifetime::{finalizers, is_leaving};
use super::random;

use crate::registry::Kind;
use crate::schema::FieldErrorKind;
use crate::store::{Key, Transaction};

/// The fields of metadata that the server alone sets.
pub const SYSTEM_FIELDS: [&str; 6] =
    ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"];

/// The key of a new object: the name of its URL, of its body, or one that is made.
pub fn name_of_new(transaction: &Transaction, kind: &Kind, asked: &Key, object: &mut Value) -> Result<Key, Failure> {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    if kind.namespaced && !text("namespace").is_empty() && text("namespace") != asked.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let mut key = asked.clone();
    if !key.name.is_empty() {
        check_name(&key.name, text("name"))?;
    } else if !text("name").is_empty() {
        key.name = text("name").to_owned();
    } else if !text("generateName").is_empty() {
        // Kubernetes shortens the given part so that the whole stays a label value.
        let base: String = text("generateName").chars().take(58).collect();
        for _ in 0..8 {
            key.name = format!("{base}{}", random::suffix());
            if transaction.get(&key).is_none() {
                break;
            }
        }
    } else {
        let detail = "Required value: name or generateName is required";
        return Err(Failure::invalid_field(kind, "", "metadata.name", FieldErrorKind::Required, detail));
    }
    Ok(key)
}

fn check_name(url: &str, body: &str) -> Result<(), Failure> {
    if body.is_empty() || body == url {
        return Ok(());
    }
    Err(Failure::bad_request(format!("the name of the object ({body}) does not match the name on the URL ({url})")))
}

/// Whether `new` is meant for the object that is there, and for the version that it read.
pub fn check_identity(kind: &Kind, key: &Key, old: &Value, new: &Value) -> Result<(), Failure> {
    let (name, metadata) = (&key.name, &new["metadata"]);
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    check_name(name, text("name"))?;
    if !text("namespace").is_empty() && text("namespace") != key.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let uid = old["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let detail = format!("Precondition failed: UID in precondition: {}, UID in object meta: {uid}", text("uid"));
        return Err(Failure::conflict(kind, name, &detail));
    }
    match text("resourceVersion") {
        "" | "0" => Ok(()),
        version if old["metadata"]["resourceVersion"] == version => Ok(()),
        version if version.parse::<u64>().is_err() => {
            let detail = format!("Invalid value: \"{version}\": must be a whole number");
            Err(Failure::invalid_field(kind, name, "metadata.resourceVersion", FieldErrorKind::Invalid, detail))
        }
        _ => Err(Failure::modified(kind, name)),
    }
}

/// Puts back what the server alone sets; a leaving object gets no new finalizers.
pub fn keep_metadata(kind: &Kind, name: &str, old: &Value, new: &mut Value) -> Result<(), Failure> {
    let metadata = metadata_mut(new);
    metadata.retain(|_, value| !value.is_null());
    for field in SYSTEM_FIELDS.into_iter().chain(["name", "namespace", "resourceVersion"]) {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    if is_leaving(old) {
        let had = finalizers(old);
        let added: Vec<String> =
            finalizers(new).iter().filter(|f| !had.contains(f)).map(|f| format!("{f:?}")).collect();
        if !added.is_empty() {
            let detail = format!(
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            return Err(Failure::invalid_field(kind, name, "metadata.finalizers", FieldErrorKind::Forbidden, detail));
        }
    }
    Ok(())
}
