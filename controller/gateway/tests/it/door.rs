//! The door: hosts, origins, ids, and prompts that are too much to be read.

use axum::body::Body;
use axum::response::Response;
use futures::future::join_all;
use http::Request;
use polyphony_doorway::{Hosts, Origins};
use polyphony_gateway::GatewayConfig;
use serde_json::json;
use tower::ServiceExt;

use crate::house::{ANSWER, House, config, deployment, read_json, request, ring_a};
use crate::phones::Act;

fn guarded() -> House {
    let hosts = Some(Hosts::new("127.0.0.1".parse().unwrap(), ["gateway.lab.svc"]));
    let config = GatewayConfig { hosts, origins: Origins::new(["http://localhost:3000"]), ..config() };
    House::with(config, deployment(vec![ring_a()]), |_| Act::Token)
}

async fn ask(house: &House, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let builder = headers
        .iter()
        .fold(Request::builder().method(method).uri(path), |builder, (name, value)| builder.header(*name, *value));
    house.gateway.router().oneshot(builder.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn requests_for_foreign_hosts_and_of_foreign_pages_are_refused() {
    let house = guarded();
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(Headers, u16, Option<&str>); 6] = [
        (&[("host", "127.0.0.1:8080")], 200, None),
        (&[("host", "gateway.lab.svc:8080")], 200, None),
        (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")], 200, None),
        (&[("host", "127.0.0.1:8080"), ("origin", "http://localhost:3000")], 200, None),
        (&[("host", "evil.example")], 403, Some("host_not_allowed")),
        (&[("host", "127.0.0.1:8080"), ("origin", "http://evil.example")], 403, Some("origin_not_allowed")),
    ];
    for (headers, status, code) in cases {
        for path in ["/v1/models", "/metrics", "/health"] {
            let response = ask(&house, "GET", path, headers).await;
            let (found, body) = read_json(response).await;
            assert_eq!(found.as_u16(), status, "{headers:?}");
            assert_eq!(body["error"]["code"].as_str(), code, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn pages_of_named_sites_may_read_what_they_ask_for() {
    let house = guarded();
    let own = [("host", "127.0.0.1:8080"), ("origin", "http://localhost:3000")];
    let answered = ask(&house, "GET", "/v1/models", &own).await;
    assert_eq!(answered.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(answered.headers()["vary"], "origin");
    let asked = [
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization, content-type, x-stainless-os"),
    ];
    let preflight = ask(&house, "OPTIONS", "/v1/chat/completions", &[own, asked].concat()).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(preflight.headers()["access-control-allow-headers"], asked[1].1);
    assert!(preflight.headers()["access-control-allow-methods"].to_str().unwrap().contains("POST"));

    let plain = House::good();
    let response = ask(&plain, "GET", "/v1/models", &[("host", "localhost")]).await;
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    assert_eq!(ask(&plain, "GET", "/v1/models", &own).await.status(), 403, "off unless a site is named");
}

#[tokio::test]
async fn every_answer_goes_by_the_requests_own_id_or_one_made_for_it() {
    let house = House::good();
    let given = ask(&house, "GET", "/v1/models", &[("x-request-id", "mine-1")]).await;
    assert_eq!(given.headers()["x-request-id"], "mine-1");
    let too_long = "x".repeat(200);
    for headers in [&[][..], &[("x-request-id", "two words")], &[("x-request-id", &too_long)]] {
        let made = ask(&house, "GET", "/v1/nothing", headers).await;
        assert!(made.headers()["x-request-id"].to_str().unwrap().starts_with("req-"), "{headers:?}");
    }
}

#[tokio::test]
async fn prompts_that_cannot_fit_are_refused_by_their_length_however_many_come_at_once() {
    let house = House::good();
    let prompt = "the quick brown fox ".repeat(190_000);
    let bodies: Vec<String> = vec![request(json!({"prompt": prompt})).to_string(); 8];
    let answers = join_all(bodies.into_iter().map(|body| house.send("POST", "/v1/completions", body))).await;
    for response in answers {
        let (status, body) = read_json(response).await;
        assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("context_length_exceeded")));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("maximum context length is 256 tokens. However, you requested"), "{message}");
        assert!(message.contains("3800000 bytes"), "it was not tokenised: {message}");
    }
    let (_, body) = house.post("/tokenize", json!({"prompt": "the quick brown fox ".repeat(190_000)})).await;
    assert_eq!(body["error"]["code"], "context_length_exceeded");
    assert_eq!(house.phones.prompts(), []);
}

#[tokio::test]
async fn who_finds_no_room_at_once_is_read_when_others_have_been() {
    // Room for one body, and one text, at a time.
    let config = GatewayConfig { bodies_bytes: 1, texts_bytes: 1, ..config() };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    let answers = join_all((0..12).map(|_| house.complete(json!({})))).await;
    assert!(answers.iter().all(|body| body["choices"][0]["text"] == ANSWER));
}
