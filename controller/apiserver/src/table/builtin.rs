//! Columns of the built-in kinds, as kubectl's users know them.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, name};
use crate::registry::Kind;

/// The columns (name and priority) of a built-in kind, and its cells in the same order.
pub(super) struct Layout {
    pub(super) columns: &'static [(&'static str, i32)],
    pub(super) cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// The layout of a built-in kind that has one.
pub(super) fn layout(kind: &Kind) -> Option<&'static Layout> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Namespace") => Some(&NAMESPACE),
        ("", "ConfigMap") => Some(&CONFIG_MAP),
        ("", "Secret") => Some(&SECRET),
        ("" | "events.k8s.io", "Event") => Some(&EVENT),
        ("coordination.k8s.io", "Lease") => Some(&LEASE),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Some(&DEFINITION),
        _ => None,
    }
}

static NAMESPACE: Layout = Layout {
    columns: &[("Name", 0), ("Status", 0), ("Age", 0)],
    cells: |item, now| {
        let phase = text(item, &["/status/phase"]).unwrap_or("Active");
        vec![name(item), phase.into(), age::since_creation(item, now).into()]
    },
};

static CONFIG_MAP: Layout = Layout {
    columns: &[("Name", 0), ("Data", 0), ("Age", 0)],
    cells: |item, now| {
        let data = entries(item, "data") + entries(item, "binaryData");
        vec![name(item), data.into(), age::since_creation(item, now).into()]
    },
};

static SECRET: Layout = Layout {
    columns: &[("Name", 0), ("Type", 0), ("Data", 0), ("Age", 0)],
    cells: |item, now| {
        let of_type = text(item, &["/type"]).unwrap_or("Opaque");
        vec![name(item), of_type.into(), entries(item, "data").into(), age::since_creation(item, now).into()]
    },
};

static LEASE: Layout = Layout {
    columns: &[("Name", 0), ("Holder", 0), ("Age", 0)],
    cells: |item, now| {
        let holder = text(item, &["/spec/holderIdentity"]).unwrap_or_default();
        vec![name(item), holder.into(), age::since_creation(item, now).into()]
    },
};

static DEFINITION: Layout = Layout {
    columns: &[("Name", 0), ("Created At", 0)],
    cells: |item, _| {
        let created = text(item, &["/metadata/creationTimestamp"]).unwrap_or("<unknown>");
        vec![name(item), created.into()]
    },
};

static EVENT: Layout = Layout {
    columns: &[
        ("Last Seen", 0),
        ("Type", 0),
        ("Reason", 0),
        ("Object", 0),
        ("Subobject", 1),
        ("Source", 1),
        ("Message", 0),
        ("First Seen", 1),
        ("Count", 1),
        ("Name", 1),
    ],
    cells: event,
};

/// An event in the form of either group: `core/v1` or `events.k8s.io/v1`.
fn event(item: &Value, now: Timestamp) -> Vec<Value> {
    let first = text(item, &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = text(item, &["/series/lastObservedTime", "/lastTimestamp", "/deprecatedLastTimestamp"]).or(first);
    let seen = |time: Option<&str>| time.map_or_else(|| "<unknown>".to_owned(), |time| age::since(time, now));
    let count = ["/series/count", "/count", "/deprecatedCount"]
        .iter()
        .filter_map(|path| item.pointer(path)?.as_i64())
        .find(|count| *count > 0)
        .unwrap_or(1);

    let about = |field: &str| {
        let paths = [format!("/involvedObject/{field}"), format!("/regarding/{field}")];
        text(item, &[&paths[0], &paths[1]]).unwrap_or_default()
    };
    let object = match about("name") {
        "" => about("kind").to_lowercase(),
        name => format!("{}/{name}", about("kind").to_lowercase()),
    };
    let component = text(
        item,
        &["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"],
    )
    .unwrap_or_default();
    let source = match text(item, &["/source/host", "/deprecatedSource/host"]) {
        Some(host) => format!("{component}, {host}"),
        None => component.to_owned(),
    };
    vec![
        seen(last).into(),
        text(item, &["/type"]).unwrap_or_default().into(),
        text(item, &["/reason"]).unwrap_or_default().into(),
        object.into(),
        about("fieldPath").into(),
        source.into(),
        text(item, &["/message", "/note"]).unwrap_or_default().trim().into(),
        seen(first).into(),
        count.into(),
        name(item),
    ]
}

/// The first non-empty text at one of the JSON pointers.
fn text<'a>(item: &'a Value, pointers: &[&str]) -> Option<&'a str> {
    pointers.iter().filter_map(|pointer| item.pointer(pointer)?.as_str()).find(|text| !text.is_empty())
}

fn entries(item: &Value, field: &str) -> usize {
    item.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}
