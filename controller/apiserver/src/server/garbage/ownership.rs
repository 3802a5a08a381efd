//! Ownership: who owns whom and what lies where, kept up change by change, and which objects have to be looked at again.
//!
//! A change that touches neither owners nor finalizers nor a deletion, such as any write of a status, makes nothing to
//! look at; any other costs what hangs together with the changed object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::server::lifetime::is_leaving;
use crate::server::special::{DEFINITIONS, NAMESPACES};
use crate::store::{Change, Event, Key, Snapshot};

/// Every object, found by key, by the uid of its owners, and by its namespace.
#[derive(Default)]
pub struct Ownership {
    objects: BTreeMap<Key, Arc<Value>>,
    keys: BTreeMap<String, Key>,
    dependents: BTreeMap<String, BTreeSet<Key>>,
    contents: BTreeMap<String, BTreeSet<Key>>,
    /// What may have become garbage since it was last asked for.
    doubtful: BTreeSet<Key>,
}

// === impl Ownership ===

impl Ownership {
    /// Of all that is stored; everything has to be looked at once.
    pub fn of(snapshot: Snapshot) -> Self {
        let mut ownership = Ownership::default();
        for (key, object) in snapshot.objects {
            ownership.doubtful.insert(key.clone());
            ownership.add(key, object);
        }
        ownership
    }

    /// Takes in one change.
    pub fn follow(&mut self, event: &Event) {
        let after = (event.change != Change::Deleted).then(|| event.object.clone());
        let before = match after {
            Some(ref after) => {
                let before = self.remove(&event.key);
                self.add(event.key.clone(), after.clone());
                before
            }
            None => self.remove(&event.key),
        };
        let is_definition = event.key.resource == DEFINITIONS;
        if !is_definition && before.is_some() && before.as_deref().map(bonds) == after.as_deref().map(bonds) {
            return;
        }
        self.doubt(&event.key, before.as_deref(), after.as_deref());
    }

    /// Everything has to be looked at again.
    pub fn doubt_everything(&mut self) {
        self.doubtful.extend(self.objects.keys().cloned());
    }

    /// What has to be looked at, each object once.
    pub fn take_doubtful(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.doubtful)
    }

    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key).map(|object| &**object)
    }

    /// The objects that name this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Value> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|key| self.get(key))
    }

    pub fn is_empty_namespace(&self, name: &str) -> bool {
        !self.contents.contains_key(name)
    }

    pub fn is_empty_resource(&self, resource: &str) -> bool {
        self.of_resource(resource).next().is_none()
    }

    fn of_resource(&self, resource: &str) -> impl Iterator<Item = &Key> {
        let from = Key::new(resource, "", "");
        self.objects.range(from..).map(|(key, _)| key).take_while(move |key| key.resource == resource)
    }

    fn add(&mut self, key: Key, object: Arc<Value>) {
        self.keys.insert(uid(&object).to_owned(), key.clone());
        for owner in owner_uids(&object) {
            self.dependents.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        if !key.namespace.is_empty() {
            self.contents.entry(key.namespace.clone()).or_default().insert(key.clone());
        }
        self.objects.insert(key, object);
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let object = self.objects.remove(key)?;
        self.keys.remove(uid(&object));
        for owner in owner_uids(&object) {
            take_out(&mut self.dependents, owner, key);
        }
        take_out(&mut self.contents, &key.namespace, key);
        Some(object)
    }

    /// Doubts the changed object, its owners, its dependents, and what it lies in or holds.
    fn doubt(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        if key.resource == DEFINITIONS {
            // It holds its objects, which may be any number, and decides which kinds there are.
            self.doubt_everything();
            return;
        }
        let mut found = BTreeSet::from([key.clone()]);
        for object in before.into_iter().chain(after) {
            found.extend(self.dependents.get(uid(object)).into_iter().flatten().cloned());
            found.extend(owner_uids(object).filter_map(|owner| self.keys.get(owner)).cloned());
        }
        if key.resource == NAMESPACES {
            found.extend(self.contents.get(&key.name).into_iter().flatten().cloned());
        }
        if after.is_none() {
            found.insert(Key::new(NAMESPACES, "", &key.namespace));
            found.insert(Key::new(DEFINITIONS, "", &key.resource));
        }
        self.doubtful.extend(found);
    }
}

fn take_out(index: &mut BTreeMap<String, BTreeSet<Key>>, at: &str, key: &Key) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

/// All of an object that decides whether it, or what hangs on it, is garbage.
fn bonds(object: &Value) -> (&Value, &Value, &Value, &Value, bool) {
    let metadata = &object["metadata"];
    let of_namespace = &object["spec"]["finalizers"];
    (&metadata["uid"], &metadata["ownerReferences"], &metadata["finalizers"], of_namespace, is_leaving(object))
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().filter_map(|owner| owner["uid"].as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn widget(name: &str) -> Key {
        Key::new("widgets.example.dev", "default", name)
    }

    fn object(name: &str, owners: &[&str], status: u32) -> Arc<Value> {
        let owners: Vec<Value> = owners.iter().map(|uid| json!({"uid": uid})).collect();
        Arc::new(json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners}, "status": status}))
    }

    /// `n` owners with ten dependents each, all in order.
    fn many(n: usize) -> Ownership {
        let mut objects = Vec::new();
        for owner in 0..n {
            let owner = format!("o{owner}");
            objects.push((widget(&owner), object(&owner, &[], 0)));
            for dependent in 0..10 {
                let name = format!("{owner}-{dependent}");
                objects.push((widget(&name), object(&name, &[&owner], 0)));
            }
        }
        let mut ownership = Ownership::of(Snapshot { revision: 1, objects });
        assert_eq!(ownership.take_doubtful().len(), n * 11);
        ownership
    }

    fn event(change: Change, name: &str, object: Arc<Value>) -> Event {
        Event { revision: 2, change, key: widget(name), object, previous: None }
    }

    #[test]
    fn a_write_of_a_status_makes_nothing_to_look_at() {
        let mut ownership = many(1000);
        ownership.follow(&event(Change::Modified, "o5-3", object("o5-3", &["o5"], 1)));
        ownership.follow(&event(Change::Modified, "o5", object("o5", &[], 1)));
        assert!(ownership.take_doubtful().is_empty());
    }

    #[test]
    fn a_deletion_costs_what_hangs_on_it() {
        let mut ownership = many(1000);
        ownership.follow(&event(Change::Deleted, "o5", object("o5", &[], 0)));
        let doubtful = ownership.take_doubtful();
        assert!((0..10).all(|n| doubtful.contains(&widget(&format!("o5-{n}")))));
        assert!(doubtful.len() <= 13, "{doubtful:?}");
        ownership.follow(&event(Change::Modified, "o6-1", object("o6-1", &["o7"], 0)));
        let doubtful: Vec<String> = ownership.take_doubtful().into_iter().map(|key| key.name).collect();
        assert_eq!(doubtful, ["o6", "o6-1", "o7"]);
    }
}
