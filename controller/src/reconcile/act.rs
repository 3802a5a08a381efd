//! Act: carries actions out, in their order. Decides nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::Action;
use super::observe::{ObjectKey, Observed};
use super::stores::{Written, WrittenKind};
use crate::hub::registry::Registry;
use crate::models::ModelStore;

/// Who writes, in managed fields and events.
pub const MANAGER: &str = "polyphony-controller";
/// The API has to answer a call within this: a connection that swallows everything must not stop a round for long.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why an action was not done. It is decided upon again.
#[derive(Debug)]
pub enum ActError {
    /// The API answered, and will not have it.
    Refused(Box<kube::Error>),
    /// The API did not answer.
    Unanswered(String),
    /// Somebody else has written the object since it was observed.
    Stale,
    /// The name belongs to a segment of another plan.
    Taken,
}

impl fmt::Display for ActError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => match &**error {
                kube::Error::Api(status) => write!(f, "{} ({})", status.message, status.code),
                error => write!(f, "{error}"),
            },
            Self::Unanswered(why) => write!(f, "{why}"),
            Self::Stale => write!(f, "somebody else has written it meanwhile"),
            Self::Taken => write!(f, "its name belongs to a segment of another plan"),
        }
    }
}

impl std::error::Error for ActError {}

impl From<kube::Error> for ActError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(_) | kube::Error::SerdeError(_) => Self::Refused(Box::new(error)),
            error => Self::Unanswered(error.to_string()),
        }
    }
}

/// What actions act upon.
pub struct Actor {
    pub client: Client,
    pub registry: Arc<Registry>,
    pub models: Arc<ModelStore>,
}

// === impl Actor ===

impl Actor {
    /// Carries out one action that was decided upon by `observed`; says what was written.
    ///
    /// # Errors
    /// What the API answered, or that it did not; the action is decided upon again in a later round.
    pub async fn carry_out(&self, action: Action, observed: &Observed) -> Result<Option<Written>, ActError> {
        tokio::time::timeout(DEADLINE, self.act(action, observed))
            .await
            .unwrap_or_else(|_| Err(ActError::Unanswered(format!("no answer within {} s", DEADLINE.as_secs()))))
    }

    async fn act(&self, action: Action, observed: &Observed) -> Result<Option<Written>, ActError> {
        match action {
            Action::CreatePhone { name } => {
                // Applied without fields: who writes a default owns it, and a person's own `apply` would conflict with that.
                let api = Api::<Phone>::all(self.client.clone());
                let empty = json!({
                    "apiVersion": Phone::api_version(&()), "kind": Phone::kind(&()), "metadata": { "name": name }, "spec": {},
                });
                let made = api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(empty)).await?;
                Ok(Some(new(WrittenKind::Phone, ObjectKey::new("", name), &made)))
            }
            Action::SetPhoneStatus { name, status } => {
                let old = observed.phones.get(&name).and_then(|seen| seen.object.as_deref());
                let key = ObjectKey::new("", name);
                let old = old.map(|phone| (phone, phone.status.as_ref()));
                set_status(Api::<Phone>::all(self.client.clone()), WrittenKind::Phone, key, old, *status).await
            }
            Action::SetModelStatus { key, status } => {
                let old = observed.models.get(&key).map(|seen| (&*seen.object, seen.object.status.as_ref()));
                set_status(self.namespaced::<Model>(&key), WrittenKind::Model, key, old, status).await
            }
            Action::SetPlacementStatus { key, status } => {
                let old = observed.placements.get(&key).map(|placement| (&**placement, placement.status.as_ref()));
                set_status(self.namespaced::<SegmentPlacement>(&key), WrittenKind::Placement, key, old, status).await
            }
            Action::SetDeploymentStatus { key, status } => {
                let old = observed.deployments.get(&key).map(|deployment| (&**deployment, deployment.status.as_ref()));
                let api = self.namespaced::<InferenceDeployment>(&key);
                set_status(api, WrittenKind::Deployment, key, old, *status).await
            }
            Action::CreatePlacement(placement) => self.create(&placement).await.map(Some),
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
            Action::CutLink { phone } => {
                self.registry.cut(&phone);
                Ok(None)
            }
            Action::ResolveModel(wanted) => {
                self.models.resolve(wanted);
                Ok(None)
            }
            // The outbox has it.
            Action::Tell(_) => Ok(None),
        }
    }

    fn namespaced<K>(&self, key: &ObjectKey) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Makes a placement, or finds that it is made already: by a life before this one, or by a call whose answer was lost.
    async fn create(&self, placement: &SegmentPlacement) -> Result<Written, ActError> {
        let key = ObjectKey::of(placement);
        let api = self.namespaced::<SegmentPlacement>(&key);
        match api.create(&post(), placement).await {
            Ok(made) => Ok(new(WrittenKind::Placement, key, &made)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Names carry no plan: the one that is there may be of another.
                let there = api.get(&key.name).await?;
                let is_it = there.spec.plan_digest.is_some() && there.spec.plan_digest == placement.spec.plan_digest;
                let is_leaving = there.metadata.deletion_timestamp.is_some();
                if is_it && !is_leaving { Ok(new(WrittenKind::Placement, key, &there)) } else { Err(ActError::Taken) }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a status over the one that was observed; what somebody else has written since is not written over.
async fn set_status<K, S>(
    api: Api<K>,
    kind: WrittenKind,
    key: ObjectKey,
    observed: Option<(&K, Option<&S>)>,
    status: S,
) -> Result<Option<Written>, ActError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    S: Serialize,
{
    let as_value = |status: &S| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    // An object that is gone needs no status.
    let Some((object, old)) = observed else { return Ok(None) };
    let old = old.map(as_value).transpose()?.unwrap_or_else(|| json!({}));
    let patch = merge_patch(&old, &as_value(&status)?);
    if patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let patch = json!({ "metadata": { "resourceVersion": object.meta().resource_version }, "status": patch });
    let patched = api.patch_status(&key.name, &by_us(), &Patch::Merge(patch)).await;
    if matches!(&patched, Err(kube::Error::Api(status)) if status.code == 409) {
        return Err(ActError::Stale);
    }
    let resource_version = absent_is_fine(patched)?.and_then(|object| object.meta().resource_version.clone());
    Ok(Some(Written { kind, key, resource_version, is_new: false }))
}

fn new<K: ResourceExt>(kind: WrittenKind, key: ObjectKey, object: &K) -> Written {
    Written { kind, key, resource_version: object.resource_version(), is_new: true }
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
}
