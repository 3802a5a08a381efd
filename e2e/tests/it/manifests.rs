//! Manifests that the tests apply.

use std::path::Path;

/// A Model of the tiny Llama in Q4_1, 4 layers.
pub fn tiny_model() -> String {
    model("tiny", &polyphony_e2e::shelf::golden_file("tiny/llama_q4_1.gguf").canonicalize().unwrap())
}

/// A Model of a file.
pub fn model(name: &str, path: &Path) -> String {
    format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata:\n  name: {name}\nspec:\n  source: file://{}\n",
        path.display()
    )
}

/// An InferenceDeployment spread over exactly `phones` phones, in the arithmetic and with the KV cache that the golden files are of.
pub fn deployment(name: &str, model: &str, phones: usize, activation_type: &str, context_length: u32) -> String {
    let defaults = deployment_in_defaults(name, model, phones, context_length);
    format!(
        "{defaults}  numerics:
    arithmetic: F32
    activationType: {activation_type}
    kvCache: F32
"
    )
}

/// The same, which leaves out what it computes in.
pub fn deployment_in_defaults(name: &str, model: &str, phones: usize, context_length: u32) -> String {
    format!(
        "apiVersion: polyphony.dev/v1alpha1
kind: InferenceDeployment
metadata:
  name: {name}
spec:
  model: {model}
  contextLength: {context_length}
  maxSessions: 2
  placement:
    minPhones: {phones}
    maxPhones: {phones}
"
    )
}
