//! Who shows which key, and what that key may.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use polyphony_gateway::{ClientKey, GatewayConfig, KeyBook};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::house::{House, config, deployment, read_json, request, ring_a};
use crate::phones::Act;

fn key(name: &str, edit: impl FnOnce(&mut ClientKey)) -> ClientKey {
    let hash = ClientKey::hash_of(&format!("sk-{name}"));
    let mut key = ClientKey { name: name.into(), hash, ..ClientKey::default() };
    edit(&mut key);
    key
}

fn house(keys_required: bool, keys: Vec<ClientKey>) -> House {
    let config = GatewayConfig { keys_required, ..config() };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    house.keys.send_replace(Arc::new(KeyBook::new(keys)));
    house
}

struct Answered {
    status: u16,
    body: Value,
    headers: http::HeaderMap,
}

/// A request with what is shown, if anything.
async fn ask(house: &House, method: &str, path: &str, shown: Option<&str>, body: Value) -> Answered {
    let mut asked = Request::builder().method(method).uri(path);
    if let Some(shown) = shown {
        asked = asked.header("authorization", shown);
    }
    let asked = asked.body(Body::from(body.to_string())).unwrap();
    let response = house.gateway.router().oneshot(asked).await.unwrap();
    let headers = response.headers().clone();
    let (status, body) = read_json(response).await;
    Answered { status: status.as_u16(), body, headers }
}

async fn complete(house: &House, shown: Option<&str>) -> Answered {
    ask(house, "POST", "/v1/completions", shown, request(json!({"max_tokens": 4}))).await
}

fn code(answered: &Answered) -> (u16, &str) {
    (answered.status, answered.body["error"]["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn where_keys_are_asked_for_nobody_is_answered_without_one() {
    let house = house(true, vec![key("app", |_| ()), key("old", |key| key.expires_at = Some(1))]);
    let nobody = complete(&house, None).await;
    assert_eq!(
        (code(&nobody), &nobody.headers["www-authenticate"]),
        ((401, "missing_api_key"), &"Bearer".parse().unwrap())
    );
    assert!(nobody.body["error"]["message"].as_str().unwrap().contains("polyctl key create"));
    for wrong in ["Bearer sk-ap", "Bearer ", "Basic sk-app", "Bearer"] {
        let refused = complete(&house, Some(wrong)).await;
        assert_eq!(refused.status, 401, "{wrong}: {}", refused.body);
    }
    assert_eq!(code(&complete(&house, Some("Bearer sk-old")).await), (401, "expired_api_key"));
    for path in ["/v1/models", "/metrics", "/no/such/path"] {
        assert_eq!(ask(&house, "GET", path, None, json!(null)).await.status, 401, "{path}");
    }
    for path in ["/health", "/healthz"] {
        assert_eq!(house.send("GET", path, "").await.status().as_u16(), 200, "{path}");
    }
    assert_eq!(complete(&house, Some("Bearer sk-app")).await.status, 200);
    // A key that is deleted is none at once.
    house.keys.send_replace(Arc::default());
    assert_eq!(code(&complete(&house, Some("Bearer sk-app")).await), (401, "invalid_api_key"));
}

#[tokio::test]
async fn where_none_is_asked_for_a_key_is_known_all_the_same() {
    let house = house(false, vec![key("app", |key| key.requests_per_minute = Some(1))]);
    assert_eq!(complete(&house, None).await.status, 200);
    assert_eq!(complete(&house, Some("Bearer whatever")).await.status, 200, "clients that must send one send any");
    assert_eq!(complete(&house, Some("Bearer sk-app")).await.status, 200);
    assert_eq!(code(&complete(&house, Some("Bearer sk-app")).await), (429, "rate_limit_exceeded"));
}

#[tokio::test]
async fn a_key_asks_its_own_models_and_sees_no_others() {
    let house = house(true, vec![key("app", |key| key.models = vec!["other".into()]), key("all", |_| ())]);
    let refused = complete(&house, Some("Bearer sk-app")).await;
    assert_eq!(code(&refused), (403, "model_not_allowed"));
    let listed =
        async |shown: &str| ask(&house, "GET", "/v1/models", Some(shown), json!(null)).await.body["data"].clone();
    assert_eq!(listed("Bearer sk-app").await.as_array().map(Vec::len), Some(0));
    assert_eq!(listed("Bearer sk-all").await.as_array().map(Vec::len), Some(1));
    let tokenized = ask(&house, "POST", "/tokenize", Some("Bearer sk-app"), json!({"prompt": "fox"})).await;
    assert_ne!(tokenized.status, 200, "the only model there is is not its own: {}", tokenized.body);
}

#[tokio::test]
async fn what_a_key_may_ask_in_a_minute_is_told_and_kept_to() {
    let limited = key("app", |key| (key.requests_per_minute, key.tokens_per_minute) = (Some(3), Some(1000)));
    let small = key("small", |key| key.tokens_per_minute = Some(5));
    let house = house(true, vec![limited, small]);
    let first = complete(&house, Some("Bearer sk-app")).await;
    let header = |answered: &Answered, name: &str| answered.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header(&first, "x-ratelimit-limit-requests"), "3");
    assert_eq!(header(&first, "x-ratelimit-remaining-requests"), "2");
    assert_eq!(header(&first, "x-ratelimit-limit-tokens"), "1000");
    assert!(header(&first, "x-ratelimit-reset-requests").ends_with("ms"));
    let used = first.body["usage"]["total_tokens"].as_u64().unwrap();
    let second = complete(&house, Some("Bearer sk-app")).await;
    let remaining: u64 = header(&second, "x-ratelimit-remaining-tokens").parse().unwrap();
    // It fills meanwhile, by 17 tokens a second.
    assert!((1000 - 2 * used..=1000 - 2 * used + 200).contains(&remaining), "{remaining} of 1000, {used} used twice");
    complete(&house, Some("Bearer sk-app")).await;
    let refused = complete(&house, Some("Bearer sk-app")).await;
    assert_eq!(code(&refused), (429, "rate_limit_exceeded"));
    assert_eq!(refused.body["error"]["type"], "rate_limit_error");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("3 a minute"), "{}", refused.body);
    assert!((1..=20).contains(&header(&refused, "retry-after").parse::<u64>().unwrap()));
    // Tokens are known afterwards: what was used beyond them is waited for.
    assert_eq!(complete(&house, Some("Bearer sk-small")).await.status, 200);
    let refused = complete(&house, Some("Bearer sk-small")).await;
    assert!(
        refused.status == 429 && refused.body["error"]["message"].as_str().unwrap().contains("tokens"),
        "{}",
        refused.body
    );
    let metrics = house.gateway.metrics().text().unwrap();
    for line in [
        "polyphony_key_requests_total{key=\"app\"} 3",
        "polyphony_key_limited_total{key=\"app\"} 1",
        "polyphony_key_limited_total{key=\"small\"} 1",
        &format!("polyphony_key_tokens_total{{key=\"app\"}} {}", 3 * used),
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    // It goes with its key.
    house.keys.send_replace(Arc::default());
    assert!(!house.gateway.metrics().text().unwrap().contains("key=\"app\""));
}
