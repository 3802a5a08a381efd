//! Roles: what a tensor is for, its name in a GGUF file, and the shape it must have.

use serde::{Deserialize, Serialize};

use crate::family::{Biases, Family, FeedForward, HeadNorms, Positions};
use crate::hyperparameters::Hyperparameters;

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
    /// The same, for contexts longer than those that the model was first trained with.
    RopeFactorsLong,
    /// And for contexts that are not.
    RopeFactorsShort,
    /// Biases of an encoder's attention scores by head and bucket of distance, the same for every layer.
    EncoderRelativeBias,
    /// Gain of the norm of what an encoder puts out.
    EncoderOutputNorm,
    DecoderRelativeBias,
    AttentionNorm,
    AttentionNormBias,
    /// Of what attention takes, where the feed-forward network beside it takes what the norm before gives.
    AttentionNorm2,
    AttentionNorm2Bias,
    Query,
    QueryBias,
    /// Gain of the norm of queries: of each head, or of all together.
    QueryNorm,
    Key,
    KeyBias,
    /// The same of keys.
    KeyNorm,
    Value,
    ValueBias,
    /// Queries, keys and values in one: the rows of all query heads, then keys, then values.
    QueryKeyValue,
    QueryKeyValueBias,
    AttentionOutput,
    AttentionOutputBias,
    /// A logit for each head that joins the softmax of its scores.
    Sinks,
    /// Of a short convolution: what goes into it, its gate, and what that is multiplied by before.
    ConvInput,
    /// The taps of each channel, the last on the row's own position.
    ConvTaps,
    ConvOutput,
    /// Gain of the norm of what attention gives.
    AttentionPostNorm,
    FfnNorm,
    FfnNormBias,
    FfnGate,
    /// The way up; where both are fused the gate's rows and then its own.
    FfnUp,
    FfnUpBias,
    FfnDown,
    FfnDownBias,
    /// Gain of the norm of what the feed-forward network gives.
    FfnPostNorm,
    /// Hidden state to a logit for each expert.
    Router,
    RouterBias,
    /// Of all experts: the matrix of one after that of the other.
    ExpertGate,
    ExpertGateBias,
    ExpertUp,
    ExpertUpBias,
    ExpertDown,
    ExpertDownBias,
    /// Of attention to an encoder's output.
    CrossNorm,
    CrossQuery,
    CrossKey,
    CrossValue,
    CrossOutput,
}

