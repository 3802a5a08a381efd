//! What goes wrong is said: cause, place and remedy.

use std::net::TcpListener;
use std::time::Duration;

use polyphony_e2e::shelf::{Shelf, golden_file, wait_until};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

use crate::manifests::{deployment, model, tiny_model};

const SOON: Duration = Duration::from_secs(30);

/// Waits for a condition to have that status and reason; its message.
fn message_of(shelf: &Shelf, object: &str, type_: &str, reason: &str) -> String {
    wait_until(&format!("{object} to say {type_} {reason}"), SOON, || {
        let object: Value = shelf.get(object)?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found =
            conditions.iter().find(|one| one["type"] == type_ && one["status"] == "False" && one["reason"] == reason);
        Ok(found.and_then(|one| Some(one["message"].as_str()?.to_owned())))
    })
    .unwrap()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.to_lowercase().contains(&part.to_lowercase()), "{part:?} is not in {message:?}");
    }
}

#[tokio::test]
async fn every_mistake_is_answered_with_cause_place_and_remedy() {
    let shelf = Shelf::up(1, "8Mi").unwrap();

    let truncated = shelf.data_dir().join("truncated.gguf");
    let whole = std::fs::read(golden_file("tiny/llama_q8_0.gguf")).unwrap();
    std::fs::write(&truncated, &whole[..whole.len() * 3 / 4]).unwrap();
    shelf.apply(&model("truncated", &truncated)).unwrap().ok().unwrap();
    assert_says(&message_of(&shelf, "model/truncated", "Resolved", "InvalidFile"), &["truncated.gguf"]);

    let digest = "0".repeat(64);
    shelf
        .apply(&(tiny_model().replace("name: tiny", "name: forged") + &format!("  sha256: {digest}\n")))
        .unwrap()
        .ok()
        .unwrap();
    assert_says(&message_of(&shelf, "model/forged", "Resolved", "DigestMismatch"), &["llama_q4_1.gguf", &digest]);

    shelf.apply(&model("absent", std::path::Path::new("/nowhere/absent.gguf"))).unwrap().ok().unwrap();
    assert_says(&message_of(&shelf, "model/absent", "Resolved", "FileNotFound"), &["/nowhere/absent.gguf"]);

    let misspelt =
        shelf.apply(&deployment("misspelt", "tiny", 1, "f16", 128).replace("maxSessions", "maxSesions")).unwrap();
    assert_eq!(misspelt.code, 1);
    assert_says(&misspelt.stderr, &["manifest.yaml", "spec.maxSesions", "maxSessions"]);
    let wrong_type = shelf
        .apply(&deployment("wrong", "tiny", 1, "f16", 128).replace("contextLength: 128", "contextLength: lots"))
        .unwrap();
    assert_eq!(wrong_type.code, 1);
    assert_says(&wrong_type.stderr, &["manifest.yaml", "spec.contextLength", "integer"]);
    let no_yaml = shelf.apply("apiVersion: [\n").unwrap();
    assert_eq!(no_yaml.code, 1);
    assert_says(&no_yaml.stderr, &["manifest.yaml:2"]);

    // 1 KiB a token of KV cache in all: 65,536 tokens of two sessions need 128 MiB, the phone has 8.
    shelf
        .apply(&format!("{}---\n{}", tiny_model(), deployment("huge", "tiny", 1, "f16", 65_536)))
        .unwrap()
        .ok()
        .unwrap();
    let message = message_of(&shelf, "inferencedeployment/huge", "Available", "InsufficientMemory");
    assert_says(&message, &["MiB"]);

    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let ask = |body: Value| {
        let gateway = gateway.clone();
        async move { gateway.post("/v1/completions", &body).await.unwrap() }
    };
    let (status, answer) = ask(json!({"model": "huge", "prompt": [5]})).await;
    assert_eq!(status, 503, "{answer}");
    assert_says(&answer["error"]["message"].to_string(), &["huge", "MiB"]);
    let (status, answer) = ask(json!({"model": "nobody", "prompt": [5]})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
    let (status, answer) = ask(json!({"model": "huge", "prompt": [5], "temperature": "hot"})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("temperature")), "{answer}");
    let (status, answer) = ask(json!({"model": "huge", "prompt": [100_000]})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("prompt[0]")), "{answer}");
    let (status, text) = gateway.post_text("/v1/chat/completions", "{\"model\": ").await.unwrap();
    assert_eq!(status, 400, "{text}");
    assert_says(&text, &["invalid_request_error", "JSON"]);
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let shelf = Shelf::planned("cpu", 1, "64Mi").unwrap();
    let said = shelf
        .polyctl(&[
            "up",
            "--phones",
            "1",
            "--backend",
            "cpu",
            "--api-port",
            "0",
            "--hub-port",
            "0",
            "--gateway-port",
            &port,
        ])
        .unwrap();
    assert_ne!(said.code, 0);
    assert_says(&said.stderr, &[&port, "--gateway-port", "in use"]);
}
