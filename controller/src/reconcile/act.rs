//! Act: carries actions out, in their order. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use polyphony_api::{InferenceDeployment, Model, Phone, SYSTEM_NAMESPACE, SegmentPlacement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::{Action, Severity, Story};
use super::observe::ObjectKey;
use super::stores::{Stores, Written, WrittenKind, find};
use crate::hub::registry::Registry;
use crate::models::ModelStore;

/// Who writes, in managed fields and events.
const MANAGER: &str = "polyphony-controller";
const REPORTER: &str = "polyphony.dev/controller";
/// The longest note of an event.
const MAX_NOTE: usize = 1024;
/// A lease that is not renewed for this long has run out.
const LEASE_SECONDS: i32 = 40;

/// What actions act upon.
pub struct Actor {
    pub client: Client,
    pub registry: Arc<Registry>,
    pub models: Arc<ModelStore>,
    /// Tells apart events of the same nanosecond.
    pub n_events: AtomicU64,
}

// === impl Actor ===

impl Actor {
    /// Carries out one action; says what was written.
    ///
    /// # Errors
    /// What the API answered; the action is decided upon again in a later round.
    pub async fn carry_out(&self, action: Action, stores: &Stores) -> Result<Option<Written>, kube::Error> {
        match action {
            Action::CreatePhone { name } => {
                // Applied without fields: who writes a default owns it, and a person's own `apply` would conflict with that.
                let api = Api::<Phone>::all(self.client.clone());
                let empty = json!({
                    "apiVersion": Phone::api_version(&()), "kind": Phone::kind(&()), "metadata": { "name": name }, "spec": {},
                });
                let made = api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(empty)).await;
                created(WrittenKind::Phone, ObjectKey::new("", name), made)
            }
            Action::SetPhoneStatus { name, status } => {
                let key = ObjectKey::new("", name);
                let old = find(&stores.phones, &key).and_then(|phone| phone.status.clone());
                set_status(Api::<Phone>::all(self.client.clone()), WrittenKind::Phone, key, old, status).await
            }
            Action::SetModelStatus { key, status } => {
                let old = find(&stores.models, &key).and_then(|model| model.status.clone());
                set_status(self.namespaced::<Model>(&key), WrittenKind::Model, key, old, status).await
            }
            Action::SetPlacementStatus { key, status } => {
                let old = find(&stores.placements, &key).and_then(|placement| placement.status.clone());
                set_status(self.namespaced::<SegmentPlacement>(&key), WrittenKind::Placement, key, old, status).await
            }
            Action::SetDeploymentStatus { key, status } => {
                let old = find(&stores.deployments, &key).and_then(|deployment| deployment.status.clone());
                set_status(self.namespaced::<InferenceDeployment>(&key), WrittenKind::Deployment, key, old, *status)
                    .await
            }
            Action::CreatePlacement(placement) => {
                let key = ObjectKey::of(placement.as_ref());
                let made = self.namespaced::<SegmentPlacement>(&key).create(&post(), &placement).await;
                created(WrittenKind::Placement, key, made)
            }
            Action::DeletePlacement { key } => {
                let deleted =
                    self.namespaced::<SegmentPlacement>(&key).delete(&key.name, &DeleteParams::background()).await;
                let resource_version = match absent_is_fine(deleted)? {
                    Some(either) => either.left().and_then(|placement| placement.resource_version()),
                    None => None,
                };
                Ok(Some(Written { kind: WrittenKind::Placement, key, resource_version, is_new: false }))
            }
            Action::ReleasePlacement { key, finalizers_left } => {
                let finalizers = if finalizers_left.is_empty() { Value::Null } else { json!(finalizers_left) };
                let patch = Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
                let patched = self.namespaced::<SegmentPlacement>(&key).patch(&key.name, &by_us(), &patch).await;
                let released = absent_is_fine(patched)?;
                // Without a finalizer, a placement that is being deleted is gone.
                let left = released.filter(|placement| {
                    placement.metadata.deletion_timestamp.is_none() || !placement.finalizers().is_empty()
                });
                let resource_version = left.and_then(|placement| placement.resource_version());
                Ok(Some(Written { kind: WrittenKind::Placement, key, resource_version, is_new: false }))
            }
            Action::RenewLease { phone } => self.renew(phone).await.map(Some),
            Action::Tell(story) => self.tell(story).await.map(|()| None),
            Action::CutLink { phone } => {
                self.registry.cut(&phone);
                Ok(None)
            }
            Action::ResolveModel(wanted) => {
                self.models.resolve(wanted);
                Ok(None)
            }
        }
    }

    fn namespaced<K>(&self, key: &ObjectKey) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn renew(&self, phone: String) -> Result<Written, kube::Error> {
        let api = Api::<Lease>::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let spec = LeaseSpec {
            holder_identity: Some(phone.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let patched = api.patch(&phone, &by_us(), &Patch::Merge(json!({ "spec": spec }))).await;
        let lease = match absent_is_fine(patched)? {
            Some(lease) => lease,
            None => {
                let metadata = ObjectMeta { name: Some(phone.clone()), ..ObjectMeta::default() };
                api.create(&post(), &Lease { metadata, spec: Some(spec) }).await?
            }
        };
        let key = ObjectKey::new(SYSTEM_NAMESPACE, phone);
        Ok(Written { kind: WrittenKind::Lease, key, resource_version: lease.resource_version(), is_new: true })
    }

    async fn tell(&self, story: Story) -> Result<(), kube::Error> {
        let now = Timestamp::now();
        let namespace = story.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = story.about.name.clone().unwrap_or_default();
        let count = self.n_events.fetch_add(1, Ordering::Relaxed);
        tracing::info!(about = %format!("{} {name}", story.about.kind.as_deref().unwrap_or("")), reason = %story.reason, "{}", story.note);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}{count:x}", now.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(MANAGER.to_owned()),
            action: Some("Reconcile".to_owned()),
            reason: Some(story.reason),
            note: Some(cut_to(story.note, MAX_NOTE)),
            regarding: Some(story.about),
            type_: Some(match story.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            ..Event::default()
        };
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(&post(), &event).await.map(|_| ())
    }
}

