//! What a client reads when a request cannot be answered.

use polyphony_gateway::GatewayConfig;
use serde_json::{Value, json};

use crate::house::{House, config, deployment, read_json, request, ring_a, table};
use crate::phones::Act;

fn assert_error(answer: &(http::StatusCode, Value), status: u16, param: Option<&str>, code: &str) {
    let (found, body) = answer;
    let error = &body["error"];
    let fields: Vec<&String> = error.as_object().unwrap_or_else(|| panic!("no error in {body}")).keys().collect();
    assert_eq!(fields.len(), 4, "{body}");
    assert_eq!((found.as_u16(), &error["param"], &error["code"]), (status, &json!(param), &json!(code)), "{body}");
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()) && error["type"].is_string());
}

#[tokio::test]
async fn every_wrong_request_is_answered_in_openais_form() {
    let house = House::good();
    let with = |extra: Value| request(extra).to_string();
    let user = json!([{"role": "user", "content": "a"}]);
    let cases = [
        ("GET", "/v1/nothing", String::new(), 404, None, "unknown_url"),
        ("GET", "/v1/completions", String::new(), 405, None, "method_not_allowed"),
        ("GET", "/v1/models/absent", String::new(), 404, Some("model"), "model_not_found"),
        ("POST", "/v1/completions", "{".into(), 400, None, "invalid_body"),
        ("POST", "/v1/completions", "[]".into(), 400, None, "invalid_body"),
        ("POST", "/v1/completions", "{}".into(), 400, Some("model"), "missing_required_parameter"),
        ("POST", "/v1/completions", with(json!({"model": "absent"})), 404, Some("model"), "model_not_found"),
        ("POST", "/v1/completions", with(json!({"prompt": null})), 400, Some("prompt"), "missing_required_parameter"),
        ("POST", "/v1/completions", with(json!({"prompt": ""})), 400, Some("prompt"), "invalid_value"),
        ("POST", "/v1/completions", with(json!({"prompt": [1, 384]})), 400, Some("prompt[1]"), "invalid_value"),
        (
            "POST",
            "/v1/completions",
            with(json!({"prompt": vec![1; 256]})),
            400,
            Some("prompt"),
            "context_length_exceeded",
        ),
        ("POST", "/v1/completions", with(json!({"temperature": -1})), 400, Some("temperature"), "invalid_value"),
        ("POST", "/v1/completions", with(json!({"min_p": 2})), 400, Some("min_p"), "invalid_value"),
        ("POST", "/v1/completions", with(json!({"logit_bias": {"384": 1}})), 400, Some("logit_bias"), "invalid_value"),
        ("POST", "/v1/completions", with(json!({"n": 2})), 400, Some("n"), "unsupported_parameter"),
        (
            "POST",
            "/v1/chat/completions",
            json!({"model": "tiny"}).to_string(),
            400,
            Some("messages"),
            "missing_required_parameter",
        ),
        (
            "POST",
            "/v1/chat/completions",
            json!({"model": "tiny", "messages": user}).to_string(),
            400,
            Some("messages"),
            "no_chat_template",
        ),
        ("POST", "/tokenize", "{}".into(), 400, Some("prompt"), "missing_required_parameter"),
        ("POST", "/detokenize", json!({"tokens": [384]}).to_string(), 400, Some("tokens[0]"), "invalid_value"),
    ];
    for (method, path, body, status, param, code) in cases {
        let answer = read_json(house.send(method, path, body).await).await;
        assert_error(&answer, status, param, code);
    }
    assert_eq!(house.phones.prompts(), []);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_told_its_numbers() {
    let house = House::good();
    let (_, body) = house.post("/v1/completions", request(json!({"prompt": vec![1; 300]}))).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(["256", "300", "255"].iter().all(|number| message.contains(number)), "{message}");
}

#[tokio::test]
async fn an_unknown_model_is_told_which_there_are() {
    let (_, body) = House::good().post("/v1/completions", request(json!({"model": "gpt-4"}))).await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("gpt-4") && message.contains("tiny"), "{message}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let house =
        House::with(GatewayConfig { max_body_bytes: 1000, ..config() }, deployment(vec![ring_a()]), |_| Act::Token);
    let answer = house.post("/v1/completions", request(json!({"prompt": "a".repeat(1000)}))).await;
    assert_error(&answer, 413, None, "body_too_large");
}

#[tokio::test]
async fn while_no_ring_is_ready_the_reason_is_told() {
    let house = House::with(config(), deployment(vec![]), |_| Act::Token);
    let response = house.send("POST", "/v1/completions", request(json!({})).to_string()).await;
    assert_eq!(response.headers()["retry-after"], "5");
    let answer = read_json(response).await;
    assert_error(&answer, 503, None, "model_not_ready");
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("2 of 3 phones are Ready"));

    let mut route = deployment(vec![]);
    (route.model_path, route.manifest_digest) = (None, String::new());
    route.unavailable_reason = None;
    house.routes.send_replace(table(route));
    let answer = house.post("/tokenize", json!({"prompt": "a"})).await;
    assert_error(&answer, 503, None, "model_not_ready");
}

#[tokio::test]
async fn a_model_file_that_cannot_be_read_is_named_and_tried_again() {
    let mut route = deployment(vec![ring_a()]);
    route.model_path = Some("absent.gguf".into());
    let house = House::with(config(), route, |_| Act::Token);
    let answer = house.post("/v1/completions", request(json!({}))).await;
    assert_error(&answer, 500, None, "internal_error");
    assert!(answer.1["error"]["message"].as_str().unwrap().contains("absent.gguf"));
    house.routes.send_replace(table(deployment(vec![ring_a()])));
    house.complete(json!({})).await;
}
