//! Tables: what `kubectl get` prints, as a `meta.k8s.io/v1` Table. Takes the time as an argument.

mod age;
mod builtin;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::{Column, Kind};

/// The Table of some objects of one kind: one definition a column, one row an object.
///
/// `list_metadata` is the list's own metadata (resource version, continuation); each row carries its object's
/// metadata as a `PartialObjectMetadata`. Dates are shown as ages at `now`, by kubectl's rules.
pub fn render(kind: &Kind, items: &[Value], list_metadata: Option<&Value>, now: Timestamp) -> Value {
    let layout = Layout::of(kind);
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({
                "cells": layout.cells(item, now),
                "object": {
                    "apiVersion": "meta.k8s.io/v1",
                    "kind": "PartialObjectMetadata",
                    "metadata": item.get("metadata").cloned().unwrap_or_else(|| json!({})),
                },
            })
        })
        .collect();
    json!({
        "apiVersion": "meta.k8s.io/v1",
        "kind": "Table",
        "metadata": list_metadata.cloned().unwrap_or_else(|| json!({})),
        "columnDefinitions": layout.definitions(),
        "rows": rows,
    })
}

/// Where the cells of a kind come from.
enum Layout<'a> {
    /// The name, then what the definition asks for.
    Paths(&'a [Column]),
    /// The name and the age.
    NameAndAge,
    BuiltIn(&'static builtin::Layout),
}

// === impl Layout ===

impl<'a> Layout<'a> {
    fn of(kind: &'a Kind) -> Self {
        if let Some(layout) = builtin::layout(kind) {
            Self::BuiltIn(layout)
        } else if kind.columns.is_empty() {
            Self::NameAndAge
        } else {
            Self::Paths(&kind.columns)
        }
    }

    fn definitions(&self) -> Vec<Value> {
        match self {
            Self::Paths(columns) => std::iter::once(name_definition())
                .chain(columns.iter().map(|column| {
                    let described =
                        format!("Custom resource definition column (in JSONPath format): {}", column.json_path);
                    json!({
                        "name": column.name,
                        "type": column.r#type,
                        "format": column.format.as_deref().unwrap_or_default(),
                        "description": column.description.clone().unwrap_or(described),
                        "priority": column.priority,
                    })
                }))
                .collect(),
            Self::NameAndAge => vec![name_definition(), definition("Age", "date", 0)],
            Self::BuiltIn(layout) => layout
                .columns
                .iter()
                .map(|(name, priority)| match *name {
                    "Name" if *priority == 0 => name_definition(),
                    name => definition(name, "string", *priority),
                })
                .collect(),
        }
    }

    fn cells(&self, item: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Paths(columns) => {
                std::iter::once(name(item)).chain(columns.iter().map(|column| cell(column, item, now))).collect()
            }
            Self::NameAndAge => vec![name(item), age::since_creation(item, now).into()],
            Self::BuiltIn(layout) => (layout.cells)(item, now),
        }
    }
}

fn name_definition() -> Value {
    json!({
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "The name of the object, unique among its kind in its namespace.",
        "priority": 0,
    })
}

fn definition(name: &str, of_type: &str, priority: i32) -> Value {
    json!({"name": name, "type": of_type, "format": "", "description": "", "priority": priority})
}

fn name(item: &Value) -> Value {
    item.pointer("/metadata/name").cloned().unwrap_or_default()
}

/// The first thing that the column's path finds, if it is of the column's type; else nothing.
fn cell(column: &Column, item: &Value, now: Timestamp) -> Value {
    let found = column.path.as_ref().map(|path| path.find(item)).unwrap_or_default();
    let Some(value) = found.first() else {
        return Value::Null;
    };
    match (column.r#type.as_str(), value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(integer) => integer.into(),
            None => number.as_f64().map_or(Value::Null, |float| (float as i64).into()),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
        ("date", Value::String(text)) => age::since(text, now).into(),
        _ => Value::Null,
    }
}
