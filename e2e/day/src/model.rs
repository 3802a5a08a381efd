//! The model that is served, as its manifest says it: every tensor of its hyperparameters, of no bytes. Pure.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use polyphony_controller::models::Resolved;
use polyphony_model::{Hyperparameters, Manifest, Role, TensorType};
use serde_json::{Value, json};

use crate::parameters::ModelSize;

/// A model as the host knows it that has read its file.
///
/// # Errors
/// When hyperparameters or type are none.
pub fn resolved(size: &ModelSize) -> Result<Arc<Resolved>> {
    let of: Hyperparameters = serde_json::from_value(size.hyperparameters.clone()).context("model.hyperparameters")?;
    let matrices = size.matrices.parse::<TensorType>().map_err(|error| anyhow!("model.matrices: {error}"))?;
    let ends = [Role::TokenEmbedding, Role::OutputNorm, Role::Output].map(|role| (role, None));
    let layers = (0..of.n_layers).flat_map(|layer| Role::of_layer(&of, layer).map(move |role| (role, Some(layer))));
    let (mut tensors, mut offset) = (Vec::new(), 0);
    for (role, layer) in ends.into_iter().chain(layers) {
        let (shape, tensor_type) = (role.shape(&of), if role.is_vector() { TensorType::F32 } else { matrices });
        let n_bytes = tensor_type.bytes(&shape).with_context(|| format!("{role:?} does not fit {tensor_type}"))?;
        tensors.push(json!({
            "name": role.tensor_name(&of, layer), "role": role, "layer": layer, "type": tensor_type, "shape": shape,
            "nBytes": n_bytes, "sha256": "0".repeat(64),
            "source": { "ranges": [{ "file": 0, "offset": offset, "nBytes": n_bytes }] },
        }));
        offset += n_bytes;
    }
    let file: Value = json!({ "name": "model.gguf", "nBytes": offset, "sha256": "0".repeat(64) });
    let manifest: Manifest = serde_json::from_value(json!({
        "hyperparameters": of, "endTokens": [], "files": [file], "tensors": tensors,
    }))?;
    let (manifest_json, digest) = (serde_json::to_vec(&manifest)?.into(), manifest.digest());
    Ok(Arc::new(Resolved { path: "/model.gguf".into(), manifest, manifest_json, digest }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn the_model_has_the_size_that_its_name_says() {
        let resolved = resolved(&Parameters::of_the_file().unwrap().model).unwrap();
        let values: u64 = resolved.manifest.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
        // As its makers count it; both ends are matrices of their own.
        assert!((8.0e9..8.1e9).contains(&(values as f64)), "{values}");
        let bytes = resolved.manifest.file_bytes() as f64;
        assert!((bytes / values as f64 * 8.0 - 4.5).abs() < 0.01, "Q4_0 has 4.5 bits a value: {bytes}");
    }
}