/// Role, its name in the file without `blk.N.`, whether it is one of each layer.
const TABLE: [(Role, &str, bool); 55] = [
    (Role::TokenEmbedding, "token_embd.weight", false),
    (Role::TokenEmbeddingNorm, "token_embd_norm.weight", false),
    (Role::TokenEmbeddingNormBias, "token_embd_norm.bias", false),
    (Role::PositionEmbedding, "position_embd.weight", false),
    (Role::OutputNorm, "output_norm.weight", false),
    (Role::OutputNormBias, "output_norm.bias", false),
    (Role::Output, "output.weight", false),
    (Role::RopeFrequencies, "rope_freqs.weight", false),
    (Role::RopeFactorsLong, "rope_factors_long.weight", false),
    (Role::RopeFactorsShort, "rope_factors_short.weight", false),
    (Role::EncoderRelativeBias, "enc.blk.0.attn_rel_b.weight", false),
    (Role::EncoderOutputNorm, "enc.output_norm.weight", false),
    (Role::DecoderRelativeBias, "dec.blk.0.attn_rel_b.weight", false),
    (Role::AttentionNorm, "attn_norm.weight", true),
    (Role::AttentionNormBias, "attn_norm.bias", true),
    (Role::AttentionNorm2, "attn_norm_2.weight", true),
    (Role::AttentionNorm2Bias, "attn_norm_2.bias", true),
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
    (Role::Sinks, "attn_sinks.weight", true),
    (Role::ConvInput, "shortconv.in_proj.weight", true),
    (Role::ConvTaps, "shortconv.conv.weight", true),
    (Role::ConvOutput, "shortconv.out_proj.weight", true),
    (Role::AttentionPostNorm, "post_attention_norm.weight", true),
    (Role::FfnNorm, "ffn_norm.weight", true),
    (Role::FfnNormBias, "ffn_norm.bias", true),
    (Role::FfnGate, "ffn_gate.weight", true),
    (Role::FfnUp, "ffn_up.weight", true),
    (Role::FfnUpBias, "ffn_up.bias", true),
    (Role::FfnDown, "ffn_down.weight", true),
    (Role::FfnDownBias, "ffn_down.bias", true),
    (Role::FfnPostNorm, "post_ffw_norm.weight", true),
    (Role::Router, "ffn_gate_inp.weight", true),
    (Role::RouterBias, "ffn_gate_inp.bias", true),
    (Role::ExpertGate, "ffn_gate_exps.weight", true),
    (Role::ExpertGateBias, "ffn_gate_exps.bias", true),
    (Role::ExpertUp, "ffn_up_exps.weight", true),
    (Role::ExpertUpBias, "ffn_up_exps.bias", true),
    (Role::ExpertDown, "ffn_down_exps.weight", true),
    (Role::ExpertDownBias, "ffn_down_exps.bias", true),
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

    /// Whether the tensor is one of vectors: kept in F32, as every converter does.
    pub fn is_vector(self) -> bool {
        use Role::*;
        match self {
            TokenEmbedding | PositionEmbedding | Output | Query | Key | Value | QueryKeyValue | AttentionOutput
            | ConvInput | ConvOutput | FfnGate | FfnUp | FfnDown | Router | ExpertGate | ExpertUp | ExpertDown
            | CrossQuery | CrossKey | CrossValue | CrossOutput => false,
            TokenEmbeddingNorm
            | TokenEmbeddingNormBias
            | OutputNorm
            | OutputNormBias
            | RopeFrequencies
            | RopeFactorsLong
            | RopeFactorsShort
            | AttentionNorm
            | AttentionNormBias
            | AttentionNorm2
            | AttentionNorm2Bias
            | QueryBias
            | QueryNorm
            | KeyBias
            | KeyNorm
            | ValueBias
            | QueryKeyValueBias
            | AttentionOutputBias
            | Sinks
            | ConvTaps
            | AttentionPostNorm
            | FfnNorm
            | FfnNormBias
            | FfnUpBias
            | FfnDownBias
            | FfnPostNorm
            | RouterBias
            | ExpertGateBias
            | ExpertUpBias
            | ExpertDownBias
            | EncoderRelativeBias
            | EncoderOutputNorm
            | DecoderRelativeBias
            | CrossNorm => true,
        }
    }

    /// The bias that goes with a norm's gain or with a matrix, where there is such a role.
    pub fn bias(self) -> Option<Role> {
        use Role::*;
        Some(match self {
            TokenEmbeddingNorm => TokenEmbeddingNormBias,
            OutputNorm => OutputNormBias,
            AttentionNorm => AttentionNormBias,
            AttentionNorm2 => AttentionNorm2Bias,
            FfnNorm => FfnNormBias,
            Query => QueryBias,
            Key => KeyBias,
            Value => ValueBias,
            QueryKeyValue => QueryKeyValueBias,
            AttentionOutput => AttentionOutputBias,
            FfnUp => FfnUpBias,
            FfnDown => FfnDownBias,
            Router => RouterBias,
            ExpertGate => ExpertGateBias,
            ExpertUp => ExpertUpBias,
            ExpertDown => ExpertDownBias,
            _ => return None,
        })
    }

    /// Whether the tensor is a matrix of every expert's.
    pub fn is_of_experts(self) -> bool {
        matches!(self, Role::ExpertGate | Role::ExpertUp | Role::ExpertDown)
    }

    /// Whether the tensor is a table that another is made of when it is loaded, and which no kernel reads as it is.
    pub fn is_table(self) -> bool {
        use Role::*;
        matches!(self, EncoderRelativeBias | DecoderRelativeBias | RopeFrequencies | RopeFactorsLong | RopeFactorsShort)
    }

    /// Whether others are divided by its values.
    pub(crate) fn is_of_divisors(self) -> bool {
        matches!(self, Self::RopeFrequencies | Self::RopeFactorsLong | Self::RopeFactorsShort)
    }

    /// The tensor's name in a file of these hyperparameters: `blk.3.attn_q.weight`, in an encoder–decoder model
    /// `enc.blk.3.attn_q.weight`. `layer` counts only where the role is of a layer.
    pub fn tensor_name(self, of: &Hyperparameters, layer: Option<u32>) -> String {
        let family = of.architecture.family();
        match (layer, of.encoder) {
            (Some(layer), Some(encoder)) => match layer.checked_sub(encoder.n_layers) {
                None => format!("enc.blk.{layer}.{}", self.stem(family)),
                Some(layer) => format!("dec.blk.{layer}.{}", self.stem(family)),
            },
            _ => self.plain_name(family, layer),
        }
    }

    /// The tensor's name in a file of a family whose layers are all of one kind. `layer` counts only where the role is of a layer.
    pub(crate) fn plain_name(self, family: &Family, layer: Option<u32>) -> String {
        match layer.filter(|_| self.is_of_a_layer()) {
            None => self.stem(family).to_owned(),
            Some(layer) => format!("blk.{layer}.{}", self.stem(family)),
        }
    }

    fn stem(self, family: &Family) -> &'static str {
        family.name_of(self).unwrap_or(self.row().1)
    }

    /// The shape that this tensor has in a model of these hyperparameters, fastest dimension first: `[inputs, outputs]`, then experts.
    pub fn shape(self, of: &Hyperparameters) -> Vec<u64> {
        use Role::*;
        let family = of.architecture.family();
        let hidden = u64::from(of.hidden_size);
        let ffn = u64::from(of.ffn_size);
        let vocab = u64::from(of.vocab_size);
        let query = u64::from(of.n_heads) * u64::from(of.head_size);
        let key_value = u64::from(of.n_kv_heads) * u64::from(of.head_size);
        let n_experts = of.experts.map_or(0, |experts| u64::from(experts.n_experts));
        match self {
            TokenEmbedding | Output => vec![hidden, vocab],
            PositionEmbedding => vec![hidden, u64::from(of.context_length)],
            TokenEmbeddingNorm
            | TokenEmbeddingNormBias
            | OutputNorm
            | OutputNormBias
            | AttentionNorm
            | AttentionNormBias
            | AttentionNorm2
            | AttentionNorm2Bias
            | AttentionOutputBias
            | AttentionPostNorm
            | FfnNorm
            | FfnNormBias
            | FfnDownBias
            | FfnPostNorm
            | EncoderOutputNorm
            | CrossNorm => vec![hidden],
            RopeFrequencies | RopeFactorsLong | RopeFactorsShort => {
                vec![of.rope.map_or(0, |rope| u64::from(rope.n_rotated / 2))]
            }
            EncoderRelativeBias | DecoderRelativeBias => {
                vec![u64::from(of.n_heads), of.encoder.map_or(0, |encoder| u64::from(encoder.n_buckets))]
            }
            Query | CrossQuery => vec![hidden, query],
            QueryBias => vec![query],
            QueryNorm if family.head_norms == HeadNorms::All => vec![query],
            KeyNorm if family.head_norms == HeadNorms::All => vec![key_value],
            QueryNorm | KeyNorm => vec![u64::from(of.head_size)],
            Sinks => vec![u64::from(of.n_heads)],
            ConvInput => vec![hidden, 3 * hidden],
            ConvTaps => vec![of.convolutions.as_ref().map_or(0, |of| u64::from(of.n_taps)), hidden],
            ConvOutput => vec![hidden, hidden],
            Key | Value | CrossKey | CrossValue => vec![hidden, key_value],
            KeyBias | ValueBias => vec![key_value],
            QueryKeyValue => vec![hidden, query + 2 * key_value],
            QueryKeyValueBias => vec![query + 2 * key_value],
            AttentionOutput | CrossOutput => vec![query, hidden],
            FfnUp if family.feed_forward == FeedForward::Fused => vec![hidden, 2 * ffn],
            FfnGate | FfnUp => vec![hidden, ffn],
            FfnUpBias => vec![ffn],
            FfnDown => vec![ffn, hidden],
            Router => vec![hidden, n_experts],
            RouterBias => vec![n_experts],
            ExpertGate | ExpertUp => vec![hidden, ffn, n_experts],
            ExpertGateBias | ExpertUpBias => vec![ffn, n_experts],
            ExpertDown => vec![ffn, hidden, n_experts],
            ExpertDownBias => vec![hidden, n_experts],
        }
    }

    /// Whether a model of these hyperparameters has such a tensor (each of its layers, where the role is of a layer).
    pub fn is_in(self, of: &Hyperparameters) -> bool {
        use Role::*;
        let family = of.architecture.family();
        let (has_biases, has_norm_biases) = (family.biases == Biases::All, family.has_norm_biases());
        let has_ffn_norm = family.has_norms_before() && !family.is_parallel;
        let has_experts = of.experts.is_some();
        match self {
            _ if family.optional.contains(&self) => of.options.contains(&self),
            TokenEmbedding | OutputNorm | AttentionOutput => true,
            FfnUp | FfnDown => !has_experts,
            Router | ExpertGate | ExpertUp | ExpertDown => has_experts,
            RouterBias | ExpertGateBias | ExpertUpBias | ExpertDownBias => has_experts && has_biases,
            Output => !of.tied_embedding,
            RopeFrequencies => of.rope.is_some_and(|rope| rope.has_frequency_factors),
            RopeFactorsLong | RopeFactorsShort => of.rope.is_some_and(|rope| rope.factors_by_length.is_some()),
            TokenEmbeddingNorm => family.has_embedding_norm,
            TokenEmbeddingNormBias => family.has_embedding_norm && has_norm_biases,
            PositionEmbedding => family.positions == Positions::Learned,
            OutputNormBias => has_norm_biases,
            AttentionNorm => family.has_norms_before(),
            AttentionNormBias => family.has_norms_before() && has_norm_biases,
            AttentionNorm2 => false,
            AttentionNorm2Bias => has_norm_biases && AttentionNorm2.is_in(of),
            FfnNorm => has_ffn_norm,
            FfnNormBias => has_ffn_norm && has_norm_biases,
            AttentionPostNorm | FfnPostNorm => family.has_norms_after(),
            AttentionOutputBias => has_biases,
            FfnUpBias | FfnDownBias => has_biases && !has_experts,
            Query | Key | Value => !family.fuses_queries,
            QueryKeyValue => family.fuses_queries,
            QueryKeyValueBias => family.fuses_queries && family.biases != Biases::None,
            QueryBias | KeyBias | ValueBias => !family.fuses_queries && family.biases != Biases::None,
            QueryNorm | KeyNorm => family.head_norms != HeadNorms::None,
            Sinks => family.has_sinks,
            ConvInput | ConvTaps | ConvOutput => of.convolutions.is_some(),
            FfnGate => of.is_gated() && family.feed_forward == FeedForward::Gated && !has_experts,
            EncoderRelativeBias | EncoderOutputNorm | DecoderRelativeBias | CrossNorm | CrossQuery | CrossKey
            | CrossValue | CrossOutput => of.encoder.is_some(),
        }
    }

    /// The roles that this layer of a model of these hyperparameters has.
    pub fn of_layer(of: &Hyperparameters, layer: u32) -> impl Iterator<Item = Role> {
        let is_convolution = of.is_convolution(layer);
        let is_here = move |role: &Role| {
            (!role.is_of_cross_attention() || of.attends_to_encoder(layer))
                && !(role.is_of_attention() && is_convolution)
                && (!role.is_of_convolution() || is_convolution)
        };
        Self::all().filter(|role| role.is_of_a_layer() && role.is_in(of)).filter(is_here)
    }

    fn is_of_attention(self) -> bool {
        use Role::*;
        matches!(
            self,
            Query
                | QueryBias
                | QueryNorm
                | Key
                | KeyBias
                | KeyNorm
                | Value
                | ValueBias
                | QueryKeyValue
                | QueryKeyValueBias
                | AttentionOutput
                | AttentionOutputBias
                | Sinks
        )
    }

    fn is_of_convolution(self) -> bool {
        matches!(self, Role::ConvInput | Role::ConvTaps | Role::ConvOutput)
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
