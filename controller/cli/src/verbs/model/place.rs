//! Where a model is that a person names: a file of this machine, or that of a Model.

use std::path::{Path, PathBuf};

use polyphony_controller::models::source::path_of_model;

use super::models_path;
use crate::connection::ClusterFlags;
use crate::server::path_segment;

/// The file itself, or that of a Model of this name.
///
/// # Errors
/// When there is no such Model, or its files are elsewhere.
pub(super) async fn path_of(name: &str, cluster: ClusterFlags) -> anyhow::Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() || name.contains('/') || path.extension().is_some_and(|it| it == "gguf" || it == "json") {
        return Ok(path.to_owned());
    }
    let connection = cluster.connect().await?;
    let model = format!("{}/{}", models_path(&connection.namespace), path_segment(name));
    Ok(path_of_model(&serde_json::from_value(connection.server.get(&model).await?)?)?)
}
