//! An API that refuses, and one that swallows everything: what is touched by that, and what is not.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use polyphony_api::{InferenceDeployment, Model, Phone, SYSTEM_NAMESPACE, SegmentPlacement, condition};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::farm::{Farm, object, until};

/// The namespace in which no placement may be made beyond a quota.
const POOR: &str = "poor";

/// Stands before the API: refuses placements of one namespace, or swallows all there is.
#[derive(Default)]
struct Door {
    refuses: AtomicBool,
    /// Placements that it lets in all the same.
    quota: AtomicUsize,
    swallows: AtomicBool,
    /// When it refused.
    refused: Mutex<Vec<Instant>>,
}

impl Door {
    /// Opens it before `api`; one request a connection, so that each is looked at.
    async fn open(self: &Arc<Self>, api: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let door = door.clone();
                tokio::spawn(async move { door.pass(stream, api).await });
            }
        });
        address
    }

    async fn pass(&self, mut client: TcpStream, api: SocketAddr) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            if client.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let path = format!("POST /apis/polyphony.dev/v1alpha1/namespaces/{POOR}/segmentplacements");
        if self.refuses.load(Ordering::SeqCst) && head.starts_with(path.as_bytes()) && !self.has_room() {
            self.refused.lock().unwrap().push(Instant::now());
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden", "code": 403,
                "message": "exceeded quota: placements, used: 0, limited: 0",
            })
            .to_string();
            let answer = format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{status}",
                status.len()
            );
            client.write_all(answer.as_bytes()).await?;
            // What is still on its way of the request must not reset the answer.
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_millis(200), client.read_to_end(&mut rest)).await;
            return Ok(());
        }
        let end = head.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        let mut server = TcpStream::connect(api).await?;
        server.write_all(&head[..end]).await?;
        server.write_all(b"Connection: close\r\n").await?;
        server.write_all(&head[end..]).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            done = tokio::io::copy(&mut from_client, &mut to_server) => drop(done?),
            done = self.carry(&mut from_server, &mut to_client) => done?,
        }
        Ok(())
    }

    /// Whether the quota has room for one more, which takes it.
    fn has_room(&self) -> bool {
        self.quota.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// Carries bytes on, unless it swallows: then nothing more comes, and nobody is told.
    async fn carry(
        &self,
        from: &mut (impl AsyncReadExt + Unpin),
        to: &mut (impl AsyncWriteExt + Unpin),
    ) -> std::io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let n_bytes = from.read(&mut bytes).await?;
            while self.swallows.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if n_bytes == 0 {
                return Ok(());
            }
            to.write_all(&bytes[..n_bytes]).await?;
        }
    }
}

