//! Bodies of the gateway's requests: JSON of a completion, a chat or a text to be tokenised, for a model of which no phone answers. Each gets an answer
//! of OpenAI's form, and none of them is a fault of ours.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use polyphony_gateway::{DeploymentRoute, Gateway, GatewayConfig, PhoneLinks, RouteTable, Unsent};
use polyphony_protocol::Frame;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower::ServiceExt;

const PATHS: [&str; 4] = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"];

struct NoPhones;

impl PhoneLinks for NoPhones {
    fn send(&self, phone: &str, _: Frame) -> Result<(), Unsent> {
        Err(Unsent::Gone(phone.to_owned()))
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made")
});

/// A model with a tokenizer and a template, on no ring.
static GATEWAY: LazyLock<Arc<Gateway>> = LazyLock::new(|| {
    let model = PathBuf::from(std::env::var("FUZZ_MODEL").expect("FUZZ_MODEL names a GGUF file with a chat template"));
    let route = DeploymentRoute {
        namespace: "default".into(),
        name: "m".into(),
        model_path: Some(model),
        manifest_digest: "0".into(),
        context_length: 64,
        max_sessions: 1,
        unavailable_reason: Some("no phone is there".into()),
        ..DeploymentRoute::default()
    };
    let table = RouteTable { deployments: BTreeMap::from([("m".to_owned(), route)]) };
    let (routes, keys) = (watch::channel(Arc::new(table)).1, watch::channel(Arc::default()).1);
    Gateway::new(GatewayConfig::default(), Arc::new(NoPhones), routes, keys)
});

fuzz_target!(|data: &[u8]| {
    let Some((&first, body)) = data.split_first() else { return };
    let path = PATHS[usize::from(first) % PATHS.len()];
    RUNTIME.block_on(async {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(body.to_vec()));
        let request = request.expect("a path and a body are a request");
        let response = GATEWAY.router().oneshot(request).await.expect("a router answers");
        let status = response.status();
        let said = to_bytes(response.into_body(), 8 << 20).await.expect("an answer ends");
        assert!(status == StatusCode::SERVICE_UNAVAILABLE || status.as_u16() < 500, "{status}: {said:?}");
        if !status.is_success() {
            let error: serde_json::Value = serde_json::from_slice(&said).expect("an error is JSON");
            assert!(error["error"]["message"].is_string(), "{error}");
        }
    });
});
