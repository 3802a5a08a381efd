//! Managers: `metadata.managedFields` as a map from owner to fields.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use crate::registry::Kind;

/// A field that someone else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager's name.
    pub manager: String,
    /// `.spec.replicas`, `.spec.ports[name="http"].port`.
    pub field: String,
    /// The other manager as Kubernetes names it: `"kubectl-edit" using polyphony.dev/v1alpha1`.
    pub owner: String,
}

/// How an owner came to its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who owns: the same name is another owner by another operation or subresource, and if it updates, by another version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    operation: Operation,
    manager: String,
    /// Empty for applies: an apply in a new version takes the place of the one before.
    api_version: String,
    subresource: String,
}

/// What is owned, in which version it was written, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) fields: FieldSet,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
}

/// All owners of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(BTreeMap<Owner, Owned>);

/// How many owners by update are told apart, as in Kubernetes; older ones become one.
const MAX_UPDATE_MANAGERS: usize = 10;

fn version_of_owner(operation: Operation, api_version: &str) -> String {
    match operation {
        Operation::Apply => String::new(),
        Operation::Update => api_version.to_owned(),
    }
}

// === impl Owner ===

impl Owner {
    pub(super) fn new(kind: &Kind, manager: &str, operation: Operation, subresource: Option<&str>) -> Self {
        Self {
            operation,
            manager: manager.to_owned(),
            api_version: version_of_owner(operation, &kind.api_version()),
            subresource: subresource.unwrap_or_default().to_owned(),
        }
    }

    /// Who owns what was there before ownership was kept.
    pub(super) fn before_first_apply(kind: &Kind) -> Self {
        Self::new(kind, "before-first-apply", Operation::Update, None)
    }

    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

// === impl Managers ===

impl Managers {
    /// Reads an object's `metadata.managedFields`; entries that are not of that form are left out.
    pub(super) fn read(object: &Value) -> Self {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        let mut managers = Self::default();
        for entry in entries.into_iter().flatten() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            let operation = match text("operation") {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => continue,
            };
            let api_version = text("apiVersion").unwrap_or_default().to_owned();
            let owner = Owner {
                operation,
                manager: text("manager").unwrap_or_default().to_owned(),
                api_version: version_of_owner(operation, &api_version),
                subresource: text("subresource").unwrap_or_default().to_owned(),
            };
            let fields = entry.get("fieldsV1").map(FieldSet::from_fields_v1).unwrap_or_default();
            managers.insert(owner, Owned { fields, api_version, time: text("time").map(str::to_owned) });
        }
        managers
    }

    /// Writes `metadata.managedFields`: applies first, then by time and name.
    pub(super) fn write(&self, object: &mut Value) {
        let mut entries: Vec<(&Owner, &Owned)> = self.0.iter().collect();
        entries.sort_by_key(|(owner, owned)| (owner.operation, &owned.time, &owner.manager));
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|(owner, owned)| {
                let mut entry = Map::new();
                let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
                put("manager", owner.manager.as_str().into());
                put("operation", format!("{:?}", owner.operation).into());
                put("apiVersion", owned.api_version.as_str().into());
                put("fieldsType", "FieldsV1".into());
                put("fieldsV1", owned.fields.to_fields_v1());
                if let Some(time) = &owned.time {
                    put("time", time.as_str().into());
                }
                if !owner.subresource.is_empty() {
                    put("subresource", owner.subresource.as_str().into());
                }
                entry.into()
            })
            .collect();
        let Some(object) = object.as_object_mut() else {
            return;
        };
        let metadata = object.entry("metadata").or_insert_with(|| Map::new().into());
        let Some(metadata) = metadata.as_object_mut() else {
            return;
        };
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), entries.into());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An owner of nothing is none.
    pub(super) fn insert(&mut self, owner: Owner, owned: Owned) {
        if owned.fields.is_empty() {
            self.0.remove(&owner);
        } else {
            self.0.insert(owner, owned);
        }
    }

    pub(super) fn remove(&mut self, owner: &Owner) -> Option<Owned> {
        self.0.remove(owner)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &FieldSet> {
        self.0.values().map(|owned| &owned.fields)
    }

    /// Every owner of a field in `changed`, with the field.
    pub(super) fn conflicts(&self, changed: &FieldSet) -> Vec<Conflict> {
        let conflicts = self.0.iter().flat_map(|(owner, owned)| {
            owned.fields.intersection(changed).paths().into_iter().map(move |field| Conflict {
                manager: owner.manager.clone(),
                field,
                owner: owner.shown(),
            })
        });
        conflicts.collect()
    }

    /// Nobody owns these any more.
    pub(super) fn release(&mut self, fields: &FieldSet) {
        for owned in self.0.values_mut() {
            owned.fields = owned.fields.difference(fields);
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Makes the oldest owners by update one while there are too many.
    pub(super) fn bound(&mut self) {
        loop {
            let mut updates: Vec<(&Option<String>, &Owner)> = self
                .0
                .iter()
                .filter(|(owner, _)| owner.operation == Operation::Update)
                .map(|(owner, owned)| (&owned.time, owner))
                .collect();
            if updates.len() <= MAX_UPDATE_MANAGERS {
                return;
            }
            updates.sort();
            let (first, second) = (updates[0].1.clone(), updates[1].1.clone());
            let (Some(first), Some(second_owned)) = (self.0.remove(&first), self.0.remove(&second)) else {
                return;
            };
            let ancient = Owner { manager: "ancient-changes".to_owned(), ..second };
            let mut fields = first.fields.union(&second_owned.fields);
            if let Some(before) = self.0.remove(&ancient) {
                fields = fields.union(&before.fields);
            }
            self.0.insert(ancient, Owned { fields, ..second_owned });
        }
    }
}
