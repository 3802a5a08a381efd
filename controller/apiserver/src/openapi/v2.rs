//! OpenAPI v2: what `kubectl apply` asks for when it checks a `kind: List` by itself, in JSON and in its own protobuf.
//!
//! Every kind is here with its name and with open fields: who reads this document to judge objects leaves their fields
//! to the server, which is asked to be strict about each object of a list as about any other. OpenAPI v2 has no words
//! for half of what the schemas say (`oneOf`, `nullable`, …); version 3 says it all.

use serde_json::{Map, Value, json};

use super::components::component;
use super::group_version_kind;
use crate::registry::{Kind, Registry};

/// `Content-Type` of the protobuf form; in an `Accept` header the first dot after `v2` is an `@`.
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

const OPEN_FIELDS: &str = "x-kubernetes-preserve-unknown-fields";
const TYPE: &str = "x-kubernetes-group-version-kind";

/// The document in JSON.
pub fn json(registry: &Registry) -> Value {
    let definitions: Map<String, Value> = definitions(registry)
        .map(|(name, kind)| (name, json!({"type": "object", OPEN_FIELDS: true, TYPE: [kind]})))
        .collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": env!("CARGO_PKG_VERSION")},
        "paths": {},
        "definitions": definitions,
    })
}

/// The document as gnostic's `openapi.v2.Document`; the numbers are those of its `OpenAPIv2.proto`.
pub fn protobuf(registry: &Registry) -> Vec<u8> {
    let mut info = text(1, "Kubernetes");
    info.extend(text(2, env!("CARGO_PKG_VERSION")));
    let mut of_kinds = Vec::new();
    for (name, kind) in definitions(registry) {
        let mut schema = message(22, &text(1, "object"));
        for (extension, value) in [(OPEN_FIELDS, json!(true)), (TYPE, json!([kind]))] {
            let mut named = text(1, extension);
            // An extension's value is a text in YAML, which JSON is.
            named.extend(message(2, &text(2, &value.to_string())));
            schema.extend(message(31, &named));
        }
        let mut named = text(1, &name);
        named.extend(message(2, &schema));
        of_kinds.extend(message(1, &named));
    }
    let mut document = text(1, "2.0");
    document.extend(message(2, &info));
    document.extend(message(8, &[]));
    document.extend(message(9, &of_kinds));
    document
}

fn definitions(registry: &Registry) -> impl Iterator<Item = (String, Value)> {
    registry
        .kinds()
        .map(|kind: &std::sync::Arc<Kind>| (component(kind, &kind.kind), group_version_kind(kind, &kind.kind)))
}

fn text(field: u8, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

/// A field that has a length: a text or a message.
fn message(field: u8, bytes: &[u8]) -> Vec<u8> {
    const HAS_LENGTH: u64 = 2;
    let mut out = varint(u64::from(field) << 3 | HAS_LENGTH);
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}
