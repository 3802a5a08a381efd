//! Discovery: which groups, versions and resources are served, in the aggregated form and in the older one.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};

use super::reviews::REVIEWS;
use crate::registry::{Kind, Registry};

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Answers `/api`, `/apis` and what lies right below; none when the path is not one of discovery.
pub fn answer(registry: &Registry, path: &str, headers: &HeaderMap) -> Option<Response> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let groups = groups(registry);
    let body = match parts.as_slice() {
        ["api"] | ["apis"] => {
            let core = parts[0] == "api";
            if let Some(version) = aggregated_version(headers) {
                return Some(aggregated(registry, &groups, core, version));
            }
            if core {
                json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            } else {
                let groups: Vec<Value> = groups.iter().filter(|(name, _)| !name.is_empty()).map(group).collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
        }
        ["api", version] => resource_list(registry, "", version)?,
        ["apis", name] => {
            let found = groups.iter().find(|(group, _)| group == name)?;
            let mut group = group(found);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }
        ["apis", name, version] => resource_list(registry, name, version)?,
        _ => return None,
    };
    Some(Json(body).into_response())
}

/// Groups and their versions, with those of the reviews.
fn groups(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = registry
        .groups()
        .into_iter()
        .map(|(name, versions)| (name.to_owned(), versions.into_iter().map(str::to_owned).collect()))
        .collect();
    for (name, version, ..) in REVIEWS {
        if !groups.iter().any(|(group, _)| group == name) {
            groups.push((name.to_owned(), vec![version.to_owned()]));
        }
    }
    groups
}

fn group((name, versions): &(String, Vec<String>)) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

// --- the older form ---

fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in registry.in_version(group, version) {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories,
        }));
        for (part, (group, version, part_kind)) in parts(kind) {
            resources.push(json!({
                "name": format!("{}/{part}", kind.plural), "singularName": "", "namespaced": kind.namespaced,
                "group": group, "version": version, "kind": part_kind, "verbs": PART_VERBS,
            }));
        }
    }
    for (_, _, plural, singular, kind) in reviews(group, version) {
        resources.push(json!({
            "name": plural, "singularName": singular, "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

fn parts(kind: &Kind) -> Vec<(&'static str, (String, String, String))> {
    let mut parts = Vec::new();
    if kind.status {
        parts.push(("status", (kind.group.clone(), kind.version.clone(), kind.kind.clone())));
    }
    if kind.scale.is_some() {
        parts.push(("scale", ("autoscaling".to_owned(), "v1".to_owned(), "Scale".to_owned())));
    }
    parts
}

fn reviews(
    group: &str,
    version: &str,
) -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str, &'static str)> {
    REVIEWS.into_iter().filter(move |(g, v, ..)| *g == group && *v == version)
}

// --- the aggregated form ---

/// `v2` or `v2beta1`, whichever the client names first.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    accept.split(',').find_map(|range| {
        let has = |wanted: &str| range.split(';').any(|part| part.trim() == wanted);
        if !has("as=APIGroupDiscoveryList") || !has("application/json") {
            return None;
        }
        ["v2", "v2beta1"].into_iter().find(|version| has(&format!("v={version}")))
    })
}

fn aggregated(registry: &Registry, groups: &[(String, Vec<String>)], core: bool, version: &str) -> Response {
    let items: Vec<Value> = groups
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let mut resources: Vec<Value> =
                        registry.in_version(name, version).map(|kind| aggregated_resource(kind)).collect();
                    resources.extend(reviews(name, version).map(|(group, version, plural, singular, kind)| {
                        json!({
                            "resource": plural, "singularResource": singular, "scope": "Cluster", "verbs": ["create"],
                            "responseKind": {"group": group, "version": version, "kind": kind},
                        })
                    }));
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    let mut response = Json(body).into_response();
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    if let Ok(content_type) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_resource(kind: &Kind) -> Value {
    let parts: Vec<Value> = parts(kind)
        .into_iter()
        .map(|(part, (group, version, kind))| {
            json!({
                "subresource": part, "verbs": PART_VERBS,
                "responseKind": {"group": group, "version": version, "kind": kind},
            })
        })
        .collect();
    json!({
        "resource": kind.plural, "singularResource": kind.singular, "verbs": VERBS, "shortNames": kind.short_names,
        "categories": kind.categories, "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind}, "subresources": parts,
    })
}
