//! A controller on free ports in a folder of its own, and what tests ask of it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use polyphony_api::{InferenceDeployment, Model, Phone, SegmentPlacement, condition};
use polyphony_controller::door::tokens::{self, Terms};
use polyphony_controller::{Flags, Process, kubeconfig};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::agent::{self, Agent, Device};
use super::model_file;

const DEADLINE: Duration = Duration::from_secs(30);

pub struct Farm {
    pub endpoints: polyphony_controller::Endpoints,
    pub client: Client,
    devices: Mutex<BTreeMap<String, Device>>,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

pub fn flags(data_dir: &Path) -> Flags {
    let free = "127.0.0.1:0".parse().unwrap();
    Flags {
        data_dir: data_dir.to_owned(),
        api_address: free,
        gateway_address: free,
        hub_address: free,
        metrics_address: free,
        metrics_token_file: None,
        weights_address: None,
        advertise: polyphony_controller::Advertise::Never,
        grace_period: Duration::from_secs(5),
        kubeconfig: None,
        log_file: None,
        authority_secret: None,
        authority_dir: None,
        trust_domain: polyphony_identity::DEFAULT_DOMAIN.into(),
        certificate_lifetime: Duration::from_secs(86_400),
        rejoin_window: Duration::from_secs(3600),
        relay_bytes_per_second: 64 << 20,
        no_auth: false,
        await_keys: false,
        allowed_host: Vec::new(),
        cors_origin: Vec::new(),
        control_tokens_in_messages: false,
        model_endpoint: "http://127.0.0.1:9".into(),
        model_host: Vec::new(),
        model_private_addresses: false,
    }
}

impl Farm {
    pub async fn start(data_dir: &Path) -> Self {
        let stop = CancellationToken::new();
        let process = Process::start(flags(data_dir), stop.clone()).await.unwrap();
        let (client, _) = kubeconfig::client(&data_dir.join("kubeconfig")).await.unwrap();
        let endpoints = process.endpoints.clone();
        Self { endpoints, client, devices: Mutex::default(), stop, running: tokio::spawn(process.run()) }
    }

