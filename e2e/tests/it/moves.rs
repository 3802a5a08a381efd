//! Layers move to other phones in the middle of an answer, and whoever reads it notices a pause at most.

use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, real_model, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, model};

/// The sum of a metric's values on the gateway.
pub(crate) async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let (status, text) = gateway.get("/metrics").await.unwrap();
    assert_eq!(status, 200, "{text}");
    let is_wanted = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    text.lines().filter(is_wanted).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn a_drained_phone_hands_its_sessions_over_with_their_kv_cache() {
    let Some(path) = real_model() else { return };
    let shelf = Shelf::up(3, "400Mi").unwrap();
    let manifest = format!("{}---\n{}", model("smollm2", &path), deployment("talk", "smollm2", 2, "f16", 256));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let mut body = json!({
        "model": "talk", "prompt": "Once upon a time", "max_tokens": 240, "temperature": 0.8, "seed": 3,
        "frequency_penalty": 0.5, "ignore_eos": true, "return_token_ids": true,
    });
    let (status, undisturbed) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!(status, 200, "{undisturbed}");

    body["stream"] = json!(true);
    let mut pieces = gateway.stream("/v1/completions", &body).await.unwrap();
    let mut tokens: Vec<Value> = Vec::new();
    let mut drained = None;
    while let Some(piece) = pieces.next().await.unwrap() {
        assert!(piece.get("error").is_none(), "{piece}");
        tokens.extend(piece["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default());
        if tokens.len() >= 10 && drained.is_none() {
            let phone = shelf.phones_of("talk").unwrap()[1].clone();
            // It is empty later: whoever reads the answer is this very test.
            shelf.polyctl(&["drain", &phone, "--timeout=100ms"]).unwrap();
            drained = Some(phone);
        }
    }
    assert_eq!(json!(tokens), undisturbed["choices"][0]["token_ids"]);
    let drained = drained.unwrap();
    wait_until("the drained phone to be empty", Duration::from_secs(60), || {
        Ok((!shelf.phones_of("talk")?.contains(&drained)).then_some(()))
    })
    .unwrap();
    let moved = metric(&gateway, "polyphony_hand_over_seconds_count").await;
    let replayed = metric(&gateway, "polyphony_replays_total").await;
    assert_eq!((moved, replayed), (1.0, 0.0));
    println!("stood still for {} s", metric(&gateway, "polyphony_hand_over_seconds_sum").await);
}
