//! Act: carries actions out, in their order. Decides nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::decide::Action;
use super::observe::{ObjectKey, Observed};
use super::setbacks::Cause;
use super::written::{Object, Written};
use crate::hub::registry::Registry;
use crate::models::{ModelStore, Refusal, TokenRef, Wanted};
use crate::secret::Secret;

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

impl ActError {
    /// What it is to a plan that was to be written.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Taken => Cause::PlacementRefused,
            Self::Refused(error) => match &**error {
                kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 408 | 429) => {
                    Cause::PlacementRefused
                }
                _ => Cause::PlanUnwritten,
            },
            Self::Unanswered(_) | Self::Stale => Cause::PlanUnwritten,
        }
    }
}

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
            Action::SetPhoneStatus { name, status } => {
                let old = observed.phones.get(&name).and_then(|seen| seen.object.as_deref());
                let key = ObjectKey::new("", name);
                let old = old.map(|phone| (phone, phone.status.as_ref()));
                set_status(Api::<Phone>::all(self.client.clone()), key, old, *status).await
            }
            Action::SetModelStatus { key, status } => {
                let old = observed.models.get(&key).map(|seen| (&*seen.object, seen.object.status.as_ref()));
                set_status(self.namespaced::<Model>(&key), key, old, status).await
            }
            Action::SetPlacementStatus { key, status } => {
                let old = observed.placements.get(&key).map(|placement| (&**placement, placement.status.as_ref()));
                set_status(self.namespaced::<SegmentPlacement>(&key), key, old, status).await
            }
            Action::SetDeploymentStatus { key, status } => {
                let old = observed.deployments.get(&key).map(|deployment| (&**deployment, deployment.status.as_ref()));
                let api = self.namespaced::<InferenceDeployment>(&key);
                set_status(api, key, old, *status).await
            }
            Action::CreatePlacement(placement) => self.create(&placement).await.map(Some),
            Action::DeletePlacement { key } => {
                let deleted =
                    self.namespaced::<SegmentPlacement>(&key).delete(&key.name, &DeleteParams::background()).await;
                let left = absent_is_fine(deleted)?.and_then(|either| either.left());
                Ok(Some(Written::now(key, left)))
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
                Ok(Some(Written::now(key, left)))
            }
            Action::CutLink { phone } => {
                self.registry.cut(&phone);
                Ok(None)
            }
            Action::ResolveModel(wanted) => {
                match self.token(&wanted).await? {
                    Ok(token) => self.models.resolve_with_token(wanted, token),
                    Err(refusal) => self.models.refuse(wanted, refusal),
                }
                Ok(None)
            }
            // The outbox has it.
            Action::Tell(_) => Ok(None),
        }
    }

    /// The token that a Model's source asks for, or why there is none.
    async fn token(&self, wanted: &Wanted) -> Result<Result<Option<Secret>, Refusal>, ActError> {
        let Some(TokenRef { namespace, secret: name, key }) = &wanted.token else { return Ok(Ok(None)) };
        let api = Api::<KubeSecret>::namespaced(self.client.clone(), namespace);
        let refused = |why: &str| Ok(Err(Refusal::of_token(name, key, why)));
        let found = match api.get_opt(name).await {
            Ok(Some(found)) => found.data.unwrap_or_default().remove(key),
            Ok(None) => return refused("which does not exist: create it, or correct the name"),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return refused(
                    "which the controller may not read: let it `get` that Secret (the chart's models.tokenSecretNamespaces)",
                );
            }
            Err(error) => return Err(error.into()),
        };
        let token = found.and_then(|bytes| String::from_utf8(bytes.0).ok()).map(|token| token.trim().to_owned());
        match token.filter(|token| !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic())) {
            Some(token) => Ok(Ok(Some(Secret::new(token)))),
            None => refused("which has no token there: write one of plain letters, or correct the key"),
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
            Ok(made) => Ok(new(key, made)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Names carry no plan: the one that is there may be of another.
                let there = api.get(&key.name).await?;
                let is_it = there.spec.plan_digest.is_some() && there.spec.plan_digest == placement.spec.plan_digest;
                let is_leaving = there.metadata.deletion_timestamp.is_some();
                if is_it && !is_leaving { Ok(new(key, there)) } else { Err(ActError::Taken) }
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a status over the one that was observed; what somebody else has written since is not written over.
async fn set_status<K, S>(
    api: Api<K>,
    key: ObjectKey,
    observed: Option<(&K, Option<&S>)>,
    status: S,
) -> Result<Option<Written>, ActError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    S: Serialize,
    Object: From<Option<Arc<K>>>,
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
    Ok(Some(Written::now(key, absent_is_fine(patched)?)))
}

fn new<K>(key: ObjectKey, object: K) -> Written
where
    Object: From<Option<Arc<K>>>,
{
    Written { is_new: true, ..Written::now(key, Some(object)) }
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
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use k8s_openapi::jiff::Timestamp;
    use polyphony_api::{InferenceDeploymentStatus, PhoneSpec, PhoneStatus};
    use polyphony_apiserver::{ApiServer, ApiServerConfig, Credential};
    use tokio::net::TcpListener;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;
    use crate::kubeconfig;
    use crate::reconcile::observe::{PhoneSeen, Settings};

    /// An actor, and an API of its own that it acts upon.
    struct Scene {
        actor: Actor,
        _stop: DropGuard,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        async fn set_up() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let crds = polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd).unwrap());
            let config = ApiServerConfig {
                store_path: folder.path().join("store.redb"),
                token: "secret".into(),
                bearers: Vec::new(),
                by_certificate: None,
                crds: crds.collect(),
                allowed_hosts: Vec::new(),
            };
            let server = ApiServer::open(config).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let path = folder.path().join("kubeconfig");
            let url = format!("http://{}", listener.local_addr().unwrap());
            let written = polyphony_apiserver::kubeconfig(&url, "", "polyphony", Credential::Token("secret"));
            std::fs::write(&path, written).unwrap();
            let stop = CancellationToken::new();
            tokio::spawn(server.serve(listener, None, stop.clone()));
            let (client, _) = kubeconfig::client(&path).await.unwrap();
            let models = Arc::new(ModelStore::new(folder.path().join("models")).unwrap());
            let actor = Actor { client, registry: Arc::default(), models };
            Self { actor, _stop: stop.drop_guard(), _folder: folder }
        }

        fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
            Api::namespaced(self.actor.client.clone(), "default")
        }
    }

    fn nothing() -> Observed {
        let settings = Settings { grace_period: DEADLINE, startup_grace: DEADLINE, gateway_url: String::new() };
        Observed {
            now: Timestamp::now(),
            uptime: Duration::ZERO,
            settings,
            phones: BTreeMap::new(),
            models: BTreeMap::new(),
            deployments: BTreeMap::new(),
            placements: BTreeMap::new(),
            sessions: BTreeMap::new(),
            readable_models: BTreeSet::new(),
            tokens_per_second: BTreeMap::new(),
            setbacks: BTreeMap::new(),
            waiting: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    fn placement(name: &str, digest: Option<&str>) -> Box<SegmentPlacement> {
        let spec = json!({
            "deployment": "d", "model": "m", "manifestDigest": "0", "replica": 0, "planGeneration": 1, "planDigest": digest,
            "stage": 0, "stages": 1, "phone": "a", "holds": { "embedding": true, "from": 0, "to": 1, "head": true, "summary": "" },
            "edges": [], "contextLength": 16, "maxSessions": 1, "activationType": "f16", "numericsClass": "cpu-f32", "plannedBytes": 0,
            "predictedStepMicroseconds": 0,
        });
        let mut placement = SegmentPlacement::new(name, serde_json::from_value(spec).unwrap());
        placement.metadata.namespace = Some("default".into());
        placement.metadata.finalizers = Some(vec!["polyphony.dev/test".into()]);
        Box::new(placement)
    }

    #[tokio::test]
    async fn a_status_that_somebody_else_wrote_meanwhile_is_not_written_over() {
        let scene = Scene::set_up().await;
        let deployments = scene.api::<InferenceDeployment>();
        let phones = Api::<Phone>::all(scene.actor.client.clone());
        let spec = serde_json::from_value(json!({ "model": "m" })).unwrap();
        deployments.create(&post(), &InferenceDeployment::new("d", spec)).await.unwrap();
        phones.create(&post(), &Phone::new("a", PhoneSpec::default())).await.unwrap();
        let key = ObjectKey::new("default", "d");
        let look = async || {
            let (deployment, phone) = (deployments.get("d").await.unwrap(), phones.get("a").await.unwrap());
            let seen = PhoneSeen { object: Some(Arc::new(phone)), ..PhoneSeen::default() };
            let deployments = BTreeMap::from([(key.clone(), Arc::new(deployment))]);
            Observed { deployments, phones: BTreeMap::from([("a".to_owned(), seen)]), ..nothing() }
        };
        let backend = |observed: &Observed| {
            let phone = observed.phones["a"].object.clone().unwrap();
            phone.status.clone().unwrap_or_default().backend
        };
        let replicas = |observed: &Observed| observed.deployments[&key].status.clone().unwrap_or_default().replicas;
        let ours = InferenceDeploymentStatus { replicas: 1, ..InferenceDeploymentStatus::default() };
        let our_phone = PhoneStatus { backend: Some("ours".into()), ..PhoneStatus::default() };
        let actions = [
            Action::SetDeploymentStatus { key: key.clone(), status: Box::new(ours) },
            Action::SetPhoneStatus { name: "a".into(), status: Box::new(our_phone) },
        ];

        let before = look().await;
        let theirs = |status: Value| Patch::Merge(json!({ "status": status }));
        deployments.patch_status("d", &PatchParams::default(), &theirs(json!({ "replicas": 7 }))).await.unwrap();
        phones.patch_status("a", &PatchParams::default(), &theirs(json!({ "backend": "theirs" }))).await.unwrap();
        for action in &actions {
            let outcome = scene.actor.carry_out(action.clone(), &before).await;
            assert!(matches!(outcome, Err(ActError::Stale)), "{action:?}: {outcome:?}");
        }
        let seen = look().await;
        assert_eq!((replicas(&seen), backend(&seen)), (7, Some("theirs".into())));
        for action in &actions {
            scene.actor.carry_out(action.clone(), &seen).await.unwrap();
        }
        let seen = look().await;
        assert_eq!((replicas(&seen), backend(&seen)), (1, Some("ours".into())), "decided anew, it is");
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_the_placement_that_was_meant_only_where_it_is_of_the_same_plan() {
        let scene = Scene::set_up().await;
        let create = async |name: &str, digest: Option<&str>| {
            let outcome = scene.actor.carry_out(Action::CreatePlacement(placement(name, digest)), &nothing()).await;
            outcome.map(|written| match written.unwrap().object {
                Object::Placement(Some(placement)) => placement.resource_version().unwrap(),
                other => panic!("{other:?}"),
            })
        };
        let made = create("d-0-g1-0", Some("x")).await.unwrap();
        assert_eq!(create("d-0-g1-0", Some("x")).await.unwrap(), made, "made by a call whose answer was lost");
        create("d-0-g1-1", None).await.unwrap();
        for (name, digest) in [("d-0-g1-0", Some("y")), ("d-0-g1-0", None), ("d-0-g1-1", Some("x")), ("d-0-g1-1", None)]
        {
            let outcome = create(name, digest).await;
            assert!(matches!(outcome, Err(ActError::Taken)), "{name} of {digest:?}: {outcome:?}");
        }
        scene.api::<SegmentPlacement>().delete("d-0-g1-0", &DeleteParams::default()).await.unwrap();
        let outcome = create("d-0-g1-0", Some("x")).await;
        assert!(matches!(outcome, Err(ActError::Taken)), "it is being deleted: {outcome:?}");
    }

    #[test]
    fn a_merge_patch_names_only_what_differs() {
        let from = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "e": [1], "f": 0 });
        let to = json!({ "a": 1, "b": { "c": 2, "d": 2 }, "e": [1, 2] });
        assert_eq!(merge_patch(&from, &to), json!({ "b": { "c": 2 }, "e": [1, 2], "f": null }));
        assert_eq!(merge_patch(&to, &to), json!({}));
    }
}
