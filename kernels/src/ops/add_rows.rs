//! Rows added to others, times a number: what a sub-layer gives to the residual stream where no product adds it itself.

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// `out[i] = out[i] + scale · x[i]` for `n_rows` rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRows {
    pub x: BufferId,
    pub scale: f32,
    pub width: usize,
    pub n_rows: usize,
    /// Not `x`.
    pub out: BufferId,
}

impl Operation for AddRows {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        shapes.require_rows("x", self.x, self.n_rows, self.width)?;
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.x])
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch_lanes(
            Variant::Plain(Text::AddRows),
            &[self.width as u32, self.scale.to_bits()],
            &[(1, Binding::Read(self.x)), (2, Binding::Write(self.out))],
            self.width,
            self.n_rows,
        );
        Ok(())
    }
}
