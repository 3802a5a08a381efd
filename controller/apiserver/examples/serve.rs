//! Serves the API with one little kind, to try `kubectl` against it: `serve ADDRESS DIRECTORY TOKEN`.

use std::sync::Arc;

use polyphony_identity::{Audience, Authority, Clock, Credentials, DEFAULT_DOMAIN, Key, Lifetimes, Name, Role};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use polyphony_apiserver::{ApiServer, ApiServerConfig, Credential, kubeconfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next =
        |name: &str| arguments.next().ok_or_else(|| format!("no {name} given: serve ADDRESS DIRECTORY TOKEN"));
    let (address, directory, token) = (next("address")?, next("directory")?, next("token")?);
    let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
        "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"}, "message": {"type": "string"},
        "lastTransitionTime": {"type": "string", "format": "date-time"}, "observedGeneration": {"type": "integer"},
    }});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.dev"},
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                }},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                    {"name": "Note", "type": "string", "jsonPath": ".spec.note", "priority": 1},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object", "description": "A widget, to try things with.", "required": ["spec"],
                    "properties": {
                        "spec": {"type": "object", "required": ["color"], "description": "What is wanted.", "properties": {
                            "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1, "description": "How many."},
                            "color": {"type": "string", "enum": ["red", "green", "blue"], "description": "Which color."},
                            "note": {"type": "string"},
                            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                        }, "x-kubernetes-validations": [
                            {"rule": "self.color != 'red' || self.replicas < 5", "message": "red widgets come in fours at most"},
                        ]},
                        "status": {"type": "object", "properties": {
                            "replicas": {"type": "integer"},
                            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                                "items": condition},
                        }},
                    },
                }},
            }],
        },
    });
    let config = ApiServerConfig {
        store_path: std::path::Path::new(&directory).join("store.redb"),
        token: token.clone(),
        bearers: Vec::new(),
        by_certificate: None,
        crds: vec![crd],
        allowed_hosts: Vec::new(),
    };
    let server = ApiServer::open(config)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    // kubectl sends no token over plain HTTP.
    let (identity, now) = (Name::of_controller(Role::Api, DEFAULT_DOMAIN), Clock::system().now());
    let (authority, key) = (Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), now)?, Key::generate()?);
    let papers = authority.certify_server(&key, &identity, &[listener.local_addr()?.ip().to_string()], now)?;
    let tls = Credentials::new(&key, &papers, Clock::system())?.server(Audience::Anybody, b"http/1.1")?;
    let url = format!("https://{}", listener.local_addr()?);
    let written = kubeconfig(&url, &papers.roots_pem(), "polyphony", Credential::Token(&token));
    std::fs::write(std::path::Path::new(&directory).join("kubeconfig"), written)?;
    println!("listening on http://{}", listener.local_addr()?);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.serve(listener, Some(Arc::new(tls).into()), shutdown).await;
    Ok(())
}
