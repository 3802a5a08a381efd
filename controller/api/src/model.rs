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
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress.shown",
        description = "How much of its files is there, while they are downloaded"
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
#[x_kube(validation = Rule::new("!has(self.tokenSecretRef) || self.source.startsWith('hf://') || self.source.startsWith('https://')").message("tokenSecretRef is for sources that are fetched: leave it out, or write hf://owner/name or https://host/file"))]
pub struct ModelSpec {
    /// Where the model is: `hf://owner/name[@revision][:quantisation or file]` on a hub, `https://host/file`, `file:///path`, or
    /// `cache://name` in Polyphony's own cache folder. It is a GGUF file, any part of one that was split (or a pattern such as
    /// `name-*-of-*.gguf`), or a folder with `config.json`, `tokenizer.json` and safetensors.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(
        validation = Rule::new("self.startsWith('file://') || self.startsWith('cache://') || self.startsWith('https://') || self.startsWith('hf://')").message("it has no scheme that is known: write hf://owner/name:Q4_K_M, https://host/model.gguf, file:///path/model or cache://name"),
        validation = Rule::new("!self.startsWith('file://') || self.startsWith('file:///')").message("it names no absolute path: write file:///path/model, with three slashes"),
        validation = Rule::new("!self.startsWith('cache://') || (self.matches('^cache://[^/]+(/[^/]+)*$') && !self.matches('/[.][.]?(/|$)'))").message("it names nothing within the cache: write cache://name, or cache://folder/file"),
        validation = Rule::new("!self.startsWith('https://') || self.matches('^https://[^/@#]+/[^#]*[^/#]$')").message("it names no file of a host: write https://host/path/model.gguf, without user and fragment"),
        validation = Rule::new("!self.startsWith('hf://') || self.matches('^hf://[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*(@[A-Za-z0-9_./+-]+)?(:[^/].*)?$')").message("it names no repository: write hf://owner/name, then @revision and :Q4_K_M or :file where they are needed"),
    )]
    pub source: String,
    /// A Secret of the Model's namespace with the token that the source asks for, such as one of a hub for a gated model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// The SHA-256 digest of the file, 64 hexadecimal digits; where there are several, of the list that `sha256sum` prints of them by
    /// name. Files with another digest are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// One entry of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which of its entries.
    #[serde(default = "token")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn token() -> String {
    "token".to_owned()
}

/// How far a download is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelProgress {
    /// The file that is fetched now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Bytes of the model that are there.
    pub bytes: u64,
    /// Bytes of all its files; absent where the source does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Both for people, such as `42% of 241Mi`.
    pub shown: String,
}

/// What the host found in the files.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// The `metadata.generation` that this status answers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The commit that the source's revision stood for when it was first asked; it is not asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How far the download of its files is; absent when they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ModelProgress>,
    /// Where the files lie on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
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
