//! Stores: what the API holds, kept current by watches.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
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
