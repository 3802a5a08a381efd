//! Phones and the control plane die without warning; nothing that people have asked for is lost.

use std::time::{Duration, Instant};

use polyphony_e2e::shelf::{Shelf, golden_file, real_model, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::manifests::{deployment, model, tiny_model};
use crate::moves::metric;

const SOON: Duration = Duration::from_secs(60);

fn generation(shelf: &Shelf, name: &str) -> u64 {
    let deployment = shelf.get(&format!("inferencedeployment/{name}")).unwrap();
    deployment["status"]["planGeneration"].as_u64().unwrap_or(0)
}

/// Which placements there are, and whether they are to go.
fn placements(shelf: &Shelf) -> Vec<Value> {
    let all = shelf.list("segmentplacements").unwrap();
    all.iter().map(|one| json!([one["metadata"]["uid"], one["metadata"]["deletionTimestamp"]])).collect()
}

fn is_available(deployment: &Value) -> bool {
    let conditions = deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Available" && condition["status"] == "True")
}

#[tokio::test]
async fn a_killed_idle_agent_is_replaced_and_the_story_is_told() {
    let shelf = Shelf::up(3, "64Mi").unwrap();
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body =
        json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 8, "temperature": 0, "return_token_ids": true});
    let (status, before) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{before}");

    let lost = shelf.phones_of("talk").unwrap()[0].clone();
    let metrics = shelf.metrics(&lost).unwrap();
    assert!(metrics.contains("# HELP polyphony_"), "{metrics}");
    let old = generation(&shelf, "talk");
    shelf.kill(&lost).unwrap();
    wait_until("a new plan on the other two", SOON, || {
        // One object says both: the newest plan, and that it answers.
        let deployment = shelf.get("inferencedeployment/talk")?;
        let is_new = deployment["status"]["planGeneration"].as_u64() > Some(old) && is_available(&deployment);
        Ok(is_new.then_some(()))
    })
    .unwrap();
    let phones = shelf.phones_of("talk").unwrap();
    assert!(phones.len() == 2 && !phones.contains(&lost), "{phones:?}");
    let (status, after) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{after}");
    assert_eq!(after["choices"][0]["token_ids"], before["choices"][0]["token_ids"]);

    let story = shelf.polyctl(&["describe", "inferencedeployment", "talk"]).unwrap().ok().unwrap().stdout;
    for part in ["Events:", &lost, "Available"] {
        assert!(story.contains(part), "{part} is not in\n{story}");
    }
    let phone = shelf.get(&format!("phone/{lost}")).unwrap();
    let ready =
        phone["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_ne!(ready["status"], "True", "{phone}");
    wait_until("the lost phone's placements to go", SOON, || {
        Ok(shelf.list("segmentplacements")?.iter().all(|one| one["spec"]["phone"] != lost.as_str()).then_some(()))
    })
    .unwrap();
}

#[tokio::test]
async fn a_killed_phone_loses_no_token_of_an_answer() {
    let Some(path) = real_model() else { return };
    let shelf = Shelf::up(3, "400Mi").unwrap();
    let manifest = format!("{}---\n{}", model("smollm2", &path), deployment("talk", "smollm2", 2, "f16", 256));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut body = json!({
        "model": "talk", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0.8, "seed": 3,
        "ignore_eos": true, "return_token_ids": true,
    });
    let (status, undisturbed) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{undisturbed}");

    body["stream"] = json!(true);
    let mut pieces = gateway.stream("/v1/completions", &body).await.unwrap();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut is_killed = false;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert!(piece.get("error").is_none(), "{piece}");
        let choice = &piece["choices"][0];
        text += choice["text"].as_str().unwrap_or_default();
        tokens.extend(choice["token_ids"].as_array().cloned().unwrap_or_default());
        if tokens.len() >= 10 && !is_killed {
            is_killed = true;
            shelf.kill(&shelf.phones_of("talk").unwrap()[1]).unwrap();
        }
    }
    assert!(is_killed);
    assert_eq!(json!(tokens), undisturbed["choices"][0]["token_ids"]);
    assert_eq!(json!(text), undisturbed["choices"][0]["text"]);
}

#[tokio::test]
async fn a_killed_control_plane_finds_everything_again() {
    let shelf = Shelf::planned("cpu", 2, "64Mi").unwrap();
    shelf.start().unwrap();
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let names = |kind: &str| -> Vec<Value> {
        let objects = shelf.list(kind).unwrap();
        objects.iter().map(|one| json!([one["metadata"]["name"], one["metadata"]["uid"], one["spec"]])).collect()
    };
    let kinds = ["phones", "models", "inferencedeployments", "segmentplacements"];
    let before: Vec<_> = kinds.iter().map(|kind| names(kind)).collect();

    shelf.kill("controller").unwrap();
    let refused = shelf.polyctl(&["get", "phones"]).unwrap();
    assert_ne!(refused.code, 0);
    shelf.start().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body = json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0});
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let after: Vec<_> = kinds.iter().map(|kind| names(kind)).collect();
    assert_eq!(after, before, "the same objects, and the same plan: nothing was planned anew");
}

