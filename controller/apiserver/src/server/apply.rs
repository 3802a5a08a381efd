//! Apply through the endpoint: one manager's configuration creates an object, or changes it.

use http::StatusCode;
use serde_json::{Value, json};

use super::failure::Failure;
use super::form::metadata_mut;
use super::lifetime::rfc3339;
use super::request::Subresource;
use super::scale;
use super::write::{Ownership, Write, Written, create, update};
use crate::store::Transaction;

/// Server-side apply: creates what is not there, changes what is.
pub fn apply(transaction: &mut Transaction, write: &Write, config: Value, force: bool) -> Result<Written, Failure> {
    let kind = write.kind.clone();
    let now = rfc3339(write.now);
    let name = write.key.name.clone();
    let merge = |live: Option<&Value>, config: &Value| {
        crate::apply::apply(&kind, live, config, &write.manager, force, write.subresource.name(), &now)
            .map_err(|error| Failure::apply(&kind, &name, error))
    };
    if transaction.get(&write.key).is_none() && write.subresource == Subresource::Main {
        let config = named(config, write);
        let uid = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty());
        if let Some(uid) = uid {
            let detail =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Failure::conflict(&kind, &name, &detail));
        }
        let object = merge(None, &config)?;
        return create(transaction, write, object, Ownership::Applied);
    }
    update(transaction, write, Ownership::Applied, |old| match (&kind.scale, write.subresource) {
        (Some(paths), Subresource::Scale) => scale::write(&kind, paths, old, &config),
        _ => merge(Some(old), &named(config, write)),
    })
}

/// The configuration with the name and namespace of its URL, which it may leave out.
fn named(mut config: Value, write: &Write) -> Value {
    let metadata = metadata_mut(&mut config);
    metadata.entry("name").or_insert_with(|| json!(write.key.name));
    if write.kind.namespaced {
        metadata.entry("namespace").or_insert_with(|| json!(write.key.namespace));
    }
    config
}

/// Whether a body can be applied at all, and by whom.
pub fn check(manager: Option<&str>, config: &Value) -> Result<(), Failure> {
    if manager.is_none() {
        let message =
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message));
    }
    if !config.is_object() {
        return Err(Failure::bad_request("the body of an apply must be one object"));
    }
    let managed = &config["metadata"]["managedFields"];
    if !managed.is_null() && managed.as_array().is_none_or(|list| !list.is_empty()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}
