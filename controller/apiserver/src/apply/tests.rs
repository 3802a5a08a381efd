//! Tests of ownership: FieldsV1 to the byte, conflicts, removal, lists, status, updates, and laws over random applies.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ApplyError, apply, track_update};
use crate::registry::{Kind, Schema};
use crate::schema::{FieldValidation, admit};

const T1: &str = "2026-11-22T10:00:00Z";
const T2: &str = "2026-11-22T11:00:00Z";

fn widget_kind() -> Kind {
    let text = || json!({"type": "string"});
    let port = json!({"type": "object", "required": ["name"], "properties": {
        "name": text(), "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}});
    let keyed = |keys: Value, items: Value| {
        json!({"type": "array", "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys})
    };
    Kind {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Widget".into(),
        schema: Some(Schema::new(json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer"},
                "name": text(),
                "mode": {"type": "string", "default": "auto"},
                "nested": {"type": "object", "properties": {"a": text(), "b": text()}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text()},
                "map": {"type": "object", "additionalProperties": text()},
                "args": {"type": "array", "items": text()},
                "tags": {"type": "array", "items": text(), "x-kubernetes-list-type": "set"},
                "ports": keyed(json!(["name", "protocol"]), port),
                "steps": {"type": "array", "items": {"type": "object", "properties": {"x": text(), "y": {"type": "string", "default": "d"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
            "status": {"type": "object", "properties": {"phase": text(),
                "conditions": keyed(json!(["type"]), json!({"type": "object", "properties": {"type": text(), "status": text()}}))}},
        }}))),
        status: true,
        ..Kind::default()
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, manager: &str) -> Value {
    apply(&widget_kind(), live, &config(spec), manager, false, None, T1).unwrap()
}

fn forced(live: &Value, spec: Value, manager: &str) -> Value {
    apply(&widget_kind(), Some(live), &config(spec), manager, true, None, T1).unwrap()
}

/// What `manager` owns, in FieldsV1; null if nothing.
fn owns(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut owned = entries.into_iter().filter(|entry| entry["manager"] == manager);
    owned.next().map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn conflicts(live: &Value, spec: Value, manager: &str) -> Vec<(String, String)> {
    match apply(&widget_kind(), Some(live), &config(spec), manager, false, None, T2) {
        Err(ApplyError::Conflicts(conflicts)) => conflicts.into_iter().map(|c| (c.manager, c.field)).collect(),
        other => panic!("no conflict but {other:?}"),
    }
}

#[test]
fn a_config_map_is_owned_as_in_the_documentation_of_kubernetes() {
    let kind = Kind { version: "v1".into(), kind: "ConfigMap".into(), ..Kind::default() };
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "some value"},
        "metadata": {"name": "test-cm", "namespace": "default", "labels": {"test-label": "test"}}});
    let applied = apply(&kind, None, &config, "kubectl", false, None, T1).unwrap();
    assert_eq!(
        applied["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": T1, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:test-label": {}}}, "f:data": {"f:key": {}}},
        }])
    );

    let mut updated = applied.clone();
    updated["data"]["key"] = json!("new value");
    track_update(&kind, Some(&applied), &mut updated, "kube-controller-manager", None, T2);
    assert_eq!(
        updated["metadata"]["managedFields"],
        json!([
            {"manager": "kubectl", "operation": "Apply", "apiVersion": "v1", "time": T1, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {"f:test-label": {}}}}},
            {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": T2,
                "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:key": {}}}},
        ])
    );
    let error = apply(&kind, Some(&updated), &config, "kubectl", false, None, T2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kube-controller-manager\" using v1: .data.key"
    );
    let ApplyError::Conflicts(conflicts) = error else { panic!("{error:?}") };
    assert_eq!(
        conflicts[0].cause(),
        json!({"reason": "FieldManagerConflict", "field": ".data.key",
            "message": "conflict with \"kube-controller-manager\" using v1"})
    );
}