#[tokio::test]
async fn a_phone_that_died_with_the_control_plane_is_not_called_ready_when_that_is_back() {
    let shelf = Shelf::up(2, "64Mi").unwrap();
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let before = placements(&shelf);
    shelf.kill("controller").unwrap();
    shelf.kill("phone-1").unwrap();
    shelf.start().unwrap();
    let ready = |phone: &str, expected: &str| {
        // Its layers are given up after the grace period of 5 s and 10 s more.
        wait_until(&format!("Ready={expected} of {phone}"), Duration::from_secs(10), || {
            let object = shelf.get(&format!("phone/{phone}"))?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions.into_iter().find(|one| one["type"] == "Ready" && one["status"] == expected))
        })
        .unwrap()
    };
    assert_eq!(ready("phone-1", "Unknown")["reason"], "Awaited");
    assert_eq!(placements(&shelf), before, "nothing is torn down meanwhile");
    ready("phone-2", "True");
}

#[tokio::test]
async fn who_runs_or_waits_on_a_ring_that_is_lost_without_another_is_told_why_within_seconds() {
    let Some(path) = real_model() else { return };
    let shelf = Shelf::up(1, "400Mi").unwrap();
    let of_one_session = deployment("talk", "smollm2", 1, "f16", 2048).replace("maxSessions: 2", "maxSessions: 1");
    shelf.apply(&format!("{}---\n{of_one_session}", model("smollm2", &path))).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body = json!({"model": "talk", "prompt": "Once", "max_tokens": 2000, "temperature": 0, "ignore_eos": true});
    let mut of_stream = body.clone();
    of_stream["stream"] = json!(true);
    let mut pieces = gateway.stream("/v1/completions", &of_stream).await.unwrap();
    pieces.next().await.unwrap().expect("it has begun");
    let broken_off = async {
        let mut last = Value::Null;
        // A stream that breaks off has no `[DONE]`.
        while let Ok(Some(piece)) = pieces.next().await {
            last = piece;
        }
        last["error"].clone()
    };
    let lose = async {
        while metric(&gateway, "polyphony_requests_waiting").await < 1.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        shelf.kill("phone-1").unwrap();
        Instant::now()
    };
    let all = async { tokio::join!(broken_off, gateway.post("/v1/completions", &body), lose) };
    let (broken_off, refused, lost_at) = timeout(SOON, all).await.expect("both are told");
    let (status, refused) = refused.unwrap();
    // Nobody waits out a minute: a phone that only starts again would be back by then.
    assert!(lost_at.elapsed() < Duration::from_secs(25), "{:?}", lost_at.elapsed());
    assert_eq!(broken_off["code"], "no_ring", "{broken_off}");
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("model_not_ready")), "{refused}");
    for error in [&broken_off, &refused["error"]] {
        assert!(error["message"].as_str().unwrap().contains("phone-1"), "{error}");
    }
}

#[tokio::test]
async fn a_model_file_that_is_gone_when_the_control_plane_is_back_is_told_of_until_it_is_there_again() {
    let shelf = Shelf::planned("cpu", 2, "64Mi").unwrap();
    shelf.start().unwrap();
    let (path, away) = (shelf.data_dir().join("tiny.gguf"), shelf.data_dir().join("away.gguf"));
    std::fs::copy(golden_file("tiny/llama_q8_0.gguf"), &path).unwrap();
    let manifest = format!("{}---\n{}", model("tiny", &path), deployment("talk", "tiny", 2, "f16", 128));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let before = placements(&shelf);
    shelf.kill("controller").unwrap();
    std::fs::rename(&path, &away).unwrap();
    shelf.start().unwrap();

    let why = wait_until("the deployment to say that it cannot be asked", SOON, || {
        let deployment = shelf.get("inferencedeployment/talk")?;
        let conditions = deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let unreadable = conditions.iter().find(|condition| condition["reason"] == "ModelUnreadable").cloned();
        Ok(unreadable.filter(|_| !is_available(&deployment)))
    })
    .unwrap();
    let why = why["message"].as_str().unwrap();
    assert!(why.contains("tiny.gguf"), "{why}");
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body = json!({"model": "talk", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0});
    let (status, refused) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 503, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains(why), "{refused}");

    std::fs::rename(&away, &path).unwrap();
    shelf.wait_available("talk").unwrap();
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert_eq!(placements(&shelf), before, "phones have served all the while");
}
