//! Roles: what a tensor is for, its name in a GGUF file, and the shape it must have.

use serde::{Deserialize, Serialize};

use crate::hyperparameters::Hyperparameters;

/// What a tensor does in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One row for each token of the vocabulary.
    TokenEmbedding,
    /// Gain of the norm before the output matrix.
    OutputNorm,
    /// Hidden state to logits; absent where the embedding serves (tied).
    Output,
    /// Divisors of the rotation frequencies, the same for every layer.
    RopeFrequencies,
    AttentionNorm,
    Query,
    Key,
    Value,
    AttentionOutput,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
}

/// Role, its name in the file without `blk.N.` and `.weight`, whether each layer has one.
const TABLE: [(Role, &str, bool); 13] = [
    (Role::TokenEmbedding, "token_embd", false),
    (Role::OutputNorm, "output_norm", false),
    (Role::Output, "output", false),
    (Role::RopeFrequencies, "rope_freqs", false),
    (Role::AttentionNorm, "attn_norm", true),
    (Role::Query, "attn_q", true),
    (Role::Key, "attn_k", true),
    (Role::Value, "attn_v", true),
    (Role::AttentionOutput, "attn_output", true),
    (Role::FfnNorm, "ffn_norm", true),
    (Role::FfnGate, "ffn_gate", true),
    (Role::FfnUp, "ffn_up", true),
    (Role::FfnDown, "ffn_down", true),
];

// === impl Role ===

impl Role {
    /// Every role, those of the whole model first.
    pub fn all() -> impl Iterator<Item = Role> {
        TABLE.iter().map(|row| row.0)
    }

    /// Whether each layer has a tensor of this role.
    pub fn is_of_a_layer(self) -> bool {
        self.row().2
    }

    /// Whether the tensor is a vector: kept in F32, as every converter does.
    pub fn is_vector(self) -> bool {
        matches!(self, Role::OutputNorm | Role::RopeFrequencies | Role::AttentionNorm | Role::FfnNorm)
    }

    /// The tensor's name in the file: `blk.3.attn_q.weight`. `layer` counts only where the role is of a layer.
    pub fn tensor_name(self, layer: Option<u32>) -> String {
        match layer {
            Some(layer) => format!("blk.{layer}.{}.weight", self.row().1),
            None => format!("{}.weight", self.row().1),
        }
    }

    /// Role and layer of the tensor called `name`; `None` for a name that is none of ours.
    pub fn of_tensor(name: &str) -> Option<(Role, Option<u32>)> {
        let stem = name.strip_suffix(".weight")?;
        let (layer, stem) = match stem.strip_prefix("blk.") {
            None => (None, stem),
            Some(rest) => {
                let (layer, stem) = rest.split_once('.')?;
                (Some(layer.parse().ok()?), stem)
            }
        };
        let row = TABLE.iter().find(|row| row.1 == stem && row.2 == layer.is_some())?;
        // `blk.03` and `blk.+3` parse as well, but are not the name that the file format gives.
        (row.0.tensor_name(layer) == name).then_some((row.0, layer))
    }

    /// The shape that this tensor has in a model of these hyperparameters, fastest dimension first: `[inputs, outputs]`.
    pub fn shape(self, of: &Hyperparameters) -> Vec<u64> {
        let hidden = u64::from(of.hidden_size);
        let ffn = u64::from(of.ffn_size);
        let vocab = u64::from(of.vocab_size);
        let query = u64::from(of.n_heads) * u64::from(of.head_size);
        let key_value = u64::from(of.n_kv_heads) * u64::from(of.head_size);
        match self {
            Role::TokenEmbedding | Role::Output => vec![hidden, vocab],
            Role::OutputNorm | Role::AttentionNorm | Role::FfnNorm => vec![hidden],
            Role::RopeFrequencies => vec![u64::from(of.rope.n_rotated / 2)],
            Role::Query => vec![hidden, query],
            Role::Key | Role::Value => vec![hidden, key_value],
            Role::AttentionOutput => vec![query, hidden],
            Role::FfnGate | Role::FfnUp => vec![hidden, ffn],
            Role::FfnDown => vec![ffn, hidden],
        }
    }

    /// The tensors a model of these hyperparameters has: no more, no fewer.
    pub(crate) fn expected(of: &Hyperparameters) -> impl Iterator<Item = (Role, Option<u32>)> {
        let tied = of.tied_embedding;
        let has_frequencies = of.rope.has_frequency_factors;
        let whole = TABLE.iter().filter(|row| !row.2).map(|row| row.0).filter(move |role| match role {
            Role::Output => !tied,
            Role::RopeFrequencies => has_frequencies,
            _ => true,
        });
        let layers =
            (0..of.n_layers).flat_map(|layer| TABLE.iter().filter(|row| row.2).map(move |row| (row.0, Some(layer))));
        whole.map(|role| (role, None)).chain(layers)
    }

    fn row(self) -> &'static (Role, &'static str, bool) {
        // The table is in the order of the enum; a unit test holds it to that.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_role_is_found_again_by_the_name_of_its_tensor() {
        for (idx, role) in Role::all().enumerate() {
            assert_eq!(role as usize, idx, "{role:?} stands at another place in the table");
            let layer = role.is_of_a_layer().then_some(12);
            assert_eq!(Role::of_tensor(&role.tensor_name(layer)), Some((role, layer)));
        }
    }

    #[test]
    fn a_name_that_only_resembles_a_tensor_is_none() {
        for name in ["blk.03.attn_q.weight", "blk.+3.attn_q.weight", "blk.3.attn_q.bias", "attn_q.weight"] {
            assert_eq!(Role::of_tensor(name), None, "{name}");
        }
        for name in ["blk.1.token_embd.weight", "blk.99999999999.attn_q.weight", "blk..attn_q.weight", ""] {
            assert_eq!(Role::of_tensor(name), None, "{name}");
        }
    }
}