#[test]
fn every_sort_of_list_and_map_is_owned_in_its_own_form() {
    let object = applied(
        None,
        json!({
            "replicas": 1, "nested": {"a": "x"}, "whole": {"k": "v"}, "map": {"k": "v"}, "args": ["a"], "tags": ["t"],
            "ports": [{"name": "http", "port": 80}], "free": {"any": {"thing": [1]}},
        }),
        "m",
    );
    assert_eq!(
        owns(&object, "m"),
        json!({"f:spec": {
            "f:replicas": {},
            "f:nested": {"f:a": {}},
            "f:whole": {},
            "f:map": {"f:k": {}},
            "f:args": {},
            "f:tags": {"v:\"t\"": {}},
            "f:ports": {"k:{\"name\":\"http\",\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
            "f:free": {"f:any": {".": {}, "f:thing": {}}},
        }})
    );
}

#[test]
fn an_update_that_creates_owns_containers_too() {
    let mut object = config(json!({"replicas": 1, "tags": ["t"]}));
    object["metadata"]["labels"] = json!({"app": "a"});
    track_update(&widget_kind(), None, &mut object, "kubectl-create", None, T1);
    assert_eq!(
        owns(&object, "kubectl-create"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {".": {}, "f:replicas": {}, "f:tags": {".": {}, "v:\"t\"": {}}},
        })
    );
}

#[test]
fn the_same_apply_again_changes_nothing_not_even_the_time() {
    let spec =
        || json!({"replicas": 1, "steps": [{"x": "1"}], "tags": [], "map": {}, "name": null, "ports": [{"name": "a"}]});
    let mut live = applied(None, spec(), "m");
    admit(&widget_kind(), &mut live, None, FieldValidation::Strict).unwrap();
    assert_eq!(live["spec"]["steps"], json!([{"x": "1", "y": "d"}]));
    live["metadata"]["resourceVersion"] = json!("5");
    live["metadata"]["uid"] = json!("u");
    let again = apply(&widget_kind(), Some(&live), &config(spec()), "m", false, None, T2).unwrap();
    assert_eq!(again, live);
}

#[test]
fn a_field_no_longer_applied_is_removed_unless_another_wants_it() {
    let live = applied(None, json!({"replicas": 1, "name": "n", "nested": {"a": "1"}, "map": {"k": "v"}}), "m");
    let live = applied(Some(&live), json!({"name": "n"}), "other");
    let live = applied(Some(&live), json!({"replicas": 1}), "m");
    assert_eq!(live["spec"], json!({"replicas": 1, "name": "n", "mode": "auto"}));
    assert_eq!(owns(&live, "m"), json!({"f:spec": {"f:replicas": {}}}));
    let live = applied(Some(&live), json!({}), "other");
    assert_eq!(live["spec"], json!({"replicas": 1, "mode": "auto"}));
}

#[test]
fn what_no_one_ever_applied_stays() {
    let mut live = applied(None, json!({"nested": {"a": "1"}}), "m");
    live["spec"]["nested"]["b"] = json!("unowned");
    let live = applied(Some(&live), json!({"replicas": 1}), "m");
    assert_eq!(live["spec"], json!({"replicas": 1, "nested": {"b": "unowned"}, "mode": "auto"}));
}

#[test]
fn another_managers_value_is_a_conflict_until_forced() {
    let live = applied(None, json!({"replicas": 1, "name": "n"}), "first");
    assert_eq!(
        conflicts(&live, json!({"replicas": 2, "name": "n"}), "second"),
        [("first".into(), ".spec.replicas".into())]
    );

    let taken = forced(&live, json!({"replicas": 2, "name": "n"}), "second");
    assert_eq!(taken["spec"]["replicas"], 2);
    assert_eq!(owns(&taken, "first"), json!({"f:spec": {"f:name": {}}}));
    assert_eq!(owns(&taken, "second"), json!({"f:spec": {"f:name": {}, "f:replicas": {}}}));
    // The first gives up what it no longer owns without removing it.
    let left = applied(Some(&taken), json!({}), "first");
    assert_eq!(left["spec"], taken["spec"]);
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let live = applied(None, json!({"replicas": 1, "ports": [{"name": "a", "port": 1}], "tags": ["t"]}), "first");
    let wrong = config(json!({"replicas": 2, "ports": [{"name": "a", "port": 2}]}));
    let error = apply(&widget_kind(), Some(&live), &wrong, "second", false, None, T2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"first\":\n\
         - .spec.ports[name=\"a\",protocol=\"TCP\"].port\n- .spec.replicas"
    );
}