    /// A controller that reaches its API by one kubeconfig, and tests that reach it by another.
    pub async fn start_with(data_dir: &Path, its: &Path, ours: &Path) -> Self {
        let stop = CancellationToken::new();
        let flags = Flags { kubeconfig: Some(its.to_owned()), ..flags(data_dir) };
        let process = Process::start(flags, stop.clone()).await.unwrap();
        let (client, _) = kubeconfig::client(ours).await.unwrap();
        let endpoints = process.endpoints.clone();
        Self { endpoints, client, devices: Mutex::default(), stop, running: tokio::spawn(process.run()) }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub async fn agent(&self, name: &str) -> Agent {
        self.device(name).await.start(agent::join(name, 64)).await.unwrap()
    }

    /// A join token of the usual terms.
    pub async fn token(&self) -> String {
        self.token_of(|_| ()).await
    }

    pub async fn token_of(&self, edit: impl FnOnce(&mut Terms)) -> String {
        let expires = Timestamp::now() + Duration::from_secs(3600);
        let mut terms = Terms { expires, uses: 1, ..Terms::default() };
        edit(&mut terms);
        tokens::create(&self.client, &terms).await.unwrap().reveal()
    }

    /// The device of that name: the one that was taken in under it before, or a new one.
    pub async fn device(&self, name: &str) -> Device {
        let known = self.devices.lock().unwrap().get(name).cloned();
        match known {
            Some(device) => device,
            None => {
                let device = self.enrol(name, &self.token().await).await.unwrap();
                self.devices.lock().unwrap().insert(name.to_owned(), device.clone());
                device
            }
        }
    }

    pub async fn enrol(&self, name: &str, token: &str) -> Result<Device, String> {
        Device::enrol(&self.endpoints.hub, self.endpoints.ca_hash, token, name).await
    }

    /// The devices that were taken in.
    pub fn devices(&self) -> BTreeMap<String, Device> {
        self.devices.lock().unwrap().clone()
    }

    /// Goes on with devices that were taken in by a farm before this one in the same folder.
    pub fn with_devices(self, known: BTreeMap<String, Device>) -> Self {
        let hub = self.endpoints.hub.clone();
        *self.devices.lock().unwrap() = known.into_iter().map(|(name, device)| (name, device.at(&hub))).collect();
        self
    }

    /// Makes a model file, its Model `tiny`, and the InferenceDeployment `chat` over at least two phones.
    pub async fn deploy(&self, data_dir: &Path) {
        let path = data_dir.join("tiny.gguf");
        std::fs::write(&path, model_file::tiny()).unwrap();
        let model = object(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "Model", "metadata": { "name": "tiny" },
            "spec": { "source": format!("file://{}", path.display()) },
        }));
        let deployment = object(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": { "name": "chat" },
            "spec": { "model": "tiny", "contextLength": 64, "maxSessions": 1, "placement": { "minPhones": 2 } },
        }));
        Api::<Model>::default_namespaced(self.client.clone()).create(&PostParams::default(), &model).await.unwrap();
        Api::<InferenceDeployment>::default_namespaced(self.client.clone())
            .create(&PostParams::default(), &deployment)
            .await
            .unwrap();
    }

    /// Waits until the deployment `chat` is available in that generation; gives its placements by stage.
    pub async fn available(&self, generation: u64) -> Vec<SegmentPlacement> {
        self.available_in(&format!("generation {generation}"), |found| found == generation).await
    }

    /// The same in any later generation than that: there may have been more than one since.
    pub async fn available_after(&self, generation: u64) -> Vec<SegmentPlacement> {
        self.available_in(&format!("a generation after {generation}"), |found| found > generation).await
    }

    async fn available_in(&self, what: &str, is_meant: impl Fn(u64) -> bool) -> Vec<SegmentPlacement> {
        let deployments = Api::<InferenceDeployment>::default_namespaced(self.client.clone());
        let placements = Api::<SegmentPlacement>::default_namespaced(self.client.clone());
        until(&format!("chat is available in {what}"), async || {
            let status = deployments.get("chat").await.unwrap().status.unwrap_or_default();
            let generation = status.plan_generation.filter(|generation| is_meant(*generation));
            let Some(generation) = generation.filter(|_| condition::is_true(&status.conditions, "Available")) else {
                return Err(format!("{status:#?}"));
            };
            let mut found = placements.list(&Default::default()).await.unwrap().items;
            found.retain(|placement| placement.spec.plan_generation == generation);
            found.sort_by_key(|placement| placement.spec.stage);
            Ok(found)
        })
        .await
    }

    pub async fn phone_condition(&self, name: &str, type_: &str, status: &str) {
        let phones = Api::<Phone>::all(self.client.clone());
        until(&format!("{name} is {type_}={status}"), async || {
            let phone = phones.get_opt(name).await.unwrap().and_then(|phone| phone.status).unwrap_or_default();
            match condition::find(&phone.conditions, type_) {
                Some(found) if found.status == status => Ok(()),
                _ => Err(format!("{phone:#?}")),
            }
        })
        .await;
    }

    /// Reasons of all events about the object of that name.
    /// Waits until an event of that reason is told of an object: events come after what they tell of.
    pub async fn told(&self, about: &str, reason: &str) {
        until(&format!("{reason} to be told of {about}"), async || {
            let told = self.events(about).await;
            if told.iter().any(|told| told == reason) { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }

    pub async fn events(&self, about: &str) -> Vec<String> {
        let events = Api::<Event>::all(self.client.clone()).list(&Default::default()).await.unwrap();
        let is_about =
            |event: &Event| event.regarding.as_ref().is_some_and(|regarding| regarding.name.as_deref() == Some(about));
        events.items.into_iter().filter(is_about).filter_map(|event| event.reason).collect()
    }
}

pub fn object<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Asks again and again until there is an answer; fails with the last words when there is none in time.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let since = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(now) => assert!(since.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}; now: {now}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
