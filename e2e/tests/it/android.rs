//! Rings over devices that adb lists: `$POLYPHONY_ANDROID_SERIALS`, or cheap ones, which `make e2e-android` starts.
//!
//! They reach this machine over adb, and each other over the hub.

#[path = "android/cluster.rs"]
mod cluster;
#[path = "android/farm.rs"]
mod farm;

use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, golden_file, real_model, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, model};
use crate::moves::metric;
use cluster::{Cluster, is, serials};

const SOON: Duration = Duration::from_secs(90);
/// Long enough for a plan to change under it.
const N_STREAMED: usize = 400;

/// A tiny model of five layers: one for each of four devices and this machine.
fn five_layers() -> String {
    model("tiny", &golden_file("tiny/smollm3.gguf").canonicalize().unwrap())
}

fn serve(shelf: &Shelf, model: &str, name: &str, phones: usize) -> Gateway {
    shelf.apply(&format!("{model}---\n{}", deployment("talk", name, phones, "f32", 512))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap()
}

async fn tokens(gateway: &Gateway) -> Value {
    let body = json!({
        "model": "talk", "prompt": [5, 6, 7], "max_tokens": 48, "temperature": 0, "ignore_eos": true, "return_token_ids": true,
    });
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let tokens = answer["choices"][0]["token_ids"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(48), "{answer}");
    tokens
}

/// A long answer of a real model, which `disturb` is called in the middle of.
async fn stream(gateway: &Gateway, mut disturb: impl FnMut()) -> Value {
    let body = json!({
        "model": "talk", "prompt": "Once upon a time", "max_tokens": N_STREAMED, "temperature": 0.8, "seed": 3,
        "frequency_penalty": 0.5, "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let mut pieces = gateway.stream("/v1/completions", &body).await.unwrap();
    let mut tokens: Vec<Value> = Vec::new();
    let mut is_disturbed = false;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert!(piece.get("error").is_none(), "{piece}");
        tokens.extend(piece["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default());
        if tokens.len() >= 10 && !is_disturbed {
            is_disturbed = true;
            disturb();
        }
    }
    assert!(is_disturbed && tokens.len() == N_STREAMED, "{} tokens", tokens.len());
    json!(tokens)
}

/// A device of the ring. Who plans may exchange one for another at any time.
fn device_of(shelf: &Shelf) -> String {
    let ring = shelf.phones_of("talk").unwrap();
    ring.into_iter()
        .find(|name| name.starts_with("adb-"))
        .expect("a ring of two has a device: one agent is this machine's")
}

/// Sessions that went on elsewhere, with their caches or by being replayed.
async fn moved(gateway: &Gateway) -> f64 {
    metric(gateway, "polyphony_hand_over_seconds_count").await + metric(gateway, "polyphony_replays_total").await
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn devices_join_by_token_over_adb_and_answer_in_a_ring_with_this_machine_as_its_own_processes_do() {
    let (_guard, serials) = serials().await;
    // As many stages as the model has layers, at most.
    let serials = &serials[..serials.len().min(4)];
    let n_phones = serials.len() + 1;
    let together = Shelf::up(n_phones, "64Mi").unwrap();
    let expected = tokens(&serve(&together, &five_layers(), "tiny", n_phones)).await;
    drop(together);

    let cluster = Cluster::up(serials, 1, "64Mi");
    for name in cluster.names() {
        // A device's own key was recorded when its token was used: from then on nothing else is a proof of that name.
        let phone = cluster.shelf.get(&format!("phone/{name}")).unwrap();
        assert!(phone["status"]["publicKey"].as_str().is_some_and(|key| key.starts_with("sha256:")), "{phone}");
        assert!(!cluster.log(&name).contains("panicked"), "{}", cluster.log(&name));
    }
    let gateway = serve(&cluster.shelf, &five_layers(), "tiny", n_phones);
    let mut ring = cluster.shelf.phones_of("talk").unwrap();
    ring.sort_unstable();
    assert_eq!(ring, [cluster.names(), vec!["phone-1".to_owned()]].concat());
    assert_eq!(tokens(&gateway).await, expected);
    let story = cluster.shelf.polyctl(&["describe", "inferencedeployment", "talk"]).unwrap().ok().unwrap().stdout;
    assert!(story.contains("Over The Hub:"), "nobody dials a device:\n{story}");
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn a_device_that_is_low_and_one_that_is_hot_are_drained_in_mid_stream_and_the_answer_is_whole() {
    let (_guard, serials) = serials().await;
    let Some(path) = real_model() else { return };
    let cluster = Cluster::up_for_losses(&serials, "400Mi");
    let gateway = serve(&cluster.shelf, &model("smollm2", &path), "smollm2", 2);
    let undisturbed = stream(&gateway, || {}).await;
    for (percent, celsius, condition) in [(7, 30.0, "BatteryLow"), (90, 71.0, "ThermalPressure")] {
        let before = moved(&gateway).await;
        let mut device = String::new();
        let disturb = || {
            device = device_of(&cluster.shelf);
            cluster.offer_spare();
            cluster.feel(&device, percent, celsius);
        };
        assert_eq!(stream(&gateway, disturb).await, undisturbed, "{condition}");
        assert!(moved(&gateway).await > before, "{condition}: the answer did not leave {device}");
        wait_until(&format!("{device} to be empty"), SOON, || {
            Ok((!cluster.shelf.phones_of("talk")?.contains(&device)).then_some(()))
        })
        .unwrap();
        let phone = cluster.shelf.get(&format!("phone/{device}")).unwrap();
        assert!(is(&phone, condition), "{phone}");
        // The next condition is another device's.
        cluster.feel(&device, 90, 30.0);
        wait_until(&format!("{device} to be well"), SOON, || {
            Ok((!is(&cluster.shelf.get(&format!("phone/{device}"))?, condition)).then_some(()))
        })
        .unwrap();
        cluster.withdraw_spare();
        cluster.shelf.wait_available("talk").unwrap();
    }
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn a_device_that_is_lost_in_mid_stream_is_replayed_and_the_answer_is_whole() {
    let (_guard, serials) = serials().await;
    let Some(path) = real_model() else { return };
    let mut cluster = Cluster::up_for_losses(&serials, "400Mi");
    let gateway = serve(&cluster.shelf, &model("smollm2", &path), "smollm2", 2);
    let undisturbed = stream(&gateway, || {}).await;
    let mut device = String::new();
    let disturb = || {
        device = device_of(&cluster.shelf);
        cluster.offer_spare();
        cluster.lose(&device);
    };
    assert_eq!(stream(&gateway, disturb).await, undisturbed);
    assert!(metric(&gateway, "polyphony_replays_total").await >= 1.0);
    assert!(!cluster.shelf.phones_of("talk").unwrap().contains(&device));
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn a_restarted_device_joins_again_without_a_token() {
    let (_guard, serials) = serials().await;
    let serials = &serials[..serials.len().min(4)];
    let mut cluster = Cluster::up(serials, 1, "64Mi");
    let n_phones = serials.len() + 1;
    let gateway = serve(&cluster.shelf, &five_layers(), "tiny", n_phones);
    let expected = tokens(&gateway).await;
    let name = cluster.names()[0].clone();
    let key = |cluster: &Cluster| cluster.shelf.get(&format!("phone/{name}")).unwrap()["status"]["publicKey"].clone();
    let before = key(&cluster);
    cluster.device(&name).restart().unwrap();
    wait_until("the host to notice", SOON, || {
        Ok((!is(&cluster.shelf.get(&format!("phone/{name}"))?, "Ready")).then_some(()))
    })
    .unwrap();
    cluster.run(&name, "64Mi");
    cluster.wait_ready(std::slice::from_ref(&name));
    assert_eq!(key(&cluster), before, "it is the device that it was");
    cluster.shelf.wait_available("talk").unwrap();
    assert_eq!(tokens(&gateway).await, expected);
}
