//! Models, readiness, tokens, and chats by a real model's template.

use std::path::PathBuf;

use polyphony_gateway::RouteTable;
use serde_json::json;

use crate::house::{ANSWER, House, PROMPT, config, deployment, read_json, read_stream, ring_a, table, tokens};
use crate::phones::Act;

#[tokio::test]
async fn models_are_listed_ready_or_not() {
    let house = House::good();
    let mut other = deployment(vec![]);
    other.namespace = "lab".into();
    let deployments = [("lab/tiny".to_owned(), other), ("tiny".to_owned(), deployment(vec![ring_a()]))];
    house.routes.send_replace(RouteTable { deployments: deployments.into() }.into());
    let (_, list) = read_json(house.send("GET", "/v1/models", "").await).await;
    let found: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|model| (model["id"].clone(), model["ready"].clone())).collect();
    assert_eq!(found, [(json!("lab/tiny"), json!(false)), (json!("tiny"), json!(true))]);
    for path in ["/v1/models/lab/tiny", "/v1/models/lab%2Ftiny"] {
        let (status, model) = read_json(house.send("GET", path, "").await).await;
        assert_eq!((status.as_u16(), &model["id"], &model["max_model_len"]), (200, &json!("lab/tiny"), &json!(256)));
        assert_eq!((&model["object"], &model["created"]), (&json!("model"), &json!(1_700_000_000)));
    }
}

#[tokio::test]
async fn the_gateway_is_ready_when_any_model_is() {
    let house = House::good();
    let status = async |path: &str| read_json(house.send("GET", path, "").await).await;
    assert_eq!(status("/readyz").await.0, 200);
    house.routes.send_replace(table(deployment(vec![])));
    let (unready, why) = status("/readyz").await;
    assert_eq!((unready.as_u16(), why), (503, json!("tiny: 2 of 3 phones are Ready\n")));
    house.routes.send_replace(RouteTable::default().into());
    assert_eq!(status("/readyz").await.0, 503);
    assert_eq!(status("/healthz").await.0, 200);
}

#[tokio::test]
async fn what_serves_is_answered_by_though_its_file_is_gone() {
    let house = House::good();
    let mut gone = deployment(vec![ring_a()]);
    gone.model_path = None;
    gone.unavailable_reason = Some("there is no file m.gguf".into());
    let request = || json!({"model": "tiny", "prompt": PROMPT});
    house.routes.send_replace(table(gone.clone()));
    let (status, body) = house.post("/v1/completions", request()).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (503, &json!("model_not_ready")), "never read: {body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("there is no file m.gguf"), "{body}");
    assert_eq!(house.send("GET", "/readyz", "").await.status(), 503, "nothing can be asked");
    house.routes.send_replace(table(deployment(vec![ring_a()])));
    assert_eq!(house.post("/v1/completions", request()).await.0, 200);
    house.routes.send_replace(table(gone));
    assert_eq!(house.post("/v1/completions", request()).await.0, 200);
}

#[tokio::test]
async fn who_asks_while_the_file_is_looked_at_after_a_start_waits_for_it() {
    let mut early = deployment(vec![ring_a()]);
    early.model_path = None;
    let house = House::with(config(), early.clone(), |_| Act::Token);
    let mut asked = Box::pin(house.complete(json!({})));
    tokio::select! {
        _ = &mut asked => panic!("nothing has read the file"),
        () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
    }
    house.routes.send_replace(table(deployment(vec![ring_a()])));
    assert_eq!(asked.await["choices"][0]["text"], ANSWER);

    let house = House::with(config(), early, |_| Act::Token);
    let close = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        house.gateway.close();
    };
    let request = json!({"model": "tiny", "prompt": PROMPT});
    let ((_, body), ()) = tokio::join!(house.post("/v1/completions", request), close);
    assert_eq!(body["error"]["code"], "shutting_down");
}

#[tokio::test]
async fn text_becomes_tokens_and_text_again() {
    let house = House::good();
    let (status, body) = house.post("/tokenize", json!({"prompt": ANSWER, "return_token_strs": true})).await;
    let expected = tokens(ANSWER);
    assert_eq!((status.as_u16(), &body["tokens"], &body["count"]), (200, &json!(expected), &json!(expected.len())));
    assert_eq!((&body["max_model_len"], body["token_strs"].as_array().unwrap().len()), (&json!(256), expected.len()));
    let (_, body) = house.post("/detokenize", json!({"model": "tiny", "tokens": expected})).await;
    assert_eq!(body, json!({"prompt": ANSWER}));
}

#[tokio::test]
async fn echo_puts_the_prompt_before_the_answer() {
    let house = House::good();
    for prompt in [json!(PROMPT), json!(tokens(PROMPT))] {
        let body = house.complete(json!({"prompt": prompt, "echo": true})).await;
        assert_eq!(body["choices"][0]["text"], format!("{PROMPT}{ANSWER}"));
    }
}

/// The model that `make demo` fetches, if it is there.
fn real_model() -> Option<PathBuf> {
    let cache = std::env::var_os("POLYPHONY_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(base.join("polyphony"))
    })?;
    Some(cache.join("models").join("SmolLM2-135M-Instruct.Q4_1.gguf")).filter(|path| path.is_file())
}

#[tokio::test]
async fn a_chat_goes_through_the_models_own_template() {
    let Some(path) = real_model() else {
        polyphony_skip::skipped("SmolLM2-135M-Instruct.Q4_1.gguf is not in the cache; `make setup` fetches it");
        return;
    };
    let mut route = deployment(vec![ring_a()]);
    route.model_path = Some(path);
    route.manifest_digest = "smollm2".into();
    // The answer's tokens are of the tiny model's vocabulary: any tokens do.
    let house = House::with(config(), route, |_| Act::Token);
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/golden/smollm2-135m-instruct-q4_1.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    for case in golden["cases"].as_array().unwrap().iter().filter(|case| case["messages"].is_array()) {
        let body = json!({"model": "tiny", "messages": case["messages"], "max_tokens": 6, "return_token_ids": true, "logprobs": true, "top_logprobs": 2});
        let (status, whole) = house.post("/v1/chat/completions", body.clone()).await;
        assert_eq!((status.as_u16(), &whole["prompt_token_ids"]), (200, &case["prompt_ids"]), "{whole}");
        let choice = &whole["choices"][0];
        assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("length")));
        let logprobs = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!(logprobs.len(), 6);
        assert!(
            logprobs
                .iter()
                .all(|entry| entry["top_logprobs"].as_array().unwrap().len() == 2 && entry["bytes"].is_array())
        );

        let mut streaming = body;
        streaming["stream"] = json!(true);
        let streamed = read_stream(house.send("POST", "/v1/chat/completions", streaming.to_string()).await).await;
        assert_eq!(streamed.events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(streamed.events[0]["prompt_token_ids"], case["prompt_ids"]);
        assert_eq!(streamed.events[0]["object"], "chat.completion.chunk");
        let content: String = streamed.choices().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(content, choice["message"]["content"]);
        assert_eq!(json!(streamed.token_ids()), choice["token_ids"]);
        assert_eq!(streamed.finish_reasons(), ["length"]);
        assert!(streamed.is_done);

        let (_, body) = house.post("/tokenize", json!({"messages": case["messages"]})).await;
        assert_eq!(body["tokens"], case["prompt_ids"]);
    }
}
