//! Stores: what the API holds, kept current by watches.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::object_key::ObjectKey;
use super::reach::Reach;

/// A watch is begun anew after this: where the connection swallows everything, that is when it is noticed.
const WATCH_SECONDS: u32 = 20;

/// Everything that is watched.
pub struct Stores {
    pub phones: Store<Phone>,
    pub models: Store<Model>,
    pub deployments: Store<InferenceDeployment>,
    pub placements: Store<SegmentPlacement>,
    /// Woken by each change.
    pub changed: Arc<Notify>,
}

/// Something that a round wrote and that the stores should know before the next one.
#[derive(Clone, Debug)]
pub struct Written {
    pub kind: WrittenKind,
    pub key: ObjectKey,
    /// `None` when the object is gone.
    pub resource_version: Option<String>,
    /// Whether it is new, so that its absence means that the store is behind.
    pub is_new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenKind {
    Phone,
    Model,
    Deployment,
    Placement,
}

// === impl Stores ===

impl Stores {
    /// Begins to watch; the watches run on `tasks` until `stop`.
    pub fn start(client: &Client, reach: &Arc<Reach>, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            phones: keep(Api::all(client.clone()), &changed, reach, tasks, stop),
            models: keep(Api::all(client.clone()), &changed, reach, tasks, stop),
            deployments: keep(Api::all(client.clone()), &changed, reach, tasks, stop),
            placements: keep(Api::all(client.clone()), &changed, reach, tasks, stop),
            changed,
        }
    }

    /// Waits until everything has been listed once.
    ///
    /// # Errors
    /// When a watch has ended, which happens at shutdown only.
    pub async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.phones.wait_until_ready().await?;
        self.models.wait_until_ready().await?;
        self.deployments.wait_until_ready().await?;
        self.placements.wait_until_ready().await
    }

    /// Whether the store has seen what was written.
    pub fn has_seen(&self, written: &Written) -> bool {
        match written.kind {
            WrittenKind::Phone => has_seen(&self.phones, written),
            WrittenKind::Model => has_seen(&self.models, written),
            WrittenKind::Deployment => has_seen(&self.deployments, written),
            WrittenKind::Placement => has_seen(&self.placements, written),
        }
    }
}

/// The object at `key`.
pub fn find<K>(store: &Store<K>, key: &ObjectKey) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut reference = ObjectRef::new(&key.name);
    if !key.namespace.is_empty() {
        reference = reference.within(&key.namespace);
    }
    store.get(&reference)
}

fn has_seen<K>(store: &Store<K>, written: &Written) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let Some(object) = find(store, &written.key) else {
        return !written.is_new;
    };
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok());
    // Versions are opaque by contract, but every server that we know counts up; where one does not, a round is repeated.
    match (&written.resource_version, number(object.resource_version()), number(written.resource_version.clone())) {
        (None, _, _) => false,
        (_, Some(seen), Some(written)) => seen >= written,
        (written, _, _) => object.resource_version() == *written,
    }
}

fn keep<K>(
    api: Api<K>,
    changed: &Arc<Notify>,
    reach: &Arc<Reach>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let (changed, reach, stop) = (changed.clone(), reach.clone(), stop.clone());
    tasks.spawn(async move {
        let kind = K::kind(&());
        let events = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff().reflect(writer);
        let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    reach.note_answer();
                    if !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_)) {
                        changed.notify_one();
                    }
                }
                Err(error) => {
                    reach.note_silence(Instant::now(), error.to_string());
                    tracing::warn!(%kind, %error, "a watch broke off and is started again")
                }
            }
        }
    });
    store
}
