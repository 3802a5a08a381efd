//! Deletes: now, or as soon as whoever holds the object lets it go.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::Failure;
use super::form::{served, stored};
use super::lifetime::{finalizers, is_leaving, rfc3339};
use super::special::{self, DEFINITION_FINALIZER, DEFINITIONS, NAMESPACES};
use super::write::has_generation;
use crate::registry::Kind;
use crate::store::{Key, Transaction};

/// Waits until those that block their owner are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Waits until dependents no longer name their owner.
pub const ORPHAN: &str = "orphan";

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

/// What a deletion left, in the served form.
#[derive(Clone, Debug)]
pub enum Deleted {
    Gone(Value),
    /// A finalizer holds the object.
    Waiting(Value),
}

// === impl DeleteOptions ===

impl DeleteOptions {
    /// Reads a body of `DeleteOptions`; null is none.
    pub fn parse(body: &Value) -> Result<DeleteOptions, Failure> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let propagation = match &body["propagationPolicy"] {
            Value::Null => match body["orphanDependents"].as_bool() {
                Some(true) => Some(Propagation::Orphan),
                Some(false) => Some(Propagation::Background),
                None => None,
            },
            policy => Some(Propagation::parse(policy.as_str().unwrap_or_default())?),
        };
        let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|value| value == "All"));
        Ok(DeleteOptions {
            propagation,
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            dry_run,
        })
    }
}

// === impl Propagation ===

impl Propagation {
    pub fn parse(policy: &str) -> Result<Propagation, Failure> {
        match policy {
            "Background" => Ok(Propagation::Background),
            "Foreground" => Ok(Propagation::Foreground),
            "Orphan" => Ok(Propagation::Orphan),
            other => Err(Failure::bad_request(format!(
                "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Background\", \"Foreground\", \"Orphan\""
            ))),
        }
    }
}

/// Deletes the object at `key`, or marks it as leaving while it is held.
pub fn delete(
    transaction: &mut Transaction,
    kind: &Kind,
    key: &Key,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Deleted, Failure> {
    let kept = transaction.get(key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
    check_preconditions(kind, key, &kept, options)?;
    special::check_deletion(kind, &key.name)?;
    let mut object = Value::clone(&kept);
    hold(kind, &mut object, options.propagation);
    let object = if special::is_held(kind, &object) {
        if !is_leaving(&object) {
            mark(kind, &mut object, now);
        }
        let object = if object == *kept { kept } else { transaction.put(key.clone(), object)? };
        Deleted::Waiting(served(kind, &object))
    } else {
        let gone: Option<Arc<Value>> = transaction.remove(key)?;
        Deleted::Gone(served(kind, gone.as_ref().unwrap_or(&kept)))
    };
    if options.dry_run {
        transaction.discard();
    }
    Ok(object)
}

/// Takes finalizers off an object that leaves; without any it is gone.
pub fn release(transaction: &mut Transaction, kind: &Kind, key: &Key, finalizer: &str) -> Result<(), Failure> {
    let Some(kept) = transaction.get(key) else {
        return Ok(());
    };
    let mut object = Value::clone(&kept);
    if let Some(list) = object["metadata"].get_mut("finalizers").and_then(Value::as_array_mut) {
        list.retain(|held| held != finalizer);
    }
    if kind.resource() == NAMESPACES
        && let Some(list) = object["spec"].get_mut("finalizers").and_then(Value::as_array_mut)
    {
        list.retain(|held| held != finalizer);
    }
    if is_leaving(&object) && !special::is_held(kind, &object) {
        transaction.remove(key)?;
    } else if object != *kept {
        transaction.put(key.clone(), stored(kind, object))?;
    }
    Ok(())
}

fn check_preconditions(kind: &Kind, key: &Key, object: &Value, options: &DeleteOptions) -> Result<(), Failure> {
    for (name, field, wanted) in
        [("UID", "uid", &options.uid), ("ResourceVersion", "resourceVersion", &options.resource_version)]
    {
        let actual = object["metadata"][field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted
            && wanted != actual
        {
            let detail =
                format!("Precondition failed: {name} in precondition: {wanted}, {name} in object meta: {actual}");
            return Err(Failure::conflict(kind, &key.name, &detail));
        }
    }
    Ok(())
}

/// Sets the finalizers that the policy asks for; without a policy those that are there decide.
fn hold(kind: &Kind, object: &mut Value, propagation: Option<Propagation>) {
    let mut held: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
    if let Some(propagation) = propagation {
        let wanted = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some(FOREGROUND),
            Propagation::Orphan => Some(ORPHAN),
        };
        held.retain(|finalizer| {
            ![FOREGROUND, ORPHAN].contains(&finalizer.as_str()) || Some(finalizer.as_str()) == wanted
        });
        held.extend(wanted.filter(|wanted| !held.iter().any(|held| held == wanted)).map(str::to_owned));
    }
    if kind.resource() == DEFINITIONS && !held.iter().any(|held| held == DEFINITION_FINALIZER) {
        held.push(DEFINITION_FINALIZER.to_owned());
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if held.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".to_owned(), json!(held));
        }
    }
}

fn mark(kind: &Kind, object: &mut Value, now: Timestamp) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = json!(rfc3339(now));
    metadata["deletionGracePeriodSeconds"] = json!(0);
    if has_generation(kind) {
        metadata["generation"] = json!(metadata["generation"].as_i64().unwrap_or(0) + 1);
    }
    if kind.resource() == NAMESPACES {
        object["status"]["phase"] = json!("Terminating");
    }
}
