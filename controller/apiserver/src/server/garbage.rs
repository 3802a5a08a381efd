//! Garbage: dependents follow their owners, contents follow their namespace, objects follow their definition.
//!
//! Level-triggered: a plan is made from all that is there, so that nothing is missed by a restart. A step that turns out
//! to be out of date when it is taken does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::delete::{self, DeleteOptions, FOREGROUND, ORPHAN, Propagation};
use super::failure::Failure;
use super::identity::finalizers;
use super::request::storage_resource;
use super::special::{DEFINITION_FINALIZER, DEFINITIONS, NAMESPACES};
use super::write::is_leaving;
use crate::registry::{Kind, Registry};
use crate::store::{Key, Transaction};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Delete {
        key: Key,
        uid: String,
        propagation: Option<Propagation>,
    },
    /// Remove the owner references with these uids.
    Disown {
        key: Key,
        uid: String,
        owners: BTreeSet<String>,
    },
    /// Take this finalizer off.
    Release {
        key: Key,
        finalizer: &'static str,
    },
}

type Objects = [(Key, Arc<Value>)];

/// What has to be done, given everything that is stored. Empty when all is in order.
pub fn plan(registry: &Registry, objects: &Objects) -> Vec<Step> {
    let kinds = by_resource(registry);
    let index: BTreeMap<&Key, &Value> = objects.iter().map(|(key, object)| (key, &**object)).collect();
    let mut steps = Vec::new();
    let mut has_dependents: BTreeSet<&str> = BTreeSet::new();
    let mut blocked: BTreeSet<&str> = BTreeSet::new();
    // Two that own each other would wait for each other for ever.
    let mut awaited_by_dependents: BTreeSet<&str> = BTreeSet::new();
    for (_, object) in objects {
        for owner in owners(object) {
            let uid = text(owner, "uid");
            has_dependents.insert(uid);
            if owner["blockOwnerDeletion"] == true {
                blocked.insert(uid);
            }
            if is_leaving(object) && finalizers(object).contains(&FOREGROUND) {
                awaited_by_dependents.insert(uid);
            }
        }
    }
    let is_leaving_in =
        |resource: &str, name: &str| index.get(&Key::new(resource, "", name)).is_some_and(|object| is_leaving(object));
    for (key, object) in objects {
        let uid = text(&object["metadata"], "uid");
        let held = finalizers(object);
        let leaving = is_leaving(object);
        if leaving && held.contains(&FOREGROUND) && !blocked.contains(uid) {
            steps.push(Step::Release { key: key.clone(), finalizer: FOREGROUND });
        }
        if leaving && held.contains(&ORPHAN) && !has_dependents.contains(uid) {
            steps.push(Step::Release { key: key.clone(), finalizer: ORPHAN });
        }
        if leaving && key.resource == NAMESPACES && !objects.iter().any(|(other, _)| other.namespace == key.name) {
            steps.push(Step::Release { key: key.clone(), finalizer: "kubernetes" });
        }
        if leaving && key.resource == DEFINITIONS && !objects.iter().any(|(other, _)| other.resource == key.name) {
            steps.push(Step::Release { key: key.clone(), finalizer: DEFINITION_FINALIZER });
        }
        let home_leaves = !key.namespace.is_empty() && is_leaving_in(NAMESPACES, &key.namespace);
        if !leaving && (home_leaves || is_leaving_in(DEFINITIONS, &key.resource)) {
            steps.push(Step::Delete { key: key.clone(), uid: uid.to_owned(), propagation: None });
            continue;
        }
        steps.extend(follow_owners(
            registry,
            &kinds,
            &index,
            key,
            object,
            has_dependents.contains(uid) && !awaited_by_dependents.contains(uid),
        ));
    }
    steps
}

/// What the owners of one object mean for it; `may_wait` is whether it can wait for dependents of its own.
fn follow_owners(
    registry: &Registry,
    kinds: &BTreeMap<String, Arc<Kind>>,
    index: &BTreeMap<&Key, &Value>,
    key: &Key,
    object: &Value,
    may_wait: bool,
) -> Option<Step> {
    let (mut solid, mut waiting) = (0, false);
    let (mut loose, mut orphaning) = (BTreeSet::new(), BTreeSet::new());
    for owner in owners(object) {
        let uid = text(owner, "uid").to_owned();
        let Some(kind) = registry.by_kind(text(owner, "apiVersion"), text(owner, "kind")) else {
            // Of a kind that is not served nobody can say that it is gone.
            solid += 1;
            continue;
        };
        let namespace = if kind.namespaced { key.namespace.as_str() } else { "" };
        let owner_key = Key::new(&storage_resource(kind), namespace, text(owner, "name"));
        match index.get(&owner_key).filter(|found| found["metadata"]["uid"] == uid.as_str()) {
            None => {
                loose.insert(uid);
            }
            Some(found) if is_leaving(found) && finalizers(found).contains(&ORPHAN) => {
                orphaning.insert(uid);
            }
            Some(found) if is_leaving(found) && finalizers(found).contains(&FOREGROUND) => {
                waiting = true;
                loose.insert(uid);
            }
            Some(_) => solid += 1,
        }
    }
    let uid = text(&object["metadata"], "uid").to_owned();
    if !orphaning.is_empty() {
        return Some(Step::Disown { key: key.clone(), uid, owners: orphaning });
    }
    if loose.is_empty() {
        return None;
    }
    if solid > 0 {
        return Some(Step::Disown { key: key.clone(), uid, owners: loose });
    }
    if is_leaving(object) || !kinds.contains_key(&key.resource) {
        return None;
    }
    let propagation = (waiting && may_wait).then_some(Propagation::Foreground);
    Some(Step::Delete { key: key.clone(), uid, propagation })
}

/// Takes the steps, each only if it still concerns the same object.
pub fn take(
    transaction: &mut Transaction,
    registry: &Registry,
    steps: Vec<Step>,
    now: Timestamp,
) -> Result<(), Failure> {
    let kinds = by_resource(registry);
    for step in steps {
        let (Step::Delete { key, .. } | Step::Disown { key, .. } | Step::Release { key, .. }) = &step;
        let (Some(kind), Some(object)) = (kinds.get(&key.resource), transaction.get(key)) else {
            continue;
        };
        match step {
            Step::Delete { key, uid, propagation } if object["metadata"]["uid"] == uid.as_str() => {
                let options = DeleteOptions { propagation, ..DeleteOptions::default() };
                delete::delete(transaction, kind, &key, &options, now)?;
            }
            Step::Disown { key, uid, owners } if object["metadata"]["uid"] == uid.as_str() => {
                let mut object = Value::clone(&object);
                if let Some(list) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) {
                    list.retain(|owner| !owners.contains(text(owner, "uid")));
                }
                transaction.put(key, object)?;
            }
            Step::Release { key, finalizer } => delete::release(transaction, kind, &key, finalizer)?,
            Step::Delete { .. } | Step::Disown { .. } => {}
        }
    }
    Ok(())
}

/// One kind for each stored resource, whatever its version.
fn by_resource(registry: &Registry) -> BTreeMap<String, Arc<Kind>> {
    // Events of both groups are kept as core events, and those come first.
    let mut kinds = BTreeMap::new();
    for kind in registry.kinds() {
        kinds.entry(storage_resource(kind)).or_insert_with(|| kind.clone());
    }
    kinds
}

fn owners(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
