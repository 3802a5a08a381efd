//! The built-in kinds: what controllers and `kubectl` expect of every server.

use serde_json::json;

use super::{Kind, Schema};

const GROUPS: [&str; 4] = ["", "events.k8s.io", "coordination.k8s.io", "apiextensions.k8s.io"];

pub(super) fn is_builtin_group(group: &str) -> bool {
    GROUPS.contains(&group)
}

/// Their columns are known to [`crate::table`]: no simple path leads to them.
pub(super) fn kinds() -> Vec<Kind> {
    vec![
        Kind { status: true, short_names: vec!["ns".into()], ..core("Namespace", "namespaces", false) },
        Kind { short_names: vec!["cm".into()], ..core("ConfigMap", "configmaps", true) },
        Kind { selectable_fields: vec![".type".into()], ..core("Secret", "secrets", true) },
        Kind {
            short_names: vec!["ev".into()],
            selectable_fields: event_fields("involvedObject"),
            ..core("Event", "events", true)
        },
        Kind {
            group: "events.k8s.io".into(),
            short_names: vec!["ev".into()],
            selectable_fields: event_fields("regarding"),
            ..core("Event", "events", true)
        },
        Kind { group: "coordination.k8s.io".into(), ..core("Lease", "leases", true) },
        Kind {
            group: "apiextensions.k8s.io".into(),
            status: true,
            short_names: vec!["crd".into(), "crds".into()],
            categories: vec!["api-extensions".into()],
            ..core("CustomResourceDefinition", "customresourcedefinitions", false)
        },
    ]
    .into_iter()
    .map(with_schema)
    .collect()
}

fn core(kind: &str, plural: &str, namespaced: bool) -> Kind {
    Kind {
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        namespaced,
        ..Kind::default()
    }
}

/// Schemas are given where a typing mistake would otherwise be stored in silence.
fn with_schema(kind: Kind) -> Kind {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let properties = match kind.kind.as_str() {
        "ConfigMap" => {
            json!({"data": texts, "binaryData": texts, "immutable": {"type": "boolean"}})
        }
        "Secret" => json!({
            "data": texts, "stringData": texts, "type": {"type": "string"}, "immutable": {"type": "boolean"},
        }),
        _ => return kind,
    };
    let schema = json!({"type": "object", "properties": properties});
    Kind { schema: Some(Schema::new(schema)), ..kind }
}

fn event_fields(subject: &str) -> Vec<String> {
    let of_subject = ["apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid"];
    let mut fields: Vec<String> = of_subject.iter().map(|field| format!(".{subject}.{field}")).collect();
    fields.extend([".reason", ".type", ".reportingComponent", ".reportingController", ".source"].map(String::from));
    fields
}
