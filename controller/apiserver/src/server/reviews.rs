//! Reviews: who one is, and what one may do. They are asked, and never stored.

use http::{Method, Uri};
use serde_json::{Value, json};

use super::guard::{READS, Role, User};
use crate::registry::Registry;

/// Group, version, plural, singular, kind.
pub const REVIEWS: [(&str, &str, &str, &str, &str); 3] = [
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview"),
];

/// What is no resource and may be read by everybody who may come in.
const OPEN_PATHS: [&str; 9] =
    ["/api", "/api/*", "/apis", "/apis/*", "/openapi/*", "/version", "/healthz", "/livez", "/readyz"];

/// The kind of review that is asked for at `path`, if one is.
pub fn kind_at(path: &str) -> Option<(String, &'static str)> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let ["apis", group, version, plural] = parts.as_slice() else { return None };
    let found = REVIEWS.into_iter().find(|(g, v, p, ..)| (g, v, p) == (group, version, plural))?;
    Some((format!("{group}/{version}"), found.4))
}

/// What `user` is answered to a review of that kind.
pub fn answer((api_version, kind): (String, &str), body: &Value, user: &User, registry: &Registry) -> Value {
    let spec = if body["spec"].is_object() { body["spec"].clone() } else { json!({}) };
    let is_viewer = user.role == Role::Viewer;
    let status = match kind {
        "SelfSubjectReview" => {
            let group = if is_viewer { "polyphony:viewers" } else { "system:masters" };
            json!({"userInfo": {"username": user.name, "groups": [group, "system:authenticated"]}})
        }
        "SelfSubjectRulesReview" if is_viewer => viewers_rules(registry),
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false,
        }),
        _ => match (is_allowed(user, &spec), is_viewer) {
            (true, true) => json!({"allowed": true, "reason": "viewers read everything but Secrets"}),
            (true, false) => json!({"allowed": true, "reason": "admins may do everything"}),
            (false, _) => json!({"allowed": false, "reason": "viewers read no Secrets and change nothing"}),
        },
    };
    json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"creationTimestamp": null}, "spec": spec, "status": status,
    })
}

/// What is not said counts as the most that it could be.
fn is_allowed(user: &User, spec: &Value) -> bool {
    let text = |of: &Value, field: &str| of[field].as_str().filter(|text| !text.is_empty()).unwrap_or("*").to_owned();
    match &spec["nonResourceAttributes"] {
        Value::Object(_) => {
            let asked = &spec["nonResourceAttributes"];
            let method = Method::from_bytes(text(asked, "verb").to_uppercase().as_bytes());
            // One with a star in it asks for all that begin so, and not all of any may be read but of these.
            let path = text(asked, "path");
            match (method, path.parse::<Uri>()) {
                (Ok(method), Ok(uri)) if !path.contains('*') || OPEN_PATHS.contains(&path.as_str()) => {
                    user.check(&method, &uri).is_ok()
                }
                _ => user.role != Role::Viewer,
            }
        }
        _ => {
            let asked = &spec["resourceAttributes"];
            let (verb, resource) = (text(asked, "verb"), text(asked, "resource"));
            let is_question = verb == "create" && REVIEWS.iter().any(|(_, _, plural, ..)| *plural == resource);
            is_question || user.may(&verb, &resource)
        }
    }
}

fn viewers_rules(registry: &Registry) -> Value {
    let rules: Vec<Value> = registry
        .kinds()
        .filter(|kind| kind.plural != "secrets")
        .map(|kind| json!({"verbs": READS, "apiGroups": [kind.group], "resources": [kind.plural]}))
        .collect();
    json!({
        "resourceRules": rules,
        "nonResourceRules": [{"verbs": ["get", "head"], "nonResourceURLs": OPEN_PATHS}], "incomplete": false,
    })
}