#[test]
fn items_of_keyed_lists_and_sets_are_owned_one_by_one() {
    let live = applied(None, json!({"ports": [{"name": "a", "port": 1}], "tags": ["x"]}), "first");
    let live = applied(Some(&live), json!({"ports": [{"name": "b", "port": 2}], "tags": ["y", "x"]}), "second");
    let names = |live: &Value| -> Vec<String> {
        live["spec"]["ports"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&live), ["a", "b"]);
    assert_eq!(live["spec"]["tags"], json!(["y", "x"]));
    let live = applied(Some(&live), json!({}), "first");
    assert_eq!(names(&live), ["b"]);
    assert_eq!(live["spec"]["tags"], json!(["y", "x"]));
    // The last item takes its list along.
    let live = applied(Some(&live), json!({}), "second");
    assert_eq!(live["spec"], json!({"mode": "auto"}));
}

#[test]
fn a_whole_list_is_replaced_and_conflicts_as_one() {
    let live = applied(None, json!({"args": ["a", "b"], "whole": {"k": "v"}}), "first");
    assert_eq!(conflicts(&live, json!({"args": ["a"]}), "second"), [("first".into(), ".spec.args".into())]);
    assert_eq!(conflicts(&live, json!({"whole": {"l": "v"}}), "second"), [("first".into(), ".spec.whole".into())]);
    let live = forced(&live, json!({"args": ["c"], "whole": {"l": "v"}}), "second");
    assert_eq!((&live["spec"]["args"], &live["spec"]["whole"]), (&json!(["c"]), &json!({"l": "v"})));
}

#[test]
fn an_update_takes_what_it_changes_and_nothing_else() {
    let live = applied(None, json!({"replicas": 1, "name": "n", "ports": [{"name": "a", "port": 1}]}), "m");
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(3);
    new["spec"]["ports"][0]["port"] = json!(2);
    new["spec"].as_object_mut().unwrap().remove("name");
    new["metadata"]["resourceVersion"] = json!("9");
    track_update(&widget_kind(), Some(&live), &mut new, "kubectl-edit", None, T2);
    let key = "k:{\"name\":\"a\",\"protocol\":\"TCP\"}";
    assert_eq!(owns(&new, "m"), json!({"f:spec": {"f:ports": {key: {".": {}, "f:name": {}}}}}));
    assert_eq!(owns(&new, "kubectl-edit"), json!({"f:spec": {"f:replicas": {}, "f:ports": {key: {"f:port": {}}}}}));

    let mut same = new.clone();
    same["metadata"]["resourceVersion"] = json!("10");
    same["metadata"]["managedFields"] = json!([]);
    track_update(&widget_kind(), Some(&new), &mut same, "someone", None, T2);
    assert_eq!(same["metadata"]["managedFields"], new["metadata"]["managedFields"]);
}

#[test]
fn a_container_that_becomes_a_text_is_owned_as_the_text() {
    let kind = Kind { version: "v1".into(), ..Kind::default() };
    let old = apply(&kind, None, &json!({"data": {"a": {"b": "c"}}}), "m", false, None, T1).unwrap();
    let mut new = old.clone();
    new["data"]["a"] = json!("text");
    track_update(&kind, Some(&old), &mut new, "u", None, T2);
    assert_eq!(owns(&new, "u"), json!({"f:data": {"f:a": {}}}));
    assert_eq!(owns(&new, "m"), Value::Null);
}

#[test]
fn ownership_can_be_forgotten_by_an_empty_entry() {
    let live = applied(None, json!({"replicas": 1}), "m");
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    track_update(&widget_kind(), Some(&live), &mut new, "u", None, T2);
    assert!(new["metadata"].get("managedFields").is_none());
    // The next apply finds the fields owned by whoever was there before.
    assert_eq!(conflicts(&new, json!({"replicas": 2}), "m"), [("before-first-apply".into(), ".spec.replicas".into())]);
    let again = applied(Some(&new), json!({"replicas": 1}), "m");
    assert_eq!(owns(&again, "before-first-apply"), json!({"f:spec": {"f:mode": {}, "f:replicas": {}}}));
}

