//! Numerics: what a deployment computes in, and so which bits its answers have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a model computes in. All phones of a ring have it in common: it makes the numerics class, with the backend, see docs/numerics.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Numerics {
    /// How matrices of quantised weights are multiplied. `Int8`: with activations of 8 bits, the faster. `F32`: with activations as they
    /// are, the more exact. Other matrices are multiplied in f32 by both.
    #[serde(default)]
    pub arithmetic: Arithmetic,
    /// The type of a hidden state on the wire; absent: `f16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_type: Option<ActivationType>,
    /// In what keys and values are kept. `F16`: 2 bytes a value. `F32`: 4 bytes, as they are computed. `Q8`: 1 byte, with one scale for
    /// 32 values; the least memory, and lossy. The caches of a short convolution are f32 in each.
    #[serde(default)]
    pub kv_cache: KvCache,
    /// Where prompts are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<Prefill>,
}

/// Where prompts are read; absent: where their answers are decoded. `Gpu`: on each phone's GPU, whatever GPU it is, while its processor decodes,
/// which is often the fastest of both. Weights and caches are then held twice, and answers are not the same to the bit each time: they depend on
/// what else is computed meanwhile, and after a replay later tokens may be others; those that were streamed stay. The numerics class is called `mixed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Prefill {
    /// On the GPU of each phone.
    Gpu,
}

/// How matrices are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Arithmetic {
    /// Quantised weights with activations of 8 bits, one scale for 32 of them.
    #[default]
    Int8,
    /// Dequantised weights with activations of f32.
    F32,
}

/// In what keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum KvCache {
    /// As they are computed.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// 8-bit integers with one scale for 32 values; lossy.
    Q8,
}

/// The type of a hidden state on the wire, and the rounding of the residual stream after every layer; absent: `f16`. `f32`: 4 bytes a
/// value. `f16`: 2 bytes a value, with one power-of-two exponent a row. `q8`: 1 byte a value, with one scale for 32 values; the least
/// to send, and lossy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ActivationType {
    F32,
    /// Half precision with one power-of-two exponent a row.
    #[default]
    F16,
    /// 8-bit integers with one scale for 32 values; lossy.
    Q8,
}
