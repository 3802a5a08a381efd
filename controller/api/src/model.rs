//! Model: files that the host has verified and serves to phones piece by piece.

// The derive's columns are one attribute each, and share keys such as `type_`.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a model comes from.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "polyphony.dev",
    version = "v1alpha1",
    kind = "Model",
    doc = "A model, verified once by the host and served to phones tensor by tensor.",
    namespaced,
    derive = "PartialEq",
    shortname = "mdl",
    category = "polyphony",
    category = "all",
    status = "ModelStatus",
    printcolumn(
        name = "Resolved",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Resolved\")].status",
        description = "Whether the files are verified and served"
    ),
    printcolumn(name = "Architecture", type_ = "string", json_path = ".status.architecture"),
    printcolumn(name = "Layers", type_ = "integer", json_path = ".status.layers"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Context", type_ = "integer", json_path = ".status.contextLength", priority = "1"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source", priority = "1"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Resolved\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a model is immutable: create another one and point the deployment at it"))]
pub struct ModelSpec {
    /// Where the model is: `file:///path`, or `cache://name` in Polyphony's own cache folder. It is a GGUF file, any part of one that was
    /// split (or a pattern such as `name-*-of-*.gguf`), or a folder with `config.json`, `tokenizer.json` and safetensors.
    #[schemars(length(min = 1, max = 4096), regex(pattern = r"^(file|cache)://.+$"))]
    pub source: String,
    /// The SHA-256 digest of the file, 64 hexadecimal digits; where there are several, of the list that `sha256sum` prints of them by
    /// name. Files with another digest are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// What the host found in the files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The `metadata.generation` that this status answers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The architecture that the file names, such as `llama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// How many layers there are to spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    /// Size of the files as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Bytes of weights of each layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layer_bytes: Vec<u64>,
    /// The longest context that the model was trained for, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// SHA-256 of the manifest, which lists the digest of every tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<String>,
    /// `Resolved`, and `Ready`, which says the same to tools that look for that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::condition::list_schema")]
    pub conditions: Vec<Condition>,
}