#[test]
fn a_status_apply_touches_status_alone_and_needs_no_name() {
    let live = applied(None, json!({"replicas": 1}), "m");
    let status = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"labels": {"a": "b"}},
        "spec": {"replicas": 9}, "status": {"phase": "Ready", "conditions": [{"type": "Available", "status": "True"}]}});
    let live = apply(&widget_kind(), Some(&live), &status, "controller", false, Some("status"), T1).unwrap();
    assert_eq!(live["spec"]["replicas"], 1);
    assert!(live["metadata"].get("labels").is_none());
    assert_eq!(live["status"]["phase"], "Ready");
    let entry =
        live["metadata"]["managedFields"].as_array().unwrap().iter().find(|e| e["manager"] == "controller").unwrap();
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:phase": {}, "f:conditions": {"k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}}})
    );
    // And the other way round: an apply of the object leaves status alone.
    let mut whole = config(json!({"replicas": 1}));
    whole["status"] = json!({"phase": "Lost"});
    let same = apply(&widget_kind(), Some(&live), &whole, "m", false, None, T2).unwrap();
    assert_eq!(same, live);
}

#[test]
fn what_the_server_owns_is_no_ones() {
    let mut whole = config(json!({"replicas": 1}));
    whole["metadata"] = json!({"name": "w", "namespace": "n", "uid": "forged", "resourceVersion": "1", "generation": 7,
        "creationTimestamp": null, "labels": {"a": "b"}, "finalizers": ["f.example.com/x"]});
    let object = apply(&widget_kind(), None, &whole, "m", false, None, T1).unwrap();
    assert_eq!(
        owns(&object, "m")["f:metadata"],
        json!({"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"f.example.com/x\"": {}}})
    );
    assert_eq!(object["metadata"]["name"], "w");
    for forged in ["uid", "resourceVersion", "generation", "creationTimestamp"] {
        assert!(object["metadata"].get(forged).is_none(), "{forged}");
    }
}

#[test]
fn a_configuration_that_is_none_is_refused_with_its_place() {
    let refuse = |config: Value| match apply(&widget_kind(), None, &config, "m", false, None, T1) {
        Err(ApplyError::Invalid(text)) => text,
        other => panic!("not refused: {other:?}"),
    };
    assert!(refuse(json!([])).contains("object"));
    assert!(refuse(json!({"metadata": 3})).contains("metadata"));
    assert!(refuse(json!({"metadata": {"managedFields": [{"manager": "x"}]}})).contains("managedFields"));
    assert!(refuse(config(json!({"ports": [{"port": 1}]}))).starts_with(".spec.ports: element 0"));
    assert!(
        refuse(config(json!({"ports": [{"name": "a"}, {"name": "a", "protocol": "TCP"}]})))
            .contains("element 1: duplicate")
    );
    assert!(refuse(config(json!({"tags": ["a", "a"]}))).contains(".spec.tags"));
}

#[test]
fn the_oldest_of_too_many_updaters_become_one() {
    let mut live = config(json!({"map": {}}));
    for n in 0..15 {
        let mut new = live.clone();
        new["spec"]["map"][format!("k{n}")] = json!("v");
        track_update(
            &widget_kind(),
            Some(&live),
            &mut new,
            &format!("u{n}"),
            None,
            &format!("2026-11-22T10:00:{n:02}Z"),
        );
        live = new;
    }
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    assert_eq!(owns(&live, "ancient-changes")["f:spec"]["f:map"]["f:k0"], json!({}));
    assert_eq!(owns(&live, "u14"), json!({"f:spec": {"f:map": {"f:k14": {}}}}));
}

