//! What `GET /metrics` says after requests whose course is known.

use std::sync::Arc;

use polyphony_gateway::{ClientKey, GatewayConfig, KeyBook, RouteTable};
use polyphony_protocol::Epoch;
use polyphony_protocol::frame::FailureCode;
use serde_json::json;

use crate::exposition::{assert_documented, assert_promtool_has_nothing_to_say, families, value};
use crate::house::{ANSWER, House, PROMPT, config, deployment, request, ring_a, table, tokens};
use crate::phones::{Act, Step};

/// Every name of the gateway, and its type.
const NAMES: [(&str, &str); 17] = [
    ("polyphony_e2e_request_latency_seconds", "histogram"),
    ("polyphony_generation_tokens_total", "counter"),
    ("polyphony_hand_over_failures_total", "counter"),
    ("polyphony_hand_over_seconds", "histogram"),
    ("polyphony_ignored_frames_total", "counter"),
    ("polyphony_inter_token_latency_seconds", "histogram"),
    ("polyphony_key_limited_total", "counter"),
    ("polyphony_key_requests_total", "counter"),
    ("polyphony_key_tokens_total", "counter"),
    ("polyphony_prompt_tokens_total", "counter"),
    ("polyphony_replayed_tokens_total", "counter"),
    ("polyphony_replays_total", "counter"),
    ("polyphony_request_failures_total", "counter"),
    ("polyphony_request_success_total", "counter"),
    ("polyphony_requests_running", "gauge"),
    ("polyphony_requests_waiting", "gauge"),
    ("polyphony_time_to_first_token_seconds", "histogram"),
];

