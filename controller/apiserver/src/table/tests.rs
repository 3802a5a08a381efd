//! Tests of tables: columns, ages and paths as kubectl's users expect them.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, render};
use crate::registry::{Column, Kind};

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn column(name: &str, of_type: &str, json_path: &str) -> Column {
    Column {
        name: name.into(),
        r#type: of_type.into(),
        format: None,
        description: None,
        priority: 0,
        json_path: json_path.into(),
        path: json_path.parse().ok(),
    }
}

/// The cells of one object, and the names of its columns.
fn row(kind: &Kind, item: Value) -> (Vec<String>, Value) {
    let table = render(kind, &[item], None, now());
    let names = table["columnDefinitions"].as_array().unwrap().iter();
    (names.map(|column| column["name"].as_str().unwrap().to_owned()).collect(), table["rows"][0]["cells"].clone())
}

fn builtin(group: &str, kind: &str) -> Kind {
    Kind { group: group.into(), kind: kind.into(), ..Kind::default() }
}

#[test]
fn columns_of_a_definition_follow_the_name_with_cells_of_their_type() {
    let mut wide = column("Reason", "string", ".status.reason");
    wide.priority = 1;
    let kind = Kind {
        columns: vec![
            column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
            column("Desired", "integer", ".spec.replicas"),
            column("Tok/s", "number", ".status.rate"),
            column("Paused", "boolean", ".spec.paused"),
            column("Hosts", "string", ".spec.hosts"),
            column("Missing", "string", ".status.nothing"),
            column("Mistyped", "integer", ".metadata.name"),
            wide,
            column("Age", "date", ".metadata.creationTimestamp"),
        ],
        ..Kind::default()
    };
    let item = json!({
        "metadata": {"name": "w", "creationTimestamp": "2026-11-22T09:54:57Z"},
        "spec": {"replicas": 3, "paused": false, "hosts": ["a", "b"]},
        "status": {"rate": 12.5, "reason": "Why", "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    });
    let table = render(&kind, std::slice::from_ref(&item), Some(&json!({"resourceVersion": "7"})), now());
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["w", "True", 3, 12.5, false, "[\"a\",\"b\"]", null, null, "Why", "5m3s"])
    );
    assert_eq!(
        table["rows"][0]["object"],
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": item["metadata"]})
    );
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["columnDefinitions"][8]["priority"], 1);
    assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), 10);
}

#[test]
fn a_kind_without_columns_shows_name_and_age() {
    let (columns, cells) = row(&Kind::default(), json!({"metadata": {"name": "w"}}));
    assert_eq!(columns, ["Name", "Age"]);
    assert_eq!(cells, json!(["w", "<unknown>"]));
}

#[test]
fn built_in_kinds_have_the_columns_people_know() {
    let meta = || json!({"name": "x", "creationTimestamp": "2026-11-22T08:00:00Z"});
    let cases = [
        (
            builtin("", "Namespace"),
            json!({"metadata": meta(), "status": {"phase": "Active"}}),
            vec!["Name", "Status", "Age"],
            json!(["x", "Active", "120m"]),
        ),
        (
            builtin("", "ConfigMap"),
            json!({"metadata": meta(), "data": {"a": "1", "b": "2"}}),
            vec!["Name", "Data", "Age"],
            json!(["x", 2, "120m"]),
        ),
        (
            builtin("", "Secret"),
            json!({"metadata": meta(), "data": {"a": "MQ=="}, "type": "Opaque"}),
            vec!["Name", "Type", "Data", "Age"],
            json!(["x", "Opaque", 1, "120m"]),
        ),
        (
            builtin("coordination.k8s.io", "Lease"),
            json!({"metadata": meta(), "spec": {"holderIdentity": "h"}}),
            vec!["Name", "Holder", "Age"],
            json!(["x", "h", "120m"]),
        ),
        (
            builtin("apiextensions.k8s.io", "CustomResourceDefinition"),
            json!({"metadata": meta()}),
            vec!["Name", "Created At"],
            json!(["x", "2026-11-22T08:00:00Z"]),
        ),
    ];
    for (kind, item, columns, cells) in cases {
        assert_eq!(row(&kind, item), (columns.into_iter().map(String::from).collect(), cells), "{}", kind.kind);
    }
}

#[test]
fn an_event_reads_the_same_in_both_groups() {
    let core = json!({
        "metadata": {"name": "e"}, "type": "Warning", "reason": "Lost", "message": "phone lost ",
        "involvedObject": {"kind": "Phone", "name": "p1"}, "source": {"component": "controller"},
        "firstTimestamp": "2026-11-22T09:00:00Z", "lastTimestamp": "2026-11-22T09:59:30Z", "count": 4,
    });
    let events = json!({
        "metadata": {"name": "e"}, "type": "Warning", "reason": "Lost", "note": "phone lost",
        "regarding": {"kind": "Phone", "name": "p1"}, "reportingController": "controller",
        "eventTime": "2026-11-22T09:00:00.000000Z", "series": {"count": 4, "lastObservedTime": "2026-11-22T09:59:30.000000Z"},
    });
    let expected = json!(["30s", "Warning", "Lost", "phone/p1", "", "controller", "phone lost", "60m", 4, "e"]);
    assert_eq!(row(&builtin("", "Event"), core).1, expected);
    assert_eq!(row(&builtin("events.k8s.io", "Event"), events).1, expected);
}

#[test]
fn ages_are_words_as_kubectl_says_them() {
    let (minute, hour, day) = (60, 3600, 86400);
    let cases = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (5 * minute + 3, "5m3s"),
        (10 * minute + 3, "10m"),
        (179 * minute, "179m"),
        (3 * hour, "3h"),
        (3 * hour + 5 * minute, "3h5m"),
        (8 * hour + minute, "8h"),
        (47 * hour, "47h"),
        (2 * day, "2d"),
        (2 * day + 3 * hour, "2d3h"),
        (8 * day + hour, "8d"),
        (729 * day, "729d"),
        (730 * day, "2y"),
        (731 * day, "2y1d"),
        (3000 * day, "8y"),
    ];
    for (seconds, words) in cases {
        assert_eq!(age::words(seconds), words, "{seconds} s");
    }
    assert_eq!(age::since("yesterday", now()), "<invalid>");
}

#[test]
fn the_column_of_a_path_that_cannot_be_read_is_empty() {
    let kind = Kind { columns: vec![column("Bad", "string", ".a[")], ..Kind::default() };
    assert_eq!(row(&kind, json!({"metadata": {"name": "w"}})).1, json!(["w", null]));
}
