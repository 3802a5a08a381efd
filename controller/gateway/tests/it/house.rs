//! A gateway with its phones, and a client of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use polyphony_gateway::{DeploymentRoute, Gateway, GatewayConfig, KeyBook, RingRoute, RouteTable};
use polyphony_model::Tokenizer;
use polyphony_protocol::{PlanGeneration, RingId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::phones::{Act, Phones, Step};

/// The text that every ring answers with.
pub const ANSWER: &str =
    "The quick brown fox jumps over the lazy dog.\n\nIt does so é time 🦀 and again, until the end.";
pub const PROMPT: &str = "Tell me of the fox.";

pub static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| Arc::new(Tokenizer::open(&tiny_model()).unwrap()));

pub fn tiny_model() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "e2e", "golden", "tiny", "llama_q8_0.gguf"].iter().collect()
}

pub fn tokens(text: &str) -> Vec<u32> {
    TOKENIZER.encode(text, false).unwrap()
}

pub fn end_token() -> u32 {
    TOKENIZER.end_tokens()[0]
}

/// Short waits, so that tests of deadlines are short; long enough for a busy machine where it must not pass.
pub fn config() -> GatewayConfig {
    GatewayConfig {
        credit_window: 4,
        prefill_allowance: Duration::ZERO,
        suspicion: Duration::from_millis(50),
        replay_pause: Duration::from_millis(1),
        ..Default::default()
    }
}

pub fn ring(number: u64, generation: u32, phones: &[&str]) -> RingRoute {
    RingRoute {
        ring: RingId(number),
        replica: number as u32,
        generation: PlanGeneration(generation),
        phones: phones.iter().map(|&phone| phone.to_owned()).collect(),
        numerics_class: "cpu-f32".into(),
        follows: None,
        moves_sessions: true,
    }
}

pub fn deployment(rings: Vec<RingRoute>) -> DeploymentRoute {
    DeploymentRoute {
        namespace: "default".into(),
        name: "tiny".into(),
        created_seconds: 1_700_000_000,
        model_path: Some(tiny_model()),
        manifest_digest: "tiny".into(),
        context_length: 256,
        max_sessions: 2,
        unavailable_reason: Some("2 of 3 phones are Ready".to_owned()).filter(|_| rings.is_empty()),
        rings,
        is_planned: false,
    }
}

pub fn table(route: DeploymentRoute) -> Arc<RouteTable> {
    Arc::new(RouteTable { deployments: [("tiny".to_owned(), route)].into() })
}

/// Rings of the tests: 1 with generations 1 and 2, and 2.
pub fn ring_a() -> RingRoute {
    ring(1, 1, &["a-head", "a-middle", "a-tail"])
}

pub fn ring_a_next() -> RingRoute {
    ring(1, 2, &["a-head", "a-spare"])
}

/// The same ring, two plans on.
pub fn ring_a_third() -> RingRoute {
    ring(1, 3, &["a-tail", "a-spare"])
}

pub fn ring_b() -> RingRoute {
    ring(2, 1, &["b-head", "b-tail"])
}

pub struct House {
    pub gateway: Arc<Gateway>,
    pub phones: Arc<Phones>,
    pub routes: watch::Sender<Arc<RouteTable>>,
    pub keys: watch::Sender<Arc<KeyBook>>,
}

// === impl House ===

impl House {
    /// One ring; `hook` says what it does at each step.
    pub fn new(hook: impl Fn(Step) -> Act + Send + Sync + 'static) -> Self {
        Self::with(config(), deployment(vec![ring_a()]), hook)
    }

    pub fn with(
        config: GatewayConfig,
        route: DeploymentRoute,
        hook: impl Fn(Step) -> Act + Send + Sync + 'static,
    ) -> Self {
        let rings =
            [ring_a(), ring_a_next(), ring_a_third(), ring_b()].map(|ring| ((ring.ring, ring.generation), ring.phones));
        let (phones, frames) = Phones::new(HashMap::from(rings), tokens(ANSWER), end_token(), Box::new(hook));
        let (routes, receiver) = watch::channel(table(route));
        let (keys, book) = watch::channel(Arc::default());
        let gateway = Gateway::new(config, phones.clone(), receiver, book);
        phones.serve(gateway.clone(), frames);
        Self { gateway, phones, routes, keys }
    }

    /// One ring that works.
    pub fn good() -> Self {
        Self::new(|_| Act::Token)
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Response {
        let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
        self.gateway.router().oneshot(request).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        read_json(self.send("POST", path, body.to_string()).await).await
    }

    /// A completion of the prompt, greedy and as long as it gets, with `extra` fields.
    pub async fn complete(&self, extra: Value) -> Value {
        let (status, body) = self.post("/v1/completions", request(extra)).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The same as a stream.
    pub async fn stream(&self, extra: Value) -> Streamed {
        let mut body = request(extra);
        body["stream"] = json!(true);
        let response = self.send("POST", "/v1/completions", body.to_string()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        read_stream(response).await
    }

    /// The sum of all values of a name in `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.gateway.metrics().text().unwrap();
        let is_wanted = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(is_wanted).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until `is_so`; panics after 10 s.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..2000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}: not within 10 s");
    }

    /// No session runs on ring 1.
    pub fn is_idle(&self) -> bool {
        self.gateway.sessions_in(RingId(1), PlanGeneration(1)) == 0
    }
}

pub fn request(extra: Value) -> Value {
    let mut body = json!({"model": "tiny", "prompt": PROMPT, "temperature": 0, "max_tokens": 200});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A stream as its client saw it.
#[derive(Debug)]
pub struct Streamed {
    /// Every event but `[DONE]`.
    pub events: Vec<Value>,
    pub is_done: bool,
}

impl Streamed {
    pub fn choices(&self) -> impl Iterator<Item = &Value> {
        self.events.iter().filter_map(|event| event["choices"].get(0))
    }

    pub fn text(&self) -> String {
        self.choices().filter_map(|choice| choice["text"].as_str()).collect()
    }

    pub fn token_ids(&self) -> Vec<u64> {
        let ids = self.choices().filter_map(|choice| choice["token_ids"].as_array()).flatten();
        ids.map(|id| id.as_u64().unwrap()).collect()
    }

    pub fn finish_reasons(&self) -> Vec<&str> {
        self.choices().filter_map(|choice| choice["finish_reason"].as_str()).collect()
    }
}

pub async fn read_json(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))))
}

pub async fn read_stream(response: Response) -> Streamed {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let events = text.split_terminator("\n\n").filter(|event| !event.starts_with(':'));
    let mut data: Vec<&str> = events.map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let is_done = data.pop_if(|last| *last == "[DONE]").is_some();
    Streamed { events: data.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect(), is_done }
}
