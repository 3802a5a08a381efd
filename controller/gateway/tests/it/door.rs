//! The door: hosts, origins, ids, prompts that are too much to be read, and bodies that are slow to come.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::future::join_all;
use futures::stream::poll_fn;
use http::Request;
use polyphony_doorway::{Hosts, Origins};
use polyphony_gateway::GatewayConfig;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::house::{ANSWER, House, config, deployment, read_json, request, ring_a};
use crate::phones::Act;

/// What every wait has to be over within.
const DEADLINE: Duration = Duration::from_secs(20);

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

/// A completion of more bytes than a request may have before it takes room.
fn long_request() -> String {
    request(json!({"user": "x".repeat(20_000)})).to_string()
}

/// A body of which most comes at once, and the rest when a test says so.
struct SlowBody {
    sent: mpsc::Sender<Bytes>,
    rest: Bytes,
    /// How often the gateway has asked for more of it.
    asked: Arc<AtomicUsize>,
}

// === impl SlowBody ===

impl SlowBody {
    /// The request with that body, of which its head says that it is so long.
    fn of(text: String, length: usize) -> (Self, Request<Body>) {
        let mut most = Bytes::from(text);
        let rest = most.split_off(most.len() * 9 / 10);
        let (sent, mut pieces) = mpsc::channel(1);
        sent.try_send(most).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let body = Body::from_stream(poll_fn(move |context| {
            counted.fetch_add(1, Ordering::SeqCst);
            pieces.poll_recv(context).map(|piece| piece.map(Ok::<_, Infallible>))
        }));
        let request = Request::post("/v1/completions").header("content-length", length).body(body).unwrap();
        (Self { sent, rest, asked }, request)
    }

    fn is_awaited(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > 1
    }

    /// The rest comes, if anybody still wants it.
    async fn come(self) {
        let _ = self.sent.send(self.rest).await;
    }
}

fn asked(house: &House, request: Request<Body>) -> JoinHandle<Response> {
    let router = house.gateway.router();
    tokio::spawn(async move { router.oneshot(request).await.unwrap() })
}

#[tokio::test]
async fn a_short_request_is_answered_while_any_number_of_long_bodies_are_slow() {
    // They may be as slow as they like.
    let config = GatewayConfig { crowded_within: Duration::from_secs(3600), ..config() };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    let slow: Vec<_> = (0..100).map(|_| SlowBody::of(long_request(), 4_000_000)).collect();
    let slow: Vec<_> = slow.into_iter().map(|(body, request)| (body, asked(&house, request))).collect();
    let n_awaited = || slow.iter().filter(|(body, _)| body.is_awaited()).count();
    house.until("as many are awaited as there is room for", |_| n_awaited() >= 8).await;
    // Within a page, and over it.
    for user in ["x".to_owned(), "x".repeat(40_000)] {
        let answer = timeout(DEADLINE, house.complete(json!({"user": user}))).await;
        assert_eq!(answer.expect("nobody waits for who is slow")["choices"][0]["text"], ANSWER);
    }
    // One that comes in pieces tells no length.
    let text = long_request();
    let pieces: Vec<_> = text.as_bytes().chunks(5_000).map(|piece| Ok::<_, Infallible>(piece.to_vec())).collect();
    let body = Body::from_stream(futures::stream::iter(pieces));
    let answer = timeout(DEADLINE, house.send("POST", "/v1/completions", body)).await;
    assert_eq!(answer.expect("nobody waits for who is slow").status(), 200);
    slow.iter().for_each(|(_, answer)| answer.abort());
}

#[tokio::test]
async fn a_long_body_that_tells_no_length_is_read_as_any_other() {
    let house = House::good();
    let text = request(json!({"user": "x".repeat(1_000_000)})).to_string();
    let pieces: Vec<_> = text.as_bytes().chunks(9_000).map(|piece| Ok::<_, Infallible>(piece.to_vec())).collect();
    let body = Body::from_stream(futures::stream::iter(pieces));
    assert_eq!(house.send("POST", "/v1/completions", body).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_comes_slowly_gives_way_to_who_waits_for_room_and_to_nobody_else() {
    // Room for one, which is its own for no time.
    let config = GatewayConfig {
        bodies_bytes: 24_000,
        crowded_within: Duration::ZERO,
        crowded_bytes_per_second: u64::MAX,
        ..config()
    };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    let slow = || {
        let text = long_request();
        let length = text.len();
        SlowBody::of(text, length)
    };
    let (body, request) = slow();
    let answer = asked(&house, request);
    house.until("it is awaited", |_| body.is_awaited()).await;
    body.come().await;
    assert_eq!(answer.await.unwrap().status(), 200, "nobody minds");

    let (body, request) = slow();
    let answer = asked(&house, request);
    house.until("it is awaited", |_| body.is_awaited()).await;
    let other = timeout(DEADLINE, house.send("POST", "/v1/completions", long_request())).await.expect("it is read");
    assert_eq!(other.status(), 200);
    let refused = answer.await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    let (status, error) = read_json(refused).await;
    assert_eq!((status.as_u16(), &error["error"]["code"]), (503, &json!("too_busy")), "{error}");
    body.come().await;
}

#[tokio::test]
async fn who_finds_no_room_at_once_is_read_when_others_have_been() {
    // Room for one body, and one text, at a time.
    let config = GatewayConfig { bodies_bytes: 1, texts_bytes: 1, ..config() };
    let house = House::with(config, deployment(vec![ring_a()]), |_| Act::Token);
    let answers = join_all((0..12).map(|_| house.send("POST", "/v1/completions", long_request()))).await;
    for answer in answers {
        let (status, body) = read_json(answer).await;
        assert_eq!((status.as_u16(), &body["choices"][0]["text"]), (200, &json!(ANSWER)));
    }
}