async fn scrape(house: &House) -> String {
    let response = house.send("GET", "/metrics", "").await;
    assert_eq!((response.status().as_u16(), &response.headers()["content-type"]), (200, &text_format()));
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn text_format() -> http::HeaderValue {
    http::HeaderValue::from_static("text/plain; version=0.0.4")
}

/// A value of the model `tiny`.
fn of(text: &str, name: &str) -> Option<f64> {
    value(text, name, &[("model_name", "tiny")])
}

fn ended(text: &str, reason: &str) -> Option<f64> {
    value(text, "polyphony_request_success_total", &[("model_name", "tiny"), ("finished_reason", reason)])
}

fn failed(text: &str, model: &str, code: &str) -> Option<f64> {
    value(text, "polyphony_request_failures_total", &[("model_name", model), ("code", code)])
}

#[tokio::test]
async fn every_name_is_there_with_help_and_type_and_stands_in_the_docs() {
    let house = House::good();
    let key = ClientKey { name: "app".into(), ..ClientKey::default() };
    house.keys.send_replace(Arc::new(KeyBook::new([key])));
    house.complete(json!({})).await;
    house.post("/v1/completions", request(json!({"temperature": 9}))).await;
    let text = scrape(&house).await;
    let families = families(&text);
    let found: Vec<(&str, &str)> =
        families.iter().map(|(name, family)| (name.as_str(), family.kind.as_str())).collect();
    assert_eq!(found, NAMES);
    assert_documented(include_str!("../../../../docs/metrics.md"), "Gateway", &families);
    assert_promtool_has_nothing_to_say(&text);
}

#[tokio::test]
async fn a_deployment_counts_from_nought_and_is_forgotten_with_its_object() {
    let house = House::good();
    let text = scrape(&house).await;
    for name in ["polyphony_requests_running", "polyphony_requests_waiting", "polyphony_replays_total"] {
        assert_eq!(of(&text, name), Some(0.0), "{name}");
    }
    house.routes.send_replace(Arc::new(RouteTable::default()));
    assert!(!scrape(&house).await.contains("\"tiny\""));
}

#[tokio::test]
async fn tokens_times_and_endings_are_counted_once_each() {
    let house = House::good();
    house.complete(json!({})).await;
    house.stream(json!({"max_tokens": 3})).await;
    let text = scrape(&house).await;
    let (n_prompt, n_answer) = (tokens(PROMPT).len() as f64, tokens(ANSWER).len() as f64 + 1.0);
    assert_eq!(of(&text, "polyphony_prompt_tokens_total"), Some(2.0 * n_prompt));
    assert_eq!(of(&text, "polyphony_generation_tokens_total"), Some(n_answer + 3.0));
    assert_eq!((ended(&text, "stop"), ended(&text, "length"), ended(&text, "abort")), (Some(1.0), Some(1.0), None));
    assert_eq!(of(&text, "polyphony_time_to_first_token_seconds_count"), Some(2.0));
    assert_eq!(of(&text, "polyphony_e2e_request_latency_seconds_count"), Some(2.0));
    // A client that is slower than its ring makes gaps that do not count.
    let n_gaps = of(&text, "polyphony_inter_token_latency_seconds_count").unwrap();
    assert!((1.0..=n_answer - 1.0 + 2.0).contains(&n_gaps), "{n_gaps}");
    assert_eq!((of(&text, "polyphony_requests_running"), of(&text, "polyphony_replays_total")), (Some(0.0), Some(0.0)));
}

#[tokio::test]
async fn a_replay_counts_what_it_computes_again_and_no_token_twice() {
    const AT: u32 = 6;
    let house = House::new(|step| match (step.key.epoch, step.idx) {
        (Epoch(1), AT) => Act::Fail(FailureCode::PeerGone),
        (Epoch(2), AT) => Act::Twice,
        _ => Act::Token,
    });
    house.stream(json!({})).await;
    let text = scrape(&house).await;
    assert_eq!(of(&text, "polyphony_replays_total"), Some(1.0));
    assert_eq!(of(&text, "polyphony_replayed_tokens_total"), Some((tokens(PROMPT).len() + AT as usize) as f64));
    assert_eq!(of(&text, "polyphony_prompt_tokens_total"), Some(tokens(PROMPT).len() as f64));
    assert_eq!(of(&text, "polyphony_generation_tokens_total"), Some(tokens(ANSWER).len() as f64 + 1.0));
    assert_eq!(of(&text, "polyphony_time_to_first_token_seconds_count"), Some(1.0));
    assert_eq!((ended(&text, "stop"), value(&text, "polyphony_ignored_frames_total", &[])), (Some(1.0), Some(1.0)));
}

#[tokio::test]
async fn every_failure_is_counted_once_by_its_code() {
    let hook = |step: Step| if step.idx < 2 { Act::Token } else { Act::Fail(FailureCode::BadFrame) };
    let house = House::new(hook);
    // Whole and streamed break off with the same code.
    house.post("/v1/completions", request(json!({}))).await;
    house.stream(json!({})).await;
    house.post("/v1/completions", request(json!({"prompt": ""}))).await;
    house.post("/v1/completions", request(json!({"model": "a-name-of-the-clients"}))).await;
    house.post("/v1/chat/completions", json!({"model": "tiny"})).await;
    let text = scrape(&house).await;
    assert_eq!(failed(&text, "tiny", "session_refused"), Some(2.0));
    assert_eq!(failed(&text, "tiny", "invalid_value"), Some(1.0));
    assert_eq!(failed(&text, "", "model_not_found"), Some(1.0));
    assert_eq!(failed(&text, "", "missing_required_parameter"), Some(1.0));
    assert_eq!((ended(&text, "stop"), ended(&text, "abort")), (None, None));
    assert!(!text.contains("a-name-of-the-clients"), "what clients write makes no label");
}

#[tokio::test]
async fn requests_run_wait_and_are_given_up() {
    let mut route = deployment(vec![ring_a()]);
    route.max_sessions = 1;
    let house = House::with(GatewayConfig { max_waiting: 1, ..config() }, route, |step| {
        if step.idx < 1 { Act::Token } else { Act::Hold }
    });
    let body = request(json!({"stream": true})).to_string();
    let first = house.send("POST", "/v1/completions", body.clone()).await;
    let mut second = Box::pin(house.send("POST", "/v1/completions", body));
    tokio::select! {
        _ = &mut second => panic!("there is one place"),
        () = house.until("the second waits", |house| house.metric("polyphony_requests_waiting") == 1.0) => {}
    }
    assert_eq!(house.metric("polyphony_requests_running"), 1.0);
    drop(second);
    assert_eq!(house.metric("polyphony_requests_waiting"), 0.0);
    drop(first);
    house.until("the first is given up", |house| house.metric("polyphony_requests_running") == 0.0).await;
    house.until("both went away", |house| house.metric("polyphony_request_success_total") == 2.0).await;
    assert_eq!(ended(&scrape(&house).await, "abort"), Some(2.0));
    house.routes.send_replace(table(deployment(vec![])));
    assert_eq!(house.metric("polyphony_request_failures_total"), 0.0);
}
