//! Card: what a model file says of itself for people to read. Nothing is computed from it.

use serde::{Deserialize, Serialize};

use crate::gguf::Gguf;

/// Name, licence and size of a model, as far as its file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    pub name: Option<String>,
    pub architecture: Option<String>,
    pub licence: Option<String>,
    /// As the file words it, for example `135M`.
    pub size_label: Option<String>,
    /// Weights counted from the tensors' shapes.
    pub n_parameters: u64,
}

// === impl Card ===

impl Card {
    /// What is no string is left out: nothing depends on it.
    pub fn from_gguf(gguf: &Gguf) -> Self {
        let text = |key: &str| gguf.metadata.optional_string(key).ok().flatten().map(str::to_owned);
        let sizes = gguf.tensors.iter().map(|tensor| tensor.shape.iter().product::<u64>());
        Self {
            name: text("general.name"),
            architecture: text("general.architecture"),
            licence: text("general.license"),
            size_label: text("general.size_label"),
            n_parameters: sizes.fold(0, u64::saturating_add),
        }
    }
}
