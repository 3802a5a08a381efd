//! The API over a script in place of rings: nothing below the seam is needed to answer.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::StatusCode;
use polyphony_model::Tokenizer;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::*;
use crate::answer::{End, FinishReason, Output, Piece};
use crate::callers::Callers;
use crate::config::GatewayConfig;
use crate::metrics::Metrics;
use crate::routes::{DeploymentRoute, RouteTable};
use crate::sessions::{Answer, Sessions};

/// Answers every prompt with these outputs, and remembers what was asked.
struct Script {
    table: Arc<RouteTable>,
    text: Arc<ModelText>,
    outputs: Vec<Output>,
    asked: Mutex<Vec<Vec<u32>>>,
}

impl Sessions for Script {
    fn models(&self) -> Arc<RouteTable> {
        self.table.clone()
    }

    fn model<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Model, ApiError>> {
        let route = self.table.deployments[id].clone();
        async move { Ok(Model { id: id.to_owned(), route, text: self.text.clone() }) }.boxed()
    }

    fn start(self: Arc<Self>, job: Job) -> BoxFuture<'static, Result<Answer, ApiError>> {
        self.asked.lock().unwrap().push(job.prompt);
        let (said, outputs) = mpsc::channel(self.outputs.len());
        self.outputs.iter().for_each(|output| said.try_send(output.clone()).unwrap());
        async { Ok(Answer::new(outputs)) }.boxed()
    }
}

async fn ask(outputs: Vec<Output>, body: Value) -> (StatusCode, Value, Vec<Vec<u32>>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../e2e/golden/tiny/llama_q8_0.gguf");
    let tokenizer = Tokenizer::open(std::path::Path::new(path)).unwrap();
    ask_with(tokenizer, 64, outputs, body).await
}

async fn ask_with(
    tokenizer: Tokenizer,
    context_length: u32,
    outputs: Vec<Output>,
    body: Value,
) -> (StatusCode, Value, Vec<Vec<u32>>) {
    let tokenizer = Arc::new(tokenizer);
    let route = DeploymentRoute { context_length, max_sessions: 1, ..Default::default() };
    let table = Arc::new(RouteTable { deployments: BTreeMap::from([("m".to_owned(), route)]) });
    let text = Arc::new(ModelText { tokenizer, template: None });
    let script = Arc::new(Script { table: table.clone(), text, outputs, asked: Mutex::default() });
    let book = watch::channel(Arc::default()).1;
    let metrics = Metrics::new(watch::channel(table).1, book.clone());
    let callers = Callers::new(false, book, metrics.clone());
    let router = crate::http::router(script.clone(), Arc::new(GatewayConfig::default()), metrics, callers);
    let request = http::Request::post("/v1/completions").body(Body::from(body.to_string())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let asked = script.asked.lock().unwrap().clone();
    (status, serde_json::from_slice(&bytes).unwrap(), asked)
}

fn piece(text: &str) -> Output {
    Output::Piece(Piece { text: text.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn an_answer_is_what_is_said_below_and_what_was_held_back_comes_with_its_end() {
    let end = End { text: " held back".to_owned(), ..End::new(FinishReason::Length) };
    let outputs = vec![piece("One"), piece(" two"), Output::End(end)];
    let (status, body, asked) = ask(outputs, json!({"model": "m", "prompt": [[5, 6], [7]]})).await;
    assert_eq!((status.as_u16(), asked), (200, vec![vec![5, 6], vec![7]]));
    for index in 0..2 {
        let choice = &body["choices"][index];
        assert_eq!((&choice["index"], &choice["text"]), (&json!(index), &json!("One two held back")));
        assert_eq!(choice["finish_reason"], "length");
    }
    assert_eq!(body["usage"], json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}));
}

#[tokio::test]
async fn what_fails_below_is_the_requests_failure() {
    let outputs = vec![piece("One"), Output::Failed(ApiError::model_unsound("m", "NaN"))];
    let (status, body, _) = ask(outputs, json!({"model": "m", "prompt": [5]})).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (500, &json!("model_unsound")));
}

#[tokio::test]
async fn a_text_that_takes_too_much_to_be_cut_by_the_models_own_expression_is_refused() {
    let json = serde_json::json!({"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "a+b|a"}, "behavior": "Isolated"},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}});
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap();
    let body = serde_json::json!({"model": "m", "prompt": "a".repeat(100_000)});
    let (status, answer, asked) = ask_with(tokenizer, 1 << 20, Vec::new(), body).await;
    assert_eq!((status, &answer["error"]["param"]), (StatusCode::BAD_REQUEST, &Value::from("prompt")));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("more than 256 steps a byte") && asked.is_empty(), "{message}");
}
