//! A server in a temporary directory, driven through its router.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use polyphony_apiserver::{ApiServer, ApiServerConfig, Bearer, Role, User};
use serde_json::{Value, json};
use tower::ServiceExt;

pub const WIDGETS: &str = "/apis/example.dev/v1/namespaces/default/widgets";
pub const MERGE: &str = "application/merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
/// No test waits longer for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A server and the directory of its store.
pub struct Server {
    pub router: Router,
    pub api: Option<ApiServer>,
    pub directory: tempfile::TempDir,
}

/// An answer, with its body read.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// The bytes as JSON; as a text where they are none.
    pub body: Value,
}

/// The lines of an open watch.
pub struct Lines {
    stream: BodyDataStream,
    rest: Vec<u8>,
}

pub fn widget_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.dev"},
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                }},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "color": {"type": "string"}, "replicas": {"type": "integer", "minimum": 0},
                        "size": {"type": "integer", "default": 3},
                    }},
                    "status": {"type": "object", "properties": {
                        "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"},
                    }},
                }}},
            }],
        },
    })
}

/// A widget with a color.
pub fn widget(name: &str, color: &str) -> Value {
    json!({
        "apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": name, "labels": {"color": color}},
        "spec": {"color": color},
    })
}

pub fn open(directory: &Path, file: &str) -> ApiServer {
    let config = ApiServerConfig {
        store_path: directory.join(file),
        token: "token".to_owned(),
        bearers: vec![Bearer {
            token: "look".to_owned(),
            user: User { name: "looker".to_owned(), role: Role::Viewer },
        }],
        by_certificate: None,
        crds: vec![widget_crd()],
        allowed_hosts: Vec::new(),
    };
    ApiServer::open(config).unwrap()
}

// === impl Server ===

impl Server {
    pub fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let api = open(directory.path(), "store.redb");
        Server { router: api.router(), api: Some(api), directory }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (code, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { code, headers, bytes, body }
    }

    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        let request = request(method, path).header("content-type", content_type);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", &Value::Null).await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(request("GET", path).header("accept", accept).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, "application/json", body).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.call("PATCH", path, content_type, body).await
    }

    pub async fn delete(&self, path: &str, body: &Value) -> Answer {
        self.call("DELETE", path, "application/json", body).await
    }

    /// Creates a widget, and answers with what is stored.
    pub async fn widget(&self, name: &str, color: &str) -> Value {
        self.post(WIDGETS, &widget(name, color)).await.is(201)
    }

    pub async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, "application/json").await
    }

    pub async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let request = request("GET", path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Lines { stream: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// Waits until the path answers with `code`.
    pub async fn until(&self, path: &str, code: u16) {
        let wait = async {
            while self.get(path).await.code != code {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{path} never answered {code}"));
    }
}

pub fn request(method: &str, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    request.header("host", "localhost").header("authorization", "Bearer token").header("user-agent", "it/1.0")
}

// === impl Answer ===

impl Answer {
    /// The body, if the code is as expected.
    #[track_caller]
    pub fn is(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{:#}", self.body);
        self.body
    }

    /// The body, if it is a `Status` of this code and reason.
    #[track_caller]
    pub fn fails(self, code: u16, reason: &str) -> Value {
        let body = self.is(code);
        assert_eq!(body["kind"], "Status", "{body:#}");
        assert_eq!(body["reason"], reason, "{body:#}");
        assert_eq!(body["code"], code, "{body:#}");
        body
    }
}

// === impl Lines ===

impl Lines {
    /// The next event as its type and object; none when the watch ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(DEADLINE, self.read()).await.expect("the watch stayed silent")
    }

    async fn read(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                let r#type = event["type"].as_str().unwrap().to_owned();
                return Some((r#type, event["object"].take()));
            }
            self.rest.extend_from_slice(&self.stream.next().await?.unwrap());
        }
    }

    /// The next event as its type and its object's name.
    pub async fn named(&mut self) -> (String, String) {
        let (r#type, object) = self.next().await.expect("the watch ended");
        (r#type, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub fn named(r#type: &str, name: &str) -> (String, String) {
    (r#type.to_owned(), name.to_owned())
}
