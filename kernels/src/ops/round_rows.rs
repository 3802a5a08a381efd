//! Rounding of the residual stream to what the wire can carry, so that a split between layers changes no bit.

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes};
use crate::wgsl::Variant;

/// The type of the wire whose values rows are rounded to. For f32 on the wire there is nothing to round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationRounding {
    /// f16 with one power of two a row.
    ///
    /// Let m be the largest |xᵢ| of the row after rounding each to 11 significant bits (nearest, ties to even), and
    /// e = ⌊log₂ m⌋ − 14. Then yᵢ = f16(xᵢ · 2⁻ᵉ) · 2ᵉ, f16 rounding to nearest, ties to even, subnormals (multiples of 2⁻²⁴) included; so
    /// scaled values stay under 2¹⁵. f32 subnormals count as zero of their sign. A row of zeros has e = 0; a row with a value that
    /// is not finite, or whose m overflows, stays as it is. Rounding twice is rounding once.
    F16,
    /// 8 bits with one scale for each 32 values; the last group of a row may be shorter.
    ///
    /// Let m be the largest |xᵢ| of the group and d = m / 127 rounded to 8 significant bits (nearest, ties to even), so that bf16 holds
    /// it. Then yᵢ = d · qᵢ with qᵢ = xᵢ / d rounded to the nearest integer, ties to even. A group whose d is under 2⁻¹²⁵ becomes zeros, one
    /// that holds a value that is not finite becomes NaN, as on the wire. Zeros are positive.
    ///
    /// Rounding twice is rounding once: d is off by at most one part in 257, so m / d is from 126.508 to 127.496 and becomes 127; 127 · d is
    /// exact in f32 and gives the same d again, and each yᵢ / d is qᵢ itself. A scale of more freedom (f16 with its subnormals) or a quantiser
    /// that multiplies by a rounded reciprocal would not promise that; powers of two would, at up to twice the error.
    Q8,
}

/// Rounds `n_rows` rows of `width` in place.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundRows {
    pub x: BufferId,
    pub width: usize,
    pub n_rows: usize,
    pub to: ActivationRounding,
}

impl Operation for RoundRows {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        shapes.require_rows("x", self.x, self.n_rows, self.width)
    }

    /// A workgroup a row.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch(
            Variant::RoundRows { q8: self.to == ActivationRounding::Q8 },
            &[self.width as u32],
            &[(1, Binding::Write(self.x))],
            [self.n_rows as u32, 1],
        );
        Ok(())
    }
}
