//! The life of a deployment: planned, available, re-planned, and still there after a restart.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use polyphony_identity::{Name, Role};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::Device;
use super::farm::{Farm, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_available_and_moves_from_a_lost_phone() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let mut agents = BTreeMap::new();
    for name in ["phone-1", "phone-2", "phone-3"] {
        agents.insert(name.to_owned(), farm.agent(name).await);
        farm.phone_condition(name, "Ready", "True").await;
    }
    farm.deploy(folder.path()).await;
    let first = farm.available(1).await;
    assert_eq!(first.len(), 2);
    assert!(first[0].spec.holds.embedding && first[1].spec.holds.head);
    let assignment = agents[&first[0].spec.phone].assigned.borrow()[0].clone();
    assert_eq!(assignment.peers.len(), 2);
    assert_eq!(assignment.peers[1].phone, first[1].spec.phone);

    // The link ends: the layers move to the phone that was left out.
    let lost = first[1].spec.phone.clone();
    agents.remove(&lost);
    let second = farm.available(2).await;
    assert!(second.iter().all(|placement| placement.spec.phone != lost), "{second:#?}");
    farm.phone_condition(&lost, "Ready", "False").await;
    for reason in ["Planned", "SegmentReady", "Available", "PhoneLost", "Replanned"] {
        farm.told("chat", reason).await;
    }
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_move_away_from_a_phone_that_slows_down_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let mut linked = BTreeMap::new();
    for name in ["phone-1", "phone-2"] {
        linked.insert(name.to_owned(), farm.agent(name).await);
    }
    farm.deploy(folder.path()).await;
    let deployments = kube::Api::<polyphony_api::InferenceDeployment>::default_namespaced(farm.client.clone());
    let quickly = serde_json::json!({ "spec": { "loadBalancing": { "coolDownSeconds": 1 } } });
    deployments.patch("chat", &Default::default(), &kube::api::Patch::Merge(quickly)).await.unwrap();
    let first = farm.available(1).await;
    assert!(first.iter().any(|placement| placement.spec.standby.is_some()), "{first:#?}");

    let (slow, fast) = (first[1].spec.phone.clone(), first[0].spec.phone.clone());
    linked[&slow].slow_down_to(0.010);
    let second = farm.available_after(1).await;
    let layers = |of: &[polyphony_api::SegmentPlacement], phone: &str| {
        let holds = &of.iter().find(|placement| placement.spec.phone == phone).unwrap().spec.holds;
        holds.to - holds.from
    };
    assert!(layers(&second, &slow) < layers(&first, &slow) && layers(&second, &fast) > layers(&first, &fast));
    assert!(second.iter().all(|placement| placement.spec.follows == Some(placement.spec.plan_generation - 1)));
    farm.told("chat", "Rebalanced").await;
    // Its assignment said where the KV cache was, while that was there.
    linked[&slow].assigned.clone().wait_for(|assigned| assigned.len() == 1).await.unwrap();
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_may_apply_a_phone_that_joined() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let _agent = farm.agent("phone-1").await;
    farm.phone_condition("phone-1", "Ready", "True").await;
    let phones = kube::Api::<polyphony_api::Phone>::all(farm.client.clone());
    let manifest = serde_json::json!({
        "apiVersion": "polyphony.dev/v1alpha1", "kind": "Phone", "metadata": { "name": "phone-1" },
        "spec": { "unschedulable": true, "drain": true },
    });
    let applied = phones
        .patch("phone-1", &kube::api::PatchParams::apply("somebody"), &kube::api::Patch::Apply(manifest))
        .await
        .expect("the controller owns no field of a phone's spec");
    assert!(applied.spec.unschedulable && applied.spec.drain);
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    farm.deploy(folder.path()).await;
    let (before, devices) = (farm.available(1).await, farm.devices());
    farm.stop().await;
    drop(agents);
    assert!(!folder.path().join("endpoints.json").exists(), "an orderly end takes the addresses away");

    let farm = Farm::start(folder.path()).await.with_devices(devices);
    let agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    for agent in &agents {
        agent.assigned.clone().wait_for(|assigned| assigned.len() == 1).await.unwrap();
    }
    let after = farm.available(1).await;
    let uids = |placements: &[polyphony_api::SegmentPlacement]| {
        placements.iter().map(|placement| placement.metadata.uid.clone()).collect::<Vec<_>>()
    };
    assert_eq!(uids(&before), uids(&after));
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_fetches_the_manifest_and_checks_each_tensor_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    farm.deploy(folder.path()).await;
    let digest = farm.available(1).await[0].spec.manifest_digest.clone();
    let weights = agents[0].welcome.weights_url.clone();
    let placements = farm.available(1).await;
    let device = async |stage: usize| farm.device(&placements[stage].spec.phone).await;
    let (head, tail) = (device(0).await, device(1).await);

    let (status, json) = fetch(&weights, &format!("/v1alpha1/manifests/{digest}"), &head, None).await;
    assert_eq!(status, 200);
    assert_eq!(hex::encode(Sha256::digest(&json)), digest);
    let manifest: polyphony_model::Manifest = serde_json::from_slice(&json).unwrap();
    manifest.check().unwrap();
    // Of the first layer, which the second phone has not.
    let idx = manifest.tensors.iter().position(|tensor| tensor.name.starts_with("blk.0.")).unwrap();
    let path = format!("/v1alpha1/tensors/{digest}/{idx}");
    let (status, tensor) = fetch(&weights, &path, &head, None).await;
    assert_eq!(status, 200);
    assert!(manifest.tensors[idx].matches(&tensor));
    let (status, rest) = fetch(&weights, &path, &head, Some("bytes=10-")).await;
    assert_eq!((status, rest.as_slice()), (206, &tensor[10..]));
    let (status, _) = fetch(&weights, &path, &tail, None).await;
    assert_eq!(status, 403, "a tensor of another phone's segment");
    let idler = farm.device("phone-3").await;
    for path in [path.clone(), format!("/v1alpha1/manifests/{digest}")] {
        assert_eq!(fetch(&weights, &path, &idler, None).await.0, 403, "a phone that holds nothing: {path}");
    }
    let (status, _) = fetch(&weights, &format!("/v1alpha1/tensors/{digest}/9999"), &head, None).await;
    assert_eq!(status, 404);
    // In plain, without a certificate, and when the Phone is no more.
    let host = weights.strip_prefix("https://").unwrap();
    let mut plain = TcpStream::connect(host).await.unwrap();
    plain.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = plain.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("speaks TLS alone"), "{answer}");
    kube::Api::<polyphony_api::Phone>::all(farm.client.clone())
        .delete(&placements[0].spec.phone, &Default::default())
        .await
        .unwrap();
    until("a deleted phone fetches nothing", async || match fetch(&weights, &path, &head, None).await.0 {
        403 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_deployment_leaves_nothing_on_the_phones() {
    let folder = tempfile::tempdir().unwrap();
    let farm = Farm::start(folder.path()).await;
    let agents = [farm.agent("phone-1").await, farm.agent("phone-2").await];
    farm.deploy(folder.path()).await;
    farm.available(1).await;
    let deployments = kube::Api::<polyphony_api::InferenceDeployment>::default_namespaced(farm.client.clone());
    deployments.delete("chat", &Default::default()).await.unwrap();
    for agent in &agents {
        agent.assigned.clone().wait_for(Vec::is_empty).await.unwrap();
    }
    let placements = kube::Api::<polyphony_api::SegmentPlacement>::default_namespaced(farm.client.clone());
    until("no placement is left", async || {
        let left = placements.list(&Default::default()).await.unwrap().items;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    farm.stop().await;
}

/// What a device fetches, or is refused; gives status and body.
async fn fetch(base: &str, path: &str, device: &Device, range: Option<&str>) -> (u16, Vec<u8>) {
    let name = device.credentials.named(|domain| Name::of_controller(Role::Weights, domain)).dns();
    let address: std::net::SocketAddr = base.strip_prefix("https://").unwrap().parse().unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(device.credentials.client(false, b"http/1.1").unwrap())
        .resolve(&name, address)
        .build()
        .unwrap();
    let mut request = client.get(format!("https://{name}:{}{path}", address.port()));
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
}
