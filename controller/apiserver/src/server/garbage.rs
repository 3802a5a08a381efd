//! Garbage: dependents follow their owners, contents follow their namespace, objects follow their definition.
//!
//! Level-triggered: a plan is made from what is there, of everything after a start and else of what a change touched, so
//! that nothing is missed by a restart. A step that turns out to be out of date when it is taken does nothing.

mod ownership;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::delete::{self, DeleteOptions, FOREGROUND, ORPHAN, Propagation};
use super::failure::Failure;
use super::lifetime::{finalizers, is_leaving};
use super::request::storage_resource;
use super::special::{DEFINITION_FINALIZER, DEFINITIONS, NAMESPACES};
use crate::registry::{Kind, Registry};
use crate::store::{Key, Transaction};

pub use ownership::Ownership;

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

/// What has to be done about the doubtful objects. Empty when all is in order.
pub fn plan(registry: &Registry, ownership: &Ownership, doubtful: &BTreeSet<Key>) -> Vec<Step> {
    let kinds = by_resource(registry);
    let survey = Survey { registry, kinds: &kinds, ownership };
    doubtful
        .iter()
        .filter_map(|key| Some((key, ownership.get(key)?)))
        .flat_map(|(key, object)| survey.steps(key, object))
        .collect()
}

struct Survey<'a> {
    registry: &'a Registry,
    kinds: &'a BTreeMap<String, Arc<Kind>>,
    ownership: &'a Ownership,
}

// === impl Survey ===

impl Survey<'_> {
    fn steps(&self, key: &Key, object: &Value) -> Vec<Step> {
        let mut steps = Vec::new();
        let uid = text(&object["metadata"], "uid");
        let leaving = is_leaving(object);
        if leaving {
            let releases = [
                (FOREGROUND, finalizers(object).contains(&FOREGROUND) && !self.is_blocked(uid)),
                (ORPHAN, finalizers(object).contains(&ORPHAN) && !self.has_dependents(uid)),
                ("kubernetes", key.resource == NAMESPACES && self.ownership.is_empty_namespace(&key.name)),
                (DEFINITION_FINALIZER, key.resource == DEFINITIONS && self.ownership.is_empty_resource(&key.name)),
            ];
            let due = releases.into_iter().filter(|(_, due)| *due);
            steps.extend(due.map(|(finalizer, _)| Step::Release { key: key.clone(), finalizer }));
        }
        let home_leaves = !key.namespace.is_empty() && self.leaves(NAMESPACES, &key.namespace);
        if !leaving && (home_leaves || self.leaves(DEFINITIONS, &key.resource)) {
            steps.push(Step::Delete { key: key.clone(), uid: uid.to_owned(), propagation: None });
            return steps;
        }
        steps.extend(self.follow_owners(key, object));
        steps
    }

    fn leaves(&self, resource: &str, name: &str) -> bool {
        self.ownership.get(&Key::new(resource, "", name)).is_some_and(is_leaving)
    }

    fn has_dependents(&self, uid: &str) -> bool {
        self.ownership.dependents(uid).next().is_some()
    }

    /// Whether a dependent holds the deletion of its owner up.
    fn is_blocked(&self, uid: &str) -> bool {
        let blocks = |owner: &Value| text(owner, "uid") == uid && owner["blockOwnerDeletion"] == true;
        self.ownership.dependents(uid).any(|dependent| owners(dependent).any(blocks))
    }

    /// Two that own each other would wait for each other for ever.
    fn is_awaited_by_dependents(&self, uid: &str) -> bool {
        self.ownership
            .dependents(uid)
            .any(|dependent| is_leaving(dependent) && finalizers(dependent).contains(&FOREGROUND))
    }

    /// What the owners of one object mean for it.
    fn follow_owners(&self, key: &Key, object: &Value) -> Option<Step> {
        let (mut solid, mut waiting) = (0, false);
        let (mut loose, mut orphaning) = (BTreeSet::new(), BTreeSet::new());
        for owner in owners(object) {
            let uid = text(owner, "uid").to_owned();
            let Some(kind) = self.registry.by_kind(text(owner, "apiVersion"), text(owner, "kind")) else {
                // Of a kind that is not served nobody can say that it is gone.
                solid += 1;
                continue;
            };
            let namespace = if kind.namespaced { key.namespace.as_str() } else { "" };
            let owner_key = Key::new(&storage_resource(kind), namespace, text(owner, "name"));
            match self.ownership.get(&owner_key).filter(|found| found["metadata"]["uid"] == uid.as_str()) {
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
        if is_leaving(object) || !self.kinds.contains_key(&key.resource) {
            return None;
        }
        let may_wait = self.has_dependents(&uid) && !self.is_awaited_by_dependents(&uid);
        let propagation = (waiting && may_wait).then_some(Propagation::Foreground);
        Some(Step::Delete { key: key.clone(), uid, propagation })
    }
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

#[cfg(test)]
mod tests;
