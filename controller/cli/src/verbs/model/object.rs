//! The Model object of an import: made where there is none, left where there is the same, refused where there is another.

use std::io::{self, Write};

use polyphony_api::{GROUP, VERSION};
use serde_json::{Value, json};

use super::models_path;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::server::{path_segment, with_query};
use crate::verbs::apply::FIELD_MANAGER;

/// Makes the Model `name`, unless `existing` is the same already, and says which it was.
///
/// # Errors
/// When `existing` is another Model, or the API refuses.
pub(super) async fn make(
    connection: &Connection,
    name: &str,
    spec: &Value,
    existing: Option<Value>,
) -> anyhow::Result<()> {
    let outcome = match existing {
        None => {
            let path = path_of(connection, name);
            let object = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Model",
                "metadata": {"name": name, "namespace": connection.namespace}, "spec": spec});
            // As `apply` would, so that the two own the same fields under one name.
            let query =
                with_query(&path, &[("fieldManager", Some(FIELD_MANAGER)), ("fieldValidation", Some("Strict"))]);
            connection.server.apply(&query, &object).await?;
            "created"
        }
        Some(existing) if existing["spec"] == *spec => "unchanged",
        Some(existing) => {
            let text = format!(
                "model {name:?} exists and is of {}: choose another --name, since models are immutable",
                existing["spec"]["source"].as_str().unwrap_or_default()
            );
            return Err(Failure::Request(text).into());
        }
    };
    writeln!(io::stdout(), "model.{GROUP}/{name} {outcome}")?;
    Ok(())
}

/// Where the API has the Model of this name.
pub(super) fn path_of(connection: &Connection, name: &str) -> String {
    format!("{}/{}", models_path(&connection.namespace), path_segment(name))
}
