//! Rotary positions as the file has them (arXiv 2104.09864): which values turn, how fast, and what scales that.

use serde::{Deserialize, Serialize};

use crate::family::RopeStyle;

/// The pair with index j at position p turns by p · `position_scale` · `base`^(-2j / `n_rotated`) / factor\[j\], where YaRN does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rope {
    pub style: RopeStyle,
    pub base: f32,
    /// Values of each head that turn, from its start; even, at most the head size.
    pub n_rotated: u32,
    /// 1 ÷ `rope.scaling.factor`; 1 where there is no linear scaling.
    pub position_scale: f32,
    /// A tensor of `n_rotated / 2` divisors of the frequencies comes with the model (factor\[j\]; else 1).
    pub has_frequency_factors: bool,
    /// Two such tensors come with the model instead: one for contexts of up to so many tokens, one for longer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors_by_length: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yarn: Option<Yarn>,
    /// What turned values are multiplied by, beside what YaRN says.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub magnitude: f32,
    /// The base of the layers that see a window, where nothing scales those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windowed_base: Option<f32>,
}

/// Slow pairs turn slower yet, fast ones do not, and all are lengthened (arXiv 2309.00071).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Yarn {
    /// How many times the context was stretched: at least 1.
    pub factor: f32,
    /// Tokens of the context before that.
    pub original_context_length: u32,
}

fn one() -> f32 {
    1.0
}

fn is_one(number: &f32) -> bool {
    *number == 1.0
}
