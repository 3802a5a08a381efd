//! OpenAPI: version 3 has an index and one document a group and version, as `kubectl apply` and `kubectl explain` read
//! them; version 2 is one document.

mod components;
mod parameters;
mod paths;
pub mod v2;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use crate::registry::{Kind, Registry};

/// What `/openapi/v3` answers: where the document of each group and version lies.
///
/// Each address carries a hash of its document, so that clients may keep a document until it changes.
pub fn index(registry: &Registry) -> Value {
    let groups = registry.groups();
    let versions = groups.iter().flat_map(|(group, versions)| versions.iter().map(|version| (*group, *version)));
    let paths: Map<String, Value> = versions
        .filter_map(|(group, version)| {
            let document = document(registry, group, version)?;
            let root = root(group, version);
            let address = format!("/openapi/v3{root}?hash={:016X}", hash(document.to_string().as_bytes()));
            Some((root.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": address})))
        })
        .collect();
    json!({"paths": paths})
}

/// The document of one group and version: schemas with their descriptions, and every operation that is served.
///
/// None if no kind is served there.
pub fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in registry.in_version(group, version) {
        paths::add(kind, &mut paths);
        components::add(kind, &mut schemas);
    }
    if paths.is_empty() {
        return None;
    }
    components::add_shared(&mut schemas);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// `/api/v1` or `/apis/{group}/{version}`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// What `x-kubernetes-group-version-kind` says of a kind.
fn group_version_kind(kind: &Kind, name: &str) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": name})
}

/// FNV-1a: no secret depends on it, and it is the same in every build.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