/// An embedded API, a door before it, and a controller that knows only the door.
async fn behind_a_door(folder: &Path) -> (Farm, Arc<Door>) {
    let keeper = folder.join("keeper");
    std::fs::create_dir_all(&keeper).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let crds = polyphony_api::crds::all().into_iter().map(|(_, crd)| serde_json::to_value(crd).unwrap());
    let config = polyphony_apiserver::ApiServerConfig {
        store_path: keeper.join("store.redb"),
        token: "secret".into(),
        bearers: Vec::new(),
        by_certificate: None,
        crds: crds.collect(),
        allowed_hosts: Vec::new(),
    };
    let server = polyphony_apiserver::ApiServer::open(config).unwrap();
    tokio::spawn(async move { server.serve(listener, None, tokio_util::sync::CancellationToken::new()).await });
    let kubeconfig = |address: SocketAddr| {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "door",
            "clusters": [{ "name": "door", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "door", "user": { "token": "secret" } }],
            "contexts": [{ "name": "door", "context": { "cluster": "door", "user": "door" } }],
        })
        .to_string()
    };
    let door = Arc::new(Door::default());
    let (before, behind) = (folder.join("door.json"), folder.join("api.json"));
    std::fs::write(&before, kubeconfig(door.open(api).await)).unwrap();
    std::fs::write(&behind, kubeconfig(api)).unwrap();
    (Farm::start_with(folder, &before, &behind).await, door)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_plan_is_tried_once_a_pause_and_disturbs_no_other_deployment() {
    let folder = tempfile::tempdir().unwrap();
    let (farm, door) = behind_a_door(folder.path()).await;
    door.refuses.store(true, Ordering::SeqCst);
    let _agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    let namespace: Namespace = object(json!({ "metadata": { "name": POOR } }));
    Api::<Namespace>::all(farm.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let poor = |kind: &str, name: &str, spec: serde_json::Value| json!({ "apiVersion": "polyphony.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    farm.deploy(folder.path()).await;
    let source = format!("file://{}", folder.path().join("tiny.gguf").display());
    let model: Model = object(poor("Model", "tiny", json!({ "source": source })));
    Api::<Model>::namespaced(farm.client.clone(), POOR).create(&PostParams::default(), &model).await.unwrap();
    let wanted: InferenceDeployment =
        object(poor("InferenceDeployment", "talk", json!({ "model": "tiny", "contextLength": 64 })));
    let deployments = Api::<InferenceDeployment>::namespaced(farm.client.clone(), POOR);
    deployments.create(&PostParams::default(), &wanted).await.unwrap();

    farm.available(1).await;
    until("the refusal is told in the API's words", async || {
        let status = deployments.get("talk").await.unwrap().status.unwrap_or_default();
        let available = condition::find(&status.conditions, "Available").cloned();
        let said = available.is_some_and(|it| it.reason == "PlacementRefused" && it.message.contains("exceeded quota"));
        if said { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    let tries = until("three tries", async || {
        let refused = door.refused.lock().unwrap().clone();
        if refused.len() >= 3 { Ok(refused) } else { Err(format!("{} tries", refused.len())) }
    })
    .await;
    // Pauses of one second and two: at the soonest, whatever else is slow.
    assert!(tries[2] - tries[0] >= Duration::from_millis(2900), "{tries:?}");
    let status = deployments.get("talk").await.unwrap().status.unwrap();
    assert_eq!((status.plan_generation, status.plan), (None, None), "no number was used up");
    farm.available(1).await;

    door.refuses.store(false, Ordering::SeqCst);
    until("it is planned as soon as it may be", async || {
        let status = deployments.get("talk").await.unwrap().status.unwrap_or_default();
        let is_there = condition::is_true(&status.conditions, "Available") && status.plan_generation == Some(1);
        if is_there { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    let events = farm.events("talk").await;
    assert_eq!(events.iter().filter(|reason| *reason == "PlacementRefused").count(), 1, "{events:?}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_for_one_replica_serves_that_one_while_the_other_is_tried_once_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let (farm, door) = behind_a_door(folder.path()).await;
    door.quota.store(1, Ordering::SeqCst);
    door.refuses.store(true, Ordering::SeqCst);
    let _agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    let namespace: Namespace = object(json!({ "metadata": { "name": POOR } }));
    Api::<Namespace>::all(farm.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, super::model_file::tiny()).unwrap();
    let model: Model = object(json!({
        "apiVersion": "polyphony.dev/v1alpha1", "kind": "Model", "metadata": { "name": "tiny" },
        "spec": { "source": format!("file://{}", path.display()) },
    }));
    Api::<Model>::namespaced(farm.client.clone(), POOR).create(&PostParams::default(), &model).await.unwrap();
    let wanted: InferenceDeployment = object(json!({
        "apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": { "name": "talk" },
        "spec": { "model": "tiny", "contextLength": 64, "replicas": 2, "placement": { "maxPhones": 1 } },
    }));
    let deployments = Api::<InferenceDeployment>::namespaced(farm.client.clone(), POOR);
    deployments.create(&PostParams::default(), &wanted).await.unwrap();
    let placements = Api::<SegmentPlacement>::namespaced(farm.client.clone(), POOR);
    let made = async || {
        let all = placements.list(&Default::default()).await.unwrap().items;
        all.into_iter().map(|one| one.metadata.uid.unwrap()).collect::<Vec<_>>()
    };

    until("one replica serves, and the other is refused", async || {
        let status = deployments.get("talk").await.unwrap().status.unwrap_or_default();
        let degraded = condition::find(&status.conditions, "Degraded").map(|it| it.reason.clone());
        let is_so =
            condition::is_true(&status.conditions, "Available") && degraded.as_deref() == Some("PlacementRefused");
        if is_so { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    let first = made().await;
    let tries = until("three tries", async || {
        let refused = door.refused.lock().unwrap().clone();
        if refused.len() >= 3 { Ok(refused) } else { Err(format!("{} tries", refused.len())) }
    })
    .await;
    assert!(tries[2] - tries[0] >= Duration::from_millis(2900), "{tries:?}");
    assert_eq!((first.len(), made().await), (1, first), "the one that serves was made once");

    door.refuses.store(false, Ordering::SeqCst);
    until("both serve", async || {
        let status = deployments.get("talk").await.unwrap().status.unwrap_or_default();
        if status.ready_replicas == 2 { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_swallows_everything_is_seen_and_stops_no_failover() {
    let folder = tempfile::tempdir().unwrap();
    let (farm, door) = behind_a_door(folder.path()).await;
    let mut agents = std::collections::BTreeMap::new();
    for name in ["phone-1", "phone-2", "phone-3"] {
        agents.insert(name.to_owned(), farm.agent(name).await);
    }
    farm.deploy(folder.path()).await;
    let first = farm.available(1).await;
    let code = async |url: &str, path: &str| {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let host = url.trim_start_matches("http://");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let answers = async |url: &str, path: &str, expected: &str| {
        until(&format!("{path} says {expected}"), async || {
            let code = code(url, path).await;
            if code == expected { Ok(()) } else { Err(code) }
        })
        .await;
    };
    let (metrics, gateway) = (farm.endpoints.metrics.clone(), farm.endpoints.gateway.clone());
    answers(&metrics, "/readyz", "200").await;
    answers(&gateway, "/readyz", "200").await;

    door.swallows.store(true, Ordering::SeqCst);
    agents.remove(&first[1].spec.phone);
    answers(&gateway, "/readyz", "503").await;
    answers(&metrics, "/readyz", "503").await;
    assert_eq!(code(&metrics, "/healthz").await, "200", "it does not hang");

    door.swallows.store(false, Ordering::SeqCst);
    let second = farm.available(2).await;
    assert!(second.iter().all(|placement| placement.spec.phone != first[1].spec.phone), "on those that are left");
    answers(&metrics, "/readyz", "200").await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_phone_is_in_no_message_and_has_no_lease() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let leases = Api::<Lease>::namespaced(farm.client.clone(), SYSTEM_NAMESPACE);
    let lease = async |is_there: bool| {
        until(&format!("the lease is there: {is_there}"), async || {
            let found = leases.get_opt("phone-1").await.unwrap();
            if found.is_some() == is_there { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .await;
    };
    let agent = farm.agent("phone-1").await;
    farm.phone_condition("phone-1", "Ready", "True").await;
    lease(true).await;
    drop(agent);
    farm.phone_condition("phone-1", "Ready", "False").await;
    Api::<Phone>::all(farm.client.clone()).delete("phone-1", &Default::default()).await.unwrap();
    lease(false).await;
    farm.deploy(folder.path()).await;
    let deployments = Api::<InferenceDeployment>::default_namespaced(farm.client.clone());
    until("no phone is named", async || {
        let status = deployments.get("chat").await.unwrap().status.unwrap_or_default();
        match condition::find(&status.conditions, "Available") {
            Some(found) if found.reason == "NoPhones" && !found.message.contains("phone-1") => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_no_label_can_hold_is_refused_and_the_longest_one_is_planned() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let _agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    farm.deploy(folder.path()).await;
    let deployments = Api::<InferenceDeployment>::default_namespaced(farm.client.clone());
    let named = |n_bytes: usize| -> InferenceDeployment {
        object(json!({
            "apiVersion": "polyphony.dev/v1alpha1", "kind": "InferenceDeployment", "metadata": { "name": "x".repeat(n_bytes) },
            "spec": { "model": "tiny", "contextLength": 64 },
        }))
    };
    let refused = deployments.create(&PostParams::default(), &named(64)).await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 422 && status.message.contains("63")),
        "{refused}"
    );
    deployments.create(&PostParams::default(), &named(63)).await.unwrap();
    let placements = Api::<SegmentPlacement>::default_namespaced(farm.client.clone());
    until("it has placements, and names of its own", async || {
        let all = placements.list(&Default::default()).await.unwrap().items;
        let own = all.iter().filter(|one| one.spec.deployment == "x".repeat(63)).count();
        if own > 0 { Ok(()) } else { Err(format!("{} placements", all.len())) }
    })
    .await;
    farm.stop().await;
}
