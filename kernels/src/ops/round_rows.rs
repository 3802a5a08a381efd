//! Rounding of the residual stream to what the wire can carry, so that a split between layers changes no bit.

use crate::plan::{Binding, Plan};
use crate::recording::BufferId;
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
}

/// Rounds `n_rows` rows of `width` in place.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundRows {
    pub x: BufferId,
    pub width: usize,
    pub n_rows: usize,
    pub to: ActivationRounding,
}

impl RoundRows {
    pub(crate) fn check(&self, shapes: &Shapes) -> Result<(), ShapeError> {
        shapes.require_rows("x", self.x, self.n_rows, self.width)
    }
}

impl RoundRows {
    /// A workgroup a row.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) {
        let ActivationRounding::F16 = self.to;
        plan.dispatch(
            Variant::RoundRows,
            &[self.width as u32],
            &[(1, Binding::Write(self.x))],
            [self.n_rows as u32, 1],
        );
    }
}
