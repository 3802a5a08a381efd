//! Hyperparameters: the numbers that shape a model, read from GGUF metadata. Knows no tensor data.

mod architecture;
mod check;
mod experts;
mod layers;
mod read;
mod rope;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use architecture::Architecture;
pub use check::MAX_HEAD_SIZE;
pub use experts::{Experts, MAX_CHOSEN};
pub use layers::LayerTurn;
pub use rope::{Rope, Yarn};

use crate::family::{Activation, FeedForward};
use crate::gguf::GgufError;
use crate::kv_type::KvType;
use crate::role::Role;

/// The numbers of a model that its tensors and its arithmetic follow from, beside its family.
///
/// [`Hyperparameters::check`] has passed on every value that this crate hands out: sizes are above 0 and small enough
/// that products of two of them fit 64 bits, and every number is finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hyperparameters {
    pub architecture: Architecture,
    pub n_layers: u32,
    /// Values of one hidden state.
    pub hidden_size: u32,
    pub n_heads: u32,
    /// Heads of keys and values; `n_heads` is a multiple of it.
    pub n_kv_heads: u32,
    /// Values of one head; not always `hidden_size / n_heads`.
    pub head_size: u32,
    /// Values between the feed-forward matrices, or between those of one expert.
    pub ffn_size: u32,
    /// `None` where a layer has one feed-forward network, which every token takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
    pub vocab_size: u32,
    /// Tokens the model was trained to see at once.
    pub context_length: u32,
    /// Added to the mean square under the root of every norm.
    pub norm_epsilon: f32,
    /// `None` where positions are not rotary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<Rope>,
    /// `None` where every layer sees all positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    #[serde(default, skip_serializing_if = "Scales::is_plain")]
    pub scales: Scales,
    /// `None` where every layer has attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convolutions: Option<Convolutions>,
    /// Of an encoder–decoder model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
    /// The embedding serves as output matrix as well.
    pub tied_embedding: bool,
    /// Which of the roles that the family may have or lack are here.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub options: BTreeSet<Role>,
}

/// Layers that see the last positions alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Positions seen, a row's own among them.
    pub n_positions: u32,
    pub layers: WindowedLayers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum WindowedLayers {
    /// All but the last of every so many.
    AllButEvery(u32),
    /// One answer a layer.
    Listed(Vec<bool>),
}

/// Layers with a short convolution in place of attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Convolutions {
    /// Positions that one goes over, the row's own among them.
    pub n_taps: u32,
    /// One answer a layer.
    pub layers: Vec<bool>,
}

/// What the file says of scales and caps; `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Scales {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<f32>,
    /// Of what each sub-layer adds to the hidden state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residual: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<f32>,
    /// As the file has it: the family says whether it multiplies or divides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_cap: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_cap: Option<f32>,
}

/// The half of a model that reads the prompt, all positions at once. The decoder attends to what it puts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encoder {
    /// The first so many of the model's layers; the others are the decoder's.
    pub n_layers: u32,
    /// Buckets of distances that have a bias each: even, at least 4.
    pub n_buckets: u32,
    /// The token that decoding starts from.
    pub start_token: u32,
    /// GELU with a gate; otherwise ReLU without.
    pub is_gated: bool,
}

/// Why hyperparameters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HyperparameterError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("architecture `{found}` is not supported; supported are: {supported}")]
    Architecture { found: String, supported: String },
    #[error("`{key}` is {found}: {why}")]
    Unusable { key: String, found: String, why: String },
    #[error("tensor `{tensor}` is missing; the file is incomplete, fetch it again or convert the model anew")]
    MissingTensor { tensor: String },
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Whether the feed-forward network has a gate beside its way up.
    pub fn is_gated(&self) -> bool {
        let family = self.architecture.family();
        self.encoder.map_or(family.feed_forward != FeedForward::Plain, |encoder| encoder.is_gated)
    }

    /// What the feed-forward network's gate does, or its way up where it has none.
    pub fn activation(&self) -> Activation {
        match self.encoder {
            Some(Encoder { is_gated: false, .. }) => Activation::Relu,
            _ => self.architecture.family().activation,
        }
    }

    /// Bytes that one layer's KV cache takes for one token; where layers differ, of the largest: of a convolution what it goes over is
    /// kept, as f32 whatever the type.
    pub fn kv_bytes_per_token_per_layer(&self, kv_type: KvType) -> u64 {
        let attention = 2 * kv_type.row_bytes(u64::from(self.n_kv_heads) * u64::from(self.head_size));
        let convolution = self.convolutions.as_ref().map_or(0, |_| KvType::F32.row_bytes(u64::from(self.hidden_size)));
        attention.max(convolution)
    }

    /// Multiply-adds of one layer's matrices for one token, without attention over the cache, of experts those of the chosen; where layers
    /// differ, of the largest.
    pub fn multiply_adds_per_layer(&self) -> u64 {
        let of = |layer| self.multiply_adds(Role::of_layer(self, layer).filter(|role| !role.is_vector()));
        // The last with attention is of the decoder, where there is one, and has all that the encoder's have.
        let attention = (0..self.n_layers).rev().find(|layer| !self.is_convolution(*layer));
        let convolution = (0..self.n_layers).find(|layer| self.is_convolution(*layer));
        attention.into_iter().chain(convolution).map(of).max().unwrap_or(0)
    }

    /// Multiply-adds of the output matrix for one token.
    pub fn multiply_adds_of_head(&self) -> u64 {
        self.multiply_adds([Role::Output].into_iter())
    }

    fn multiply_adds(&self, roles: impl Iterator<Item = Role>) -> u64 {
        let of = |role: Role| {
            let whole = role.shape(self).iter().product::<u64>();
            let experts = self.experts.filter(|_| role.is_of_experts());
            experts.map_or(whole, |of| whole / u64::from(of.n_experts) * u64::from(of.n_chosen))
        };
        roles.map(of).sum()
    }
}

// === impl Scales ===

impl Scales {
    /// Whether the file says nothing.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}
