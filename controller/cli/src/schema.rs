//! Schemas: what the server's OpenAPI says of a kind's fields, for the remedy of a field that it does not know.

use serde_json::Value;

use crate::discovery::{Resource, nearest};
use crate::failure::Failure;
use crate::server::Server;

/// What to write instead of an unknown field. None when the server publishes no schema of the kind.
pub async fn remedy_for_unknown(server: &Server, resource: &Resource, field: &str) -> Option<String> {
    remedy(&document(server, resource).await.ok()?, resource, field)
}

/// The OpenAPI document of the kind's group and version.
///
/// # Errors
/// Any failure of the request.
pub async fn document(server: &Server, resource: &Resource) -> Result<Value, Failure> {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    server.get(&format!("/openapi/v3/{root}/{}", resource.api_version())).await
}

/// The schema of the kind in its document.
pub fn of_kind<'a>(document: &'a Value, resource: &Resource) -> Option<&'a Value> {
    let is_kind = |schema: &&Value| {
        schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().any(|name| {
            name["kind"] == resource.kind.as_str()
                && name["version"] == resource.version.as_str()
                && name["group"] == resource.group.as_str()
        })
    };
    document["components"]["schemas"].as_object()?.values().find(is_kind)
}

fn remedy(document: &Value, resource: &Resource, field: &str) -> Option<String> {
    let mut schema = of_kind(document, resource)?;
    let steps: Vec<&str> = field.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    let (unknown, parents) = steps.split_last()?;
    for step in parents {
        schema = resolve(document, schema);
        schema = if step.parse::<usize>().is_ok() { &schema["items"] } else { &schema["properties"][step] };
    }
    let fields = resolve(document, schema)["properties"].as_object()?;
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    if names.is_empty() {
        return None;
    }
    let parent = if parents.is_empty() { "the object".to_owned() } else { parents.join(".") };
    let known = format!("fields of {parent}: {}", names.join(", "));
    Some(match nearest(unknown, names.iter().copied()) {
        Some(name) => format!("Did you mean {name:?}? {known}"),
        None => known,
    })
}

/// Follows `$ref` and the `allOf` that wraps one.
pub fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // A bound, for a document that refers in circles.
    for _ in 0..8 {
        if let [inner] = schema["allOf"].as_array().map_or(&[][..], Vec::as_slice) {
            schema = inner;
        }
        let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) else { break };
        let Some(target) = document.pointer(pointer) else { break };
        schema = target;
    }
    schema
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_field_is_answered_with_the_fields_there_are() {
        let document = json!({"components": {"schemas": {
            "dev.polyphony.v1alpha1.Model": {
                "x-kubernetes-group-version-kind": [{"group": "polyphony.dev", "version": "v1alpha1", "kind": "Model"}],
                "properties": {"spec": {"allOf": [{"$ref": "#/components/schemas/ModelSpec"}]}},
            },
            "ModelSpec": {"properties": {"source": {}, "sha256": {}}},
        }}});
        let resource = crate::discovery::tests::catalogue().find("mdl").unwrap().clone();
        assert_eq!(
            remedy(&document, &resource, "spec.sorce").unwrap(),
            "Did you mean \"source\"? fields of spec: sha256, source"
        );
        assert_eq!(remedy(&document, &resource, "spec.zebra").unwrap(), "fields of spec: sha256, source");
        assert_eq!(remedy(&document, &resource, "spec.source.deep"), None);
    }
}
