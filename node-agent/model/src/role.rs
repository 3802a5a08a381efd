//! Roles: what a tensor is for, its name in a GGUF file, and the shape it must have.

use serde::{Deserialize, Serialize};

use crate::hyperparameters::{Architecture, Hyperparameters, Positions};

/// What a tensor does in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// One row for each token of the vocabulary.
    TokenEmbedding,
    /// Gain of the norm after the embedding.
    TokenEmbeddingNorm,
    TokenEmbeddingNormBias,
    /// One row for each position.
    PositionEmbedding,
    /// Gain of the norm before the output matrix.
    OutputNorm,
    OutputNormBias,
    /// Hidden state to logits; absent where the embedding serves (tied).
    Output,
    /// Divisors of the rotation frequencies, the same for every layer.
    RopeFrequencies,
    /// Biases of an encoder's attention scores by head and bucket of distance, the same for every layer.
    EncoderRelativeBias,
    /// Gain of the norm of what an encoder puts out.
    EncoderOutputNorm,
    DecoderRelativeBias,
    AttentionNorm,
    AttentionNormBias,
    Query,
    QueryBias,
    /// Gain of the norm of each query head.
    QueryNorm,
    Key,
    KeyBias,
    /// Gain of the norm of each key head.
    KeyNorm,
    Value,
    ValueBias,
    /// Queries, keys and values in one: the rows of all query heads, then keys, then values.
    QueryKeyValue,
    QueryKeyValueBias,
    AttentionOutput,
    AttentionOutputBias,
    FfnNorm,
    FfnNormBias,
    FfnGate,
    FfnUp,
    FfnUpBias,
    FfnDown,
    FfnDownBias,
    /// Of attention to an encoder's output.
    CrossNorm,
    CrossQuery,
    CrossKey,
    CrossValue,
    CrossOutput,
}

