//! Phones and the control plane die without warning; nothing that people have asked for is lost.

use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, real_model, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, model, tiny_model};

const SOON: Duration = Duration::from_secs(60);

fn generation(shelf: &Shelf, name: &str) -> u64 {
    let deployment = shelf.get(&format!("inferencedeployment/{name}")).unwrap();
    deployment["status"]["planGeneration"].as_u64().unwrap_or(0)
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
