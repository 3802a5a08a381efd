//! Shown: objects as the API told them when it was asked, where its watches are behind: what was written and has not come back counts all
//! the same.

use std::sync::Arc;

use kube::{Api, Client};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};

use super::observe::{ObjectKey, Observed};
use super::stores::{Written, WrittenKind};

/// An object as the API has it; `None` where it has none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    Phone(Option<Arc<Phone>>),
    Model(Option<Arc<Model>>),
    Deployment(Option<Arc<InferenceDeployment>>),
    Placement(Option<Arc<SegmentPlacement>>),
}

// === impl Shown ===

impl Shown {
    /// Asks for what was written.
    ///
    /// # Errors
    /// When the API does not say.
    pub(super) async fn ask(client: &Client, written: &Written) -> Result<Self, kube::Error> {
        let (client, ObjectKey { namespace, name }) = (client.clone(), &written.key);
        Ok(match written.kind {
            WrittenKind::Phone => Self::Phone(Api::all(client).get_opt(name).await?.map(Arc::new)),
            WrittenKind::Model => Self::Model(Api::namespaced(client, namespace).get_opt(name).await?.map(Arc::new)),
            WrittenKind::Deployment => {
                Self::Deployment(Api::namespaced(client, namespace).get_opt(name).await?.map(Arc::new))
            }
            WrittenKind::Placement => {
                Self::Placement(Api::namespaced(client, namespace).get_opt(name).await?.map(Arc::new))
            }
        })
    }

    /// Puts it in place of what the watches show.
    pub(super) fn put(&self, key: &ObjectKey, observed: &mut Observed) {
        match self {
            Self::Phone(object) => {
                if let Some(seen) = observed.phones.get_mut(&key.name) {
                    seen.object.clone_from(object);
                }
            }
            Self::Model(Some(object)) => {
                if let Some(seen) = observed.models.get_mut(key) {
                    seen.object = object.clone();
                }
            }
            Self::Model(None) => drop(observed.models.remove(key)),
            Self::Deployment(Some(object)) => drop(observed.deployments.insert(key.clone(), object.clone())),
            Self::Deployment(None) => drop(observed.deployments.remove(key)),
            Self::Placement(Some(object)) => drop(observed.placements.insert(key.clone(), object.clone())),
            Self::Placement(None) => drop(observed.placements.remove(key)),
        }
    }
}
