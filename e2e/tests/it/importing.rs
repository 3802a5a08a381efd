//! A model of a hub, from its name to an answer.

use polyphony_e2e::shelf::{Shelf, golden_file};
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::manifests::deployment;
use crate::model_hub::{ModelHub, Repository};

#[tokio::test]
async fn a_model_is_imported_by_its_name_on_a_hub_and_answers() {
    let hub = ModelHub::start();
    let bytes = std::fs::read(golden_file("tiny/llama_q4_1.gguf")).unwrap();
    let n_bytes = bytes.len();
    let readme = b"# Tiny".to_vec();
    hub.put("tiny/Llama-GGUF", Repository::new('d', &[("README.md", readme), ("llama-Q4_1.gguf", bytes)]));
    // The way breaks in the middle, and then again.
    hub.fail(|faults| faults.breaks = [n_bytes / 2, n_bytes / 4].into());
    let cache = tempfile::tempdir().unwrap();
    let shelf = Shelf::planned("cpu", 1, "64Mi")
        .unwrap()
        .with_environment(&[("HF_ENDPOINT", hub.url.as_str()), ("POLYPHONY_CACHE", cache.path().to_str().unwrap())]);
    shelf.start_with(&["--model-private-addresses"]).unwrap();

    let said = shelf.polyctl(&["model", "import", "hf://tiny/Llama-GGUF:Q4_1"]).unwrap().ok().unwrap();
    assert_eq!(said.stdout, "model.polyphony.dev/llama.q4-1 created\n");
    assert!(said.stderr.contains(&format!("commit {}; kept as ", "d".repeat(40))), "{}", said.stderr);
    let of_store: Vec<_> = hub.asked().into_iter().filter(|asked| asked.of == "store").collect();
    assert!(of_store.len() == 3 && of_store[2].range.is_some(), "{of_store:?}");
    let model = shelf.get("model/llama.q4-1").unwrap();
    assert_eq!(model["status"]["commit"], "d".repeat(40));
    assert_eq!(model["status"]["progress"], serde_json::Value::Null);
    let again = shelf.polyctl(&["model", "import", "hf://tiny/Llama-GGUF:Q4_1"]).unwrap().ok().unwrap();
    assert_eq!(again.stdout, "model.polyphony.dev/llama.q4-1 unchanged\n");
    let shown = shelf.polyctl(&["model", "show", "llama.q4-1"]).unwrap().ok().unwrap().stdout;
    for part in ["Architecture:", "llama\n", "Ends An Answer:", "feed-forward", "Q4_1", "layers 0-3"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let refused = shelf.polyctl(&["model", "import", "hf://tiny/Llama-GGUF:Q8_0"]).unwrap();
    assert!(
        refused.code != 0 && refused.stderr.contains("EntryNotFound: ") && refused.stderr.contains("llama-Q4_1.gguf")
    );

    shelf.apply(&deployment("chat", "llama.q4-1", 1, "f16", 64)).unwrap().ok().unwrap();
    shelf.wait_available("chat").unwrap();
    let gateway = Gateway::new(&shelf.endpoints().unwrap().gateway).unwrap();
    let body = json!({"model": "chat", "prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true});
    let (status, answer) = gateway.post("/v1/completions", &body).await.unwrap();
    assert_eq!((status, answer["choices"][0]["token_ids"].as_array().map(Vec::len)), (200, Some(4)), "{answer}");

    // A gated one, by a token that a Secret has.
    let files = [("m-Q4_1.gguf", std::fs::read(golden_file("tiny/llama_q4_1.gguf")).unwrap())];
    let gated = Repository { token: Some("hf_secret".into()), is_gated: true, ..Repository::new('e', &files) };
    hub.put("tiny/gated", gated);
    let import = |name: &str, more: &[&str]| {
        let words = [&["model", "import", "hf://tiny/gated", "--name", name], more].concat();
        shelf.polyctl(&words).unwrap()
    };
    let refused = import("without", &[]);
    assert!(refused.code != 0 && refused.stderr.contains("GatedRepo: tiny/gated is gated"), "{}", refused.stderr);
    let refused = import("wrong", &["--token-secret", "hub"]);
    assert!(
        refused.stderr.contains("TokenMissing: ") && refused.stderr.contains("does not exist"),
        "{}",
        refused.stderr
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: hub\nstringData:\n  token: hf_secret\n";
    shelf.apply(secret).unwrap().ok().unwrap();
    import("with", &["--token-secret", "hub"]).ok().unwrap();
    for asked in hub.asked().iter().filter(|asked| asked.of == "store") {
        assert!(!asked.has_token, "{asked:?}");
    }

    // Files stay until they are asked away.
    shelf.polyctl(&["delete", "infer", "chat"]).unwrap().ok().unwrap();
    let folder = cache.path().join("downloads/tiny--Llama-GGUF@dddddddddddd");
    assert!(folder.join("llama-Q4_1.gguf").exists());
    shelf.polyctl(&["delete", "model", "llama.q8-0"]).unwrap().ok().unwrap();
    let removed = shelf.polyctl(&["model", "rm", "llama.q4-1", "--cache"]).unwrap().ok().unwrap();
    assert!(removed.stdout.contains("downloads/tiny--Llama-GGUF@dddddddddddd deleted"), "{}", removed.stdout);
    assert!(!folder.exists());
}
