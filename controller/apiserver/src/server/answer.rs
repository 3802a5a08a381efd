//! Answers: objects and lists in the form that the client accepts.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::form::metadata_only;
use super::request::{Form, Params};
use crate::registry::Kind;
use crate::table;

/// How many warnings an answer carries at most.
const MAX_WARNINGS: usize = 64;

/// One object.
pub fn object(kind: &Kind, form: Form, params: &Params, object: Value) -> Value {
    match form {
        Form::Whole => object,
        Form::Metadata => metadata_only(&object),
        Form::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table(kind, params, vec![object], &metadata)
        }
    }
}

/// A list with its metadata.
pub fn list(kind: &Kind, form: Form, params: &Params, items: Vec<Value>, metadata: Value) -> Value {
    match form {
        Form::Whole => json!({
            "apiVersion": kind.api_version(), "kind": kind.list_kind, "metadata": metadata, "items": items,
        }),
        Form::Metadata => json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata,
            "items": items.iter().map(metadata_only).collect::<Vec<_>>(),
        }),
        Form::Table => table(kind, params, items, &metadata),
    }
}

fn table(kind: &Kind, params: &Params, items: Vec<Value>, metadata: &Value) -> Value {
    let whole = match params.include_object.as_deref() {
        Some("Object") => Some(items.clone()),
        _ => None,
    };
    let mut table = table::render(kind, &items, Some(metadata), Timestamp::now());
    let rows = table["rows"].as_array_mut().into_iter().flatten();
    if let Some(whole) = whole {
        rows.zip(whole).for_each(|(row, object)| row["object"] = object);
    } else if params.include_object.as_deref() == Some("None") {
        rows.for_each(|row| row["object"] = Value::Null);
    }
    table
}

/// A JSON response with the warnings as headers.
pub fn respond(code: StatusCode, body: &Value, warnings: &[String]) -> Response {
    let mut response = (code, Json(body)).into_response();
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}
