//! Activations of 8 bits: what an engine of that arithmetic makes of rows before it multiplies them. Planned, never recorded.

use crate::packing::GROUP;
use crate::plan::{Binding, Form, Plan};
use crate::recording::BufferId;
use crate::wgsl::{Text, Variant};

/// Bytes that a group of 32 values takes: 32 of values, then d (f32) and the sums of either half (i32), then nothing.
pub(crate) const QUANTISED_GROUP_BYTES: usize = 48;

/// For each 32 values: with max |xᵢ| = s · 2ᵉ, 1 ≤ s < 2, let u = ⌈2¹¹ s⌉, so that u · 2^(e − 11) is the least number of 12 bits that is not less. Then
/// d = u / 127 · 2^(e − 11), by the f32 nearest to 1 / 127, and qᵢ = xᵢ · r with r = ⌊127 · 2²⁰ / u⌋ · 2^(−e − 9), rounded to the nearest
/// integer, ties to even. Blocks whose largest value is under 2⁻⁹⁹ become zeros; where it is 2¹¹⁸ or more, or no number, d is no number.
///
/// The one division is of integers, and everything else is one multiplication rounded as IEEE 754 says: no device may do otherwise, where
/// they divide floats as they please. d is over max |xᵢ| / 127 by at most a part in 2,048, and |xᵢ − d · qᵢ| ≤ 0.51 d.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QuantiseRows {
    pub x: BufferId,
    pub first_row: usize,
    pub n_rows: usize,
    /// A multiple of 32.
    pub width: usize,
}

/// r and d by the bits of the largest absolute value.
#[inline(always)]
pub(crate) fn steps(largest: u32) -> (f32, f32) {
    let exponent = largest >> 23;
    if exponent < 28 {
        return (0.0, 0.0);
    }
    if exponent > 244 {
        return (0.0, f32::NAN);
    }
    let upper = ((largest & 0x7f_ffff | 0x80_0000) + 0xfff) >> 12;
    let per_step = ((127 << 20) / upper) as f32 * f32::from_bits((245 - exponent) << 23);
    let d = upper as f32 * f32::from_bits(0x3c01_0204) * f32::from_bits((exponent - 11) << 23);
    (per_step, d)
}

impl QuantiseRows {
    /// A lane a group.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        let n_groups = self.width / GROUP;
        plan.dispatch_lanes(
            Variant::Plain(Text::QuantiseRows),
            &[n_groups as u32, self.first_row as u32],
            &[(1, Binding::Read(self.x)), (2, Binding::Made(self.x, Form::Bytes))],
            n_groups,
            self.n_rows,
        );
    }
}