async fn set_status<K, S>(
    api: Api<K>,
    kind: WrittenKind,
    key: ObjectKey,
    old: Option<S>,
    new: S,
) -> Result<Option<Written>, kube::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let as_value = |status: &S| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    let old = old.as_ref().map(as_value).transpose()?.unwrap_or_else(|| json!({}));
    let patch = merge_patch(&old, &as_value(&new)?);
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let patched = api.patch_status(&key.name, &by_us(), &Patch::Merge(json!({ "status": patch }))).await;
    // An object that is gone needs no status.
    let resource_version = absent_is_fine(patched)?.and_then(|object| object.resource_version());
    Ok(Some(Written { kind, key, resource_version, is_new: false }))
}

/// The merge patch (RFC 7386) that turns `from` into `to`; `{}` when they are equal.
fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return to.clone();
    };
    let mut patch = serde_json::Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(same) if same == value => {}
            Some(other) => {
                patch.insert(key.clone(), merge_patch(other, value));
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

fn created<K: ResourceExt>(
    kind: WrittenKind,
    key: ObjectKey,
    made: Result<K, kube::Error>,
) -> Result<Option<Written>, kube::Error> {
    match made {
        Ok(object) => Ok(Some(Written { kind, key, resource_version: object.resource_version(), is_new: true })),
        // Names are a function of what is meant, so the object that is there is the one that was to be made.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn absent_is_fine<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

fn by_us() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// At most `limit` bytes, cut between characters.
fn cut_to(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_names_only_what_differs() {
        let from = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": [1], "f": 0 });
        let to = json!({ "a": 1, "b": { "c": 2, "d": 2 }, "e": [1, 2] });
        assert_eq!(merge_patch(&from, &to), json!({ "b": { "c": 2 }, "e": [1, 2], "f": null }));
        assert_eq!(merge_patch(&to, &to), json!({}));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let cut = cut_to("ä".repeat(1000), MAX_NOTE);
        assert!(cut.len() <= MAX_NOTE && cut.ends_with('…'));
        assert_eq!(cut_to("short".into(), MAX_NOTE), "short");
    }
}
