//! Written: what a round wrote, as the API answered it. Where the watches are behind, that counts all the same.

use std::sync::Arc;

use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};

use super::observe::{ObjectKey, Observed};
use super::stores::{Stores, find};

/// Something that a round wrote and that the stores should know before the next one.
#[derive(Clone, Debug)]
pub struct Written {
    pub key: ObjectKey,
    pub object: Object,
    /// Whether it is new, so that its absence means that the store is behind.
    pub is_new: bool,
}

/// An object as the API has it; `None` where it has none any more.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Phone(Option<Arc<Phone>>),
    Model(Option<Arc<Model>>),
    Deployment(Option<Arc<InferenceDeployment>>),
    Placement(Option<Arc<SegmentPlacement>>),
}

// === impl Written ===

impl Written {
    /// What the API has at `key` now.
    pub fn now<K>(key: ObjectKey, object: Option<K>) -> Self
    where
        Object: From<Option<Arc<K>>>,
    {
        Self { key, object: object.map(Arc::new).into(), is_new: false }
    }

    /// Whether both are writes of one object.
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.key == other.key && std::mem::discriminant(&self.object) == std::mem::discriminant(&other.object)
    }

    /// Whether the store has seen what was written.
    pub fn is_seen(&self, stores: &Stores) -> bool {
        match &self.object {
            Object::Phone(object) => self.is_in(&stores.phones, object.as_deref()),
            Object::Model(object) => self.is_in(&stores.models, object.as_deref()),
            Object::Deployment(object) => self.is_in(&stores.deployments, object.as_deref()),
            Object::Placement(object) => self.is_in(&stores.placements, object.as_deref()),
        }
    }

    fn is_in<K>(&self, store: &Store<K>, written: Option<&K>) -> bool
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let Some(seen) = find(store, &self.key) else {
            return !self.is_new;
        };
        let Some(written) = written else { return false };
        let number = |object: &K| object.resource_version().and_then(|text| text.parse::<u64>().ok());
        // Versions are opaque by contract, but every server that we know counts up; where one does not, a round is repeated.
        match (number(&seen), number(written)) {
            (Some(seen), Some(written)) => seen >= written,
            _ => seen.resource_version() == written.resource_version(),
        }
    }

    /// Puts it in place of what the watches show.
    pub fn put(&self, observed: &mut Observed) {
        let key = &self.key;
        match &self.object {
            Object::Phone(object) => {
                if let Some(seen) = observed.phones.get_mut(&key.name) {
                    seen.object.clone_from(object);
                }
            }
            Object::Model(Some(object)) => {
                if let Some(seen) = observed.models.get_mut(key) {
                    seen.object = object.clone();
                }
            }
            Object::Model(None) => drop(observed.models.remove(key)),
            Object::Deployment(Some(object)) => drop(observed.deployments.insert(key.clone(), object.clone())),
            Object::Deployment(None) => drop(observed.deployments.remove(key)),
            Object::Placement(Some(object)) => drop(observed.placements.insert(key.clone(), object.clone())),
            Object::Placement(None) => drop(observed.placements.remove(key)),
        }
    }
}

// === impl Object ===

impl From<Option<Arc<Phone>>> for Object {
    fn from(object: Option<Arc<Phone>>) -> Self {
        Self::Phone(object)
    }
}

impl From<Option<Arc<Model>>> for Object {
    fn from(object: Option<Arc<Model>>) -> Self {
        Self::Model(object)
    }
}

impl From<Option<Arc<InferenceDeployment>>> for Object {
    fn from(object: Option<Arc<InferenceDeployment>>) -> Self {
        Self::Deployment(object)
    }
}

impl From<Option<Arc<SegmentPlacement>>> for Object {
    fn from(object: Option<Arc<SegmentPlacement>>) -> Self {
        Self::Placement(object)
    }
}
