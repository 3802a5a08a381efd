//! Tests of the OpenAPI documents: what kubectl looks up in them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{document, index};
use crate::registry::{Kind, Registry, ScalePaths, Schema};

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.insert(Kind {
        group: "polyphony.example".into(),
        version: "v1alpha1".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        namespaced: true,
        schema: Some(Schema::new(
            json!({"type": "object", "description": "A widget.", "required": ["spec"], "properties": {
            "spec": {"type": "object", "description": "What is wanted.", "properties": {
                "replicas": {"type": "integer", "description": "How many.", "exclusiveMinimum": 0}}}}}),
        )),
        status: true,
        scale: Some(ScalePaths {
            spec_replicas: ".spec.replicas".into(),
            status_replicas: ".status.replicas".into(),
            label_selector: None,
        }),
        ..Kind::default()
    });
    registry
}

fn widgets() -> Value {
    document(&registry(), "polyphony.example", "v1alpha1").unwrap()
}

#[test]
fn the_index_lists_every_version_served_under_a_hash_of_its_document() {
    let before = index(&registry());
    let paths: Vec<&String> = before["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "api/v1",
            "apis/apiextensions.k8s.io/v1",
            "apis/coordination.k8s.io/v1",
            "apis/events.k8s.io/v1",
            "apis/polyphony.example/v1alpha1"
        ]
    );
    let address = |index: &Value, path: &str| index["paths"][path]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(address(&before, "api/v1").starts_with("/openapi/v3/api/v1?hash="));

    let mut changed = registry();
    let mut kind = Kind::clone(changed.get("polyphony.example", "v1alpha1", "widgets").unwrap());
    kind.schema = Some(Schema::new(json!({"type": "object"})));
    changed.insert(kind);
    let after = index(&changed);
    assert_eq!(address(&after, "api/v1"), address(&before, "api/v1"));
    let widgets = "apis/polyphony.example/v1alpha1";
    assert_ne!(address(&after, widgets), address(&before, widgets));
}

#[test]
fn a_version_that_is_not_served_has_no_document() {
    assert!(document(&registry(), "polyphony.example", "v9").is_none());
    assert!(document(&registry(), "nobody.example", "v1").is_none());
}

#[test]
fn explain_finds_a_kind_by_its_path_and_then_its_schema() {
    let document = widgets();
    for path in [
        "/apis/polyphony.example/v1alpha1/widgets",
        "/apis/polyphony.example/v1alpha1/namespaces/{namespace}/widgets",
        "/apis/polyphony.example/v1alpha1/namespaces/{namespace}/widgets/{name}",
    ] {
        assert_eq!(
            document["paths"][path]["get"]["x-kubernetes-group-version-kind"],
            json!({"group": "polyphony.example", "version": "v1alpha1", "kind": "Widget"}),
            "{path}"
        );
    }
    let schema = &document["components"]["schemas"]["example.polyphony.v1alpha1.Widget"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": "polyphony.example", "version": "v1alpha1", "kind": "Widget"}])
    );
    assert_eq!(schema["description"], "A widget.");
    assert_eq!(schema["properties"]["spec"]["properties"]["replicas"]["description"], "How many.");
    for field in ["apiVersion", "kind", "metadata"] {
        assert!(schema["properties"][field]["description"].is_string(), "{field}");
    }
}

#[test]
fn writes_declare_field_validation_so_that_kubectl_leaves_it_to_the_server() {
    let document = widgets();
    let all = &document["paths"]["/apis/polyphony.example/v1alpha1/namespaces/{namespace}/widgets"];
    let one = &document["paths"]["/apis/polyphony.example/v1alpha1/namespaces/{namespace}/widgets/{name}"];
    for (operation, action) in [(&all["post"], "post"), (&one["put"], "put"), (&one["patch"], "patch")] {
        assert_eq!(operation["x-kubernetes-action"], action);
        let names: BTreeSet<&str> =
            operation["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert!(
            names.is_superset(&BTreeSet::from(["dryRun", "fieldManager", "fieldValidation"])),
            "{action}: {names:?}"
        );
    }
    let scale = &document["paths"]["/apis/polyphony.example/v1alpha1/namespaces/{namespace}/widgets/{name}/scale"];
    assert_eq!(scale["patch"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
    let registry = registry();
    for (group, versions) in registry.groups() {
        for version in versions {
            let document = document(&registry, group, version).unwrap();
            let mut operations = BTreeSet::new();
            visit(&document, &mut |name, value| match (name, value) {
                ("$ref", Value::String(reference)) => {
                    let pointer = reference.trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                ("operationId", Value::String(id)) => {
                    assert!(operations.insert(id.clone()), "{id} twice")
                }
                // Later JSON Schemas have a number here, which kubectl cannot read.
                ("exclusiveMinimum", value) => assert!(value.is_boolean()),
                _ => {}
            });
        }
    }
    let replicas = &widgets()["components"]["schemas"]["example.polyphony.v1alpha1.Widget"]["properties"]["spec"]["properties"]
        ["replicas"];
    assert_eq!((&replicas["minimum"], &replicas["exclusiveMinimum"]), (&json!(0), &json!(true)));
}

fn visit(value: &Value, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                see(name, value);
                visit(value, see);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, see)),
        _ => {}
    }
}