/// Role, its name in the file without `blk.N.`, whether it is one of each layer.
const TABLE: [(Role, &str, bool); 37] = [
    (Role::TokenEmbedding, "token_embd.weight", false),
    (Role::TokenEmbeddingNorm, "token_embd_norm.weight", false),
    (Role::TokenEmbeddingNormBias, "token_embd_norm.bias", false),
    (Role::PositionEmbedding, "position_embd.weight", false),
    (Role::OutputNorm, "output_norm.weight", false),
    (Role::OutputNormBias, "output_norm.bias", false),
    (Role::Output, "output.weight", false),
    (Role::RopeFrequencies, "rope_freqs.weight", false),
    (Role::EncoderRelativeBias, "enc.blk.0.attn_rel_b.weight", false),
    (Role::EncoderOutputNorm, "enc.output_norm.weight", false),
    (Role::DecoderRelativeBias, "dec.blk.0.attn_rel_b.weight", false),
    (Role::AttentionNorm, "attn_norm.weight", true),
    (Role::AttentionNormBias, "attn_norm.bias", true),
    (Role::Query, "attn_q.weight", true),
    (Role::QueryBias, "attn_q.bias", true),
    (Role::QueryNorm, "attn_q_norm.weight", true),
    (Role::Key, "attn_k.weight", true),
    (Role::KeyBias, "attn_k.bias", true),
    (Role::KeyNorm, "attn_k_norm.weight", true),
    (Role::Value, "attn_v.weight", true),
    (Role::ValueBias, "attn_v.bias", true),
    (Role::QueryKeyValue, "attn_qkv.weight", true),
    (Role::QueryKeyValueBias, "attn_qkv.bias", true),
    (Role::AttentionOutput, "attn_output.weight", true),
    (Role::AttentionOutputBias, "attn_output.bias", true),
    (Role::FfnNorm, "ffn_norm.weight", true),
    (Role::FfnNormBias, "ffn_norm.bias", true),
    (Role::FfnGate, "ffn_gate.weight", true),
    (Role::FfnUp, "ffn_up.weight", true),
    (Role::FfnUpBias, "ffn_up.bias", true),
    (Role::FfnDown, "ffn_down.weight", true),
    (Role::FfnDownBias, "ffn_down.bias", true),
    (Role::CrossNorm, "cross_attn_norm.weight", true),
    (Role::CrossQuery, "cross_attn_q.weight", true),
    (Role::CrossKey, "cross_attn_k.weight", true),
    (Role::CrossValue, "cross_attn_v.weight", true),
    (Role::CrossOutput, "cross_attn_o.weight", true),
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
        use Role::*;
        match self {
            TokenEmbedding | PositionEmbedding | Output | Query | Key | Value | QueryKeyValue | AttentionOutput
            | FfnGate | FfnUp | FfnDown | CrossQuery | CrossKey | CrossValue | CrossOutput => false,
            TokenEmbeddingNorm
            | TokenEmbeddingNormBias
            | OutputNorm
            | OutputNormBias
            | RopeFrequencies
            | AttentionNorm
            | AttentionNormBias
            | QueryBias
            | QueryNorm
            | KeyBias
            | KeyNorm
            | ValueBias
            | QueryKeyValueBias
            | AttentionOutputBias
            | FfnNorm
            | FfnNormBias
            | FfnUpBias
            | FfnDownBias
            | EncoderRelativeBias
            | EncoderOutputNorm
            | DecoderRelativeBias
            | CrossNorm => true,
        }
    }

    /// The tensor's name in a file of these hyperparameters: `blk.3.attn_q.weight`, in an encoder–decoder model
    /// `enc.blk.3.attn_q.weight`. `layer` counts only where the role is of a layer.
    pub fn tensor_name(self, of: &Hyperparameters, layer: Option<u32>) -> String {
        let stem = match (of.encoder, self) {
            (Some(_), Role::OutputNorm) => "dec.output_norm.weight",
            (Some(_), Role::AttentionOutput) => "attn_o.weight",
            _ => self.row().1,
        };
        match (layer, of.encoder) {
            (None, _) => stem.to_owned(),
            (Some(layer), None) => format!("blk.{layer}.{stem}"),
            (Some(layer), Some(encoder)) => match layer.checked_sub(encoder.n_layers) {
                None => format!("enc.blk.{layer}.{stem}"),
                Some(layer) => format!("dec.blk.{layer}.{stem}"),
            },
        }
    }

    /// The shape that this tensor has in a model of these hyperparameters, fastest dimension first: `[inputs, outputs]`.
    pub fn shape(self, of: &Hyperparameters) -> Vec<u64> {
        use Role::*;
        let hidden = u64::from(of.hidden_size);
        let ffn = u64::from(of.ffn_size);
        let vocab = u64::from(of.vocab_size);
        let query = u64::from(of.n_heads) * u64::from(of.head_size);
        let key_value = u64::from(of.n_kv_heads) * u64::from(of.head_size);
        match self {
            TokenEmbedding | Output => vec![hidden, vocab],
            PositionEmbedding => vec![hidden, u64::from(of.context_length)],
            TokenEmbeddingNorm
            | TokenEmbeddingNormBias
            | OutputNorm
            | OutputNormBias
            | AttentionNorm
            | AttentionNormBias
            | AttentionOutputBias
            | FfnNorm
            | FfnNormBias
            | FfnDownBias
            | EncoderOutputNorm
            | CrossNorm => vec![hidden],
            RopeFrequencies => vec![of.rope.map_or(0, |rope| u64::from(rope.n_rotated / 2))],
            EncoderRelativeBias | DecoderRelativeBias => {
                vec![u64::from(of.n_heads), of.encoder.map_or(0, |encoder| u64::from(encoder.n_buckets))]
            }
            Query | CrossQuery => vec![hidden, query],
            QueryBias => vec![query],
            QueryNorm | KeyNorm => vec![u64::from(of.head_size)],
            Key | Value | CrossKey | CrossValue => vec![hidden, key_value],
            KeyBias | ValueBias => vec![key_value],
            QueryKeyValue => vec![hidden, query + 2 * key_value],
            QueryKeyValueBias => vec![query + 2 * key_value],
            AttentionOutput | CrossOutput => vec![query, hidden],
            FfnGate | FfnUp => vec![hidden, ffn],
            FfnUpBias => vec![ffn],
            FfnDown => vec![ffn, hidden],
        }
    }

    /// Whether a model of these hyperparameters has such a tensor (each of its layers, where the role is of a layer).
    pub fn is_in(self, of: &Hyperparameters) -> bool {
        use Role::*;
        let family = of.architecture;
        let is_fused = family.has_layer_norms();
        match self {
            TokenEmbedding | OutputNorm | AttentionNorm | AttentionOutput | FfnNorm | FfnUp | FfnDown => true,
            Output => !of.tied_embedding,
            RopeFrequencies => of.rope.is_some_and(|rope| rope.has_frequency_factors),
            TokenEmbeddingNorm | TokenEmbeddingNormBias => family == Architecture::Bloom,
            PositionEmbedding => family.positions() == Positions::Learned,
            OutputNormBias | AttentionNormBias | AttentionOutputBias | FfnNormBias | FfnUpBias | FfnDownBias => {
                family.has_layer_norms()
            }
            Query | Key | Value => !is_fused,
            QueryKeyValue | QueryKeyValueBias => is_fused,
            QueryBias | KeyBias | ValueBias => family == Architecture::Qwen2,
            QueryNorm | KeyNorm => family == Architecture::Qwen3,
            FfnGate => of.is_gated(),
            EncoderRelativeBias | EncoderOutputNorm | DecoderRelativeBias | CrossNorm | CrossQuery | CrossKey
            | CrossValue | CrossOutput => of.encoder.is_some(),
        }
    }

    /// The roles that this layer of a model of these hyperparameters has.
    pub fn of_layer(of: &Hyperparameters, layer: u32) -> impl Iterator<Item = Role> {
        let is_here = move |role: &Role| !role.is_of_cross_attention() || of.attends_to_encoder(layer);
        Self::all().filter(|role| role.is_of_a_layer() && role.is_in(of)).filter(is_here)
    }

    fn is_of_cross_attention(self) -> bool {
        use Role::*;
        matches!(self, CrossNorm | CrossQuery | CrossKey | CrossValue | CrossOutput)
    }

    /// The tensors a model of these hyperparameters has: no more, no fewer.
    pub(crate) fn expected(of: &Hyperparameters) -> impl Iterator<Item = (Role, Option<u32>)> {
        let whole = Self::all().filter(|role| !role.is_of_a_layer() && role.is_in(of));
        let layers = (0..of.n_layers).flat_map(|layer| Self::of_layer(of, layer).map(move |role| (role, Some(layer))));
        whole.map(|role| (role, None)).chain(layers)
    }

    fn row(self) -> &'static (Role, &'static str, bool) {
        // The table is in the order of the enum; a unit test holds it to that.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_roles_and_names_each_once() {
        for (idx, role) in Role::all().enumerate() {
            assert_eq!(role as usize, idx, "{role:?} stands at another place in the table");
            let n_named = TABLE.iter().filter(|row| row.1 == role.row().1).count();
            assert_eq!(n_named, 1, "{role:?}");
        }
    }
}