#[test]
fn nonsense_in_stored_ownership_is_left_out() {
    let mut live = applied(None, json!({"replicas": 1}), "m");
    live["metadata"]["managedFields"].as_array_mut().unwrap().extend([
        json!(3),
        json!({"operation": "Apply", "manager": "x", "fieldsV1": {"f:spec": 3, "q:": {}, "k:{": {}, "noprefix": {}}}),
    ]);
    let object = applied(Some(&live), json!({"replicas": 2}), "m");
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

fn spec() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["a", "b"]).prop_map(Value::from);
    let maybe = |strategy: BoxedStrategy<Value>| prop::option::of(strategy);
    let map = prop::collection::btree_map("[kl]", text(), 0..3).prop_map(|map| json!(map));
    let set = prop::sample::subsequence(vec!["x", "y", "z"], 0..=3).prop_shuffle().prop_map(|set| json!(set));
    let ports = prop::sample::subsequence(vec!["p", "q", "r"], 0..=3).prop_shuffle().prop_flat_map(|names| {
        let n = names.len();
        prop::collection::vec(prop::option::of(0..2), n).prop_map(move |ports| {
            let port = |(name, port): (&&str, &Option<i32>)| match port {
                Some(port) => json!({"name": name, "port": port}),
                None => json!({"name": name}),
            };
            names.iter().zip(&ports).map(port).collect()
        })
    });
    let args = prop::collection::vec(text(), 0..3).prop_map(|args| json!(args));
    let nested = prop::collection::btree_map("[ab]", text(), 0..3).prop_map(|map| json!(map));
    let fields = (
        maybe(text().boxed()),
        maybe(map.boxed()),
        maybe(set.boxed()),
        maybe(ports.boxed()),
        maybe(args.boxed()),
        maybe(nested.boxed()),
    );
    fields.prop_map(|(name, map, tags, ports, args, nested)| {
        let named =
            [("name", name), ("map", map), ("tags", tags), ("ports", ports), ("args", args), ("nested", nested)];
        named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

/// Applies by force, as the server would store it.
fn stored(live: Option<&Value>, spec: &Value, manager: &str) -> Value {
    let mut object = apply(&widget_kind(), live, &config(spec.clone()), manager, true, None, T1).unwrap();
    admit(&widget_kind(), &mut object, live, FieldValidation::Strict).unwrap();
    object
}

/// Whether everything in `part` is in `whole`, lists of items with keys and sets in any order.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|part| whole.iter().any(|whole| contains(whole, part)))
        }
        _ => whole == part,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_twice_is_applying_once(first in spec(), second in spec(), third in spec()) {
        let live = stored(None, &first, "a");
        let live = stored(Some(&live), &second, "b");
        let live = stored(Some(&live), &third, "a");
        let again = apply(&widget_kind(), Some(&live), &config(third), "a", false, None, T2).unwrap();
        prop_assert_eq!(again, live);
    }

    #[test]
    fn what_was_applied_by_force_is_there_and_owned(first in spec(), second in spec()) {
        let live = stored(Some(&stored(None, &first, "a")), &second, "b");
        prop_assert!(contains(&live["spec"], &second), "{} lacks part of {}", live["spec"], second);
        // Whatever differs belongs to the second alone: the first would be in conflict or change nothing it has.
        let fresh = apply(&widget_kind(), None, &config(second), "b", false, None, T1).unwrap();
        prop_assert_eq!(owns(&live, "b"), owns(&fresh, "b"));
    }

    #[test]
    fn when_everyone_lets_go_nothing_is_left(first in spec(), second in spec(), third in spec()) {
        let live = stored(None, &first, "a");
        let live = stored(Some(&live), &second, "b");
        let live = stored(Some(&live), &third, "c");
        let mut live = live;
        for manager in ["b", "a", "c"] {
            live = stored(Some(&live), &json!({}), manager);
        }
        prop_assert_eq!(&live["spec"], &json!({"mode": "auto"}));
        // An empty spec is all that each still says.
        for manager in ["a", "b", "c"] {
            prop_assert_eq!(owns(&live, manager), json!({"f:spec": {}}));
        }
    }

    #[test]
    fn an_update_is_tracked_so_that_applying_its_object_again_conflicts_with_none(first in spec(), second in spec()) {
        let old = stored(None, &first, "a");
        let mut new = old.clone();
        new["spec"] = second.clone();
        admit(&widget_kind(), &mut new, Some(&old), FieldValidation::Strict).unwrap();
        track_update(&widget_kind(), Some(&old), &mut new, "u", None, T2);
        let mut again = new.clone();
        track_update(&widget_kind(), Some(&new), &mut again, "v", None, T2);
        prop_assert_eq!(&again, &new);
        let same = apply(&widget_kind(), Some(&new), &config(second), "c", false, None, T2);
        prop_assert!(same.is_ok(), "{same:?}");
    }
}
