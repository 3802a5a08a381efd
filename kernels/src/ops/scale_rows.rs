//! Rows times a number and held below a cap, in place: what becomes of logits in families that scale or cap them.

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row};
use crate::shapes::{ShapeError, Shapes, require};
use crate::wgsl::{Text, Variant};

/// `x[i] = s` with `s = scale · x[i]`, or `cap · tanh(s / cap)` where there is a cap, for `n_rows` rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleRows {
    pub x: BufferId,
    pub scale: f32,
    /// Above 0.
    pub cap: Option<f32>,
    pub width: usize,
    pub n_rows: usize,
}

impl Operation for ScaleRows {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        let cap = self.cap.unwrap_or(1.0);
        require(cap.is_finite() && cap > 0.0, "cap", "finite and over 0", cap)?;
        shapes.require_rows("x", self.x, self.n_rows, self.width)
    }

    /// A lane a value.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch_lanes(
            Variant::Plain(Text::ScaleRows),
            &[self.width as u32, self.scale.to_bits(), self.cap.unwrap_or(0.0).to_bits()],
            &[(1, Binding::Write(self.x))],
            self.width,
            self.n_rows,
        );
        Ok(())
    }
}
