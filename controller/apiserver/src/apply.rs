//! Server-side apply: who owns which field, and what an apply or an update makes of an object. Reads no store and no clock.
//!
//! The rules are those of Kubernetes' structured merge: an apply merges the manager's configuration into the live
//! object, removes what this manager applied before and nobody wants any more, and refuses to change what another
//! manager owns unless forced. Ownership is kept in `metadata.managedFields`.

mod compare;
mod field_set;
mod managers;
mod merge;
mod shape;

#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value, json};

use self::field_set::FieldSet;
pub use self::managers::Conflict;
use self::managers::{Managers, Operation, Owned, Owner};
use self::shape::Shape;
use crate::registry::Kind;
use crate::schema;

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Others own fields that this apply would change; Kubernetes answers 409 with these as causes.
    Conflicts(Vec<Conflict>),
    /// The configuration is not one; Kubernetes answers 400.
    Invalid(String),
}

/// The object that an apply of `config` by `manager` makes of `live`.
///
/// `config` need not name the object. With `subresource` `status` only `status` is applied; without, `status` is left
/// out if the kind has it as a subresource. What is returned still has to pass [`crate::schema::admit`]. An apply
/// that changes nothing returns `live` as it is, times included.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
    subresource: Option<&str>,
    now_rfc3339: &str,
) -> Result<Value, ApplyError> {
    let shape = Shape::resource(kind);
    let config = scoped(kind, live, config, subresource)?;
    let base = live.cloned().unwrap_or_else(|| json!({}));

    let mut managers = Managers::read(&base);
    if managers.is_empty() && live.is_some() {
        let fields = compare::fields_of(shape, &without_managed(&base)).stripped();
        managers.insert(Owner::before_first_apply(kind), owned(kind, fields, now_rfc3339));
    }
    let before = managers.clone();

    let mut merged = merge::merge(shape, Some(&base), &config).map_err(ApplyError::Invalid)?;
    let owner = Owner::new(kind, manager, Operation::Apply, subresource);
    let last = managers.remove(&owner);
    let fields = compare::fields_of(shape, &config).stripped();
    if let Some(last) = &last {
        let wanted = managers.fields().fold(fields.clone(), |wanted, other| wanted.union(other));
        merge::remove(shape, &mut merged, &last.fields, &wanted);
    }
    // The live object has its defaults: without them here, the same apply would be a change each time.
    schema::normalize(kind, &mut merged);

    let change = compare::compare(shape, &without_managed(&base), &without_managed(&merged)).stripped();
    let set = change.modified.union(&change.added);
    let conflicts = managers.conflicts(&set);
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.release(&set.union(&change.removed));

    let same_fields = last.as_ref().is_some_and(|last| last.fields == fields);
    let own = match last {
        Some(last) if same_fields && change.is_empty() => last,
        _ => owned(kind, fields, now_rfc3339),
    };
    managers.insert(owner, own);
    managers.bound();
    if let Some(live) = live
        && managers == before
        && without_managed(&merged) == without_managed(live)
    {
        return Ok(live.clone());
    }
    managers.write(&mut merged);
    Ok(merged)
}

/// Records in `new.metadata.managedFields` that an update by `manager` (create, replace, merge or JSON patch) made `new`
/// of `old`: every field it changed becomes this manager's. Without a change they stay as they were.
///
/// A client that sends `managedFields: [{}]` forgets all ownership, as in Kubernetes.
pub fn track_update(
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: Option<&str>,
    now_rfc3339: &str,
) {
    let shape = Shape::resource(kind);
    let nothing = json!({});
    let old = old.unwrap_or(&nothing);
    let sent = new.pointer("/metadata/managedFields").and_then(Value::as_array).filter(|_| subresource.is_none());
    if sent.is_some_and(|sent| *sent == [json!({})]) {
        Managers::default().write(new);
        return;
    }
    let sent_managers = Managers::read(new);
    let sent_is_used = subresource.is_none() && !sent_managers.is_empty();
    let mut managers = if sent_is_used { sent_managers } else { Managers::read(old) };

    let change = compare::compare(shape, &without_managed(old), &without_managed(new)).stripped();
    if change.is_empty() {
        if !sent_is_used {
            copy_managed(old, new);
        }
        return;
    }
    let owner = Owner::new(kind, manager, Operation::Update, subresource);
    let own = managers.remove(&owner).map(|own| own.fields).unwrap_or_default();
    let set = change.modified.union(&change.added);
    let gone = set.union(&change.removed);
    managers.release(&gone);
    let fields = own.difference(&change.removed).union(&set);
    managers.insert(owner, owned(kind, fields, now_rfc3339));
    managers.bound();
    managers.write(new);
}

/// The part of `config` that an apply may own, or why it is no configuration.
fn scoped(kind: &Kind, live: Option<&Value>, config: &Value, subresource: Option<&str>) -> Result<Value, ApplyError> {
    let invalid = |text: &str| ApplyError::Invalid(text.to_owned());
    let Some(fields) = config.as_object() else {
        return Err(invalid("an apply needs an object with apiVersion, kind and metadata"));
    };
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        Some(_) => return Err(invalid("metadata: must be an object")),
    };
    let managed = metadata.get("managedFields");
    if managed.is_some_and(|managed| !managed.is_null() && managed.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(invalid("metadata.managedFields must be nil; leave it out of what is applied"));
    }
    let status_alone = subresource == Some("status");
    let mut scoped: Map<String, Value> = fields
        .iter()
        .filter(|(name, _)| match name.as_str() {
            "apiVersion" | "kind" => live.is_none(),
            "metadata" => false,
            "status" => status_alone || !kind.status,
            _ => !status_alone,
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let metadata: Map<String, Value> = metadata
        .into_iter()
        .filter(|(name, _)| match name.as_str() {
            "name" | "namespace" | "generateName" => live.is_none(),
            other => !status_alone && !field_set::is_server_owned(other),
        })
        .collect();
    if !metadata.is_empty() || live.is_none() {
        scoped.insert("metadata".to_owned(), metadata.into());
    }
    Ok(scoped.into())
}

fn owned(kind: &Kind, fields: FieldSet, now: &str) -> Owned {
    Owned { fields, api_version: kind.api_version(), time: Some(now.to_owned()) }
}

fn without_managed(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn copy_managed(from: &Value, to: &mut Value) {
    let managed = from.pointer("/metadata/managedFields").cloned();
    if let Some(metadata) = to.get_mut("metadata").and_then(Value::as_object_mut) {
        match managed {
            Some(managed) => metadata.insert("managedFields".to_owned(), managed),
            None => metadata.remove("managedFields"),
        };
    }
}

// === impl Conflict ===

impl Conflict {
    /// The entry of a `Status`'s `details.causes`.
    pub fn cause(&self) -> Value {
        json!({
            "reason": "FieldManagerConflict",
            "message": format!("conflict with {}", self.owner),
            "field": self.field,
        })
    }
}

// === impl ApplyError ===

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::Conflicts(conflicts) => {
                if let [only] = conflicts.as_slice() {
                    return write!(f, "Apply failed with 1 conflict: conflict with {}: {}", only.owner, only.field);
                }
                write!(f, "Apply failed with {} conflicts:", conflicts.len())?;
                let mut owner = None;
                for conflict in conflicts {
                    if owner != Some(&conflict.owner) {
                        let separator = if owner.is_none() { " " } else { "\n" };
                        write!(f, "{separator}conflicts with {}:", conflict.owner)?;
                        owner = Some(&conflict.owner);
                    }
                    write!(f, "\n- {}", conflict.field)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ApplyError {}
