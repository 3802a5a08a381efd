//! Layer norm, with a bias or without (Ba, Kiros & Hinton 2016, arXiv 1607.06450).

use crate::ops::Operation;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Text, Variant};

/// `out[r][i] = (x[first_row + r][i] − mean) · weight[i] / √(mean((x − mean)²) + eps) + bias[i]` for `n_rows` rows of `width`, the means over
/// the row.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    pub x: BufferId,
    /// The first row of `x` taken; rows of `out` count from 0.
    pub first_row: usize,
    /// `[width]`.
    pub weight: VectorId,
    /// `[width]`; without one nothing is added.
    pub bias: Option<VectorId>,
    pub eps: f32,
    pub width: usize,
    pub n_rows: usize,
    /// At least `[n_rows][width]`; not `x`.
    pub out: BufferId,
}

impl Operation for LayerNorm {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        require(self.n_rows > 0, "n_rows", "at least 1", self.n_rows)?;
        require(self.eps.is_finite() && self.eps >= 0.0, "eps", "finite and not negative", self.eps)?;
        shapes.require_vector("weight", self.weight, self.width)?;
        if let Some(bias) = self.bias {
            shapes.require_vector("bias", bias, self.width)?;
        }
        shapes.require_rows("x", self.x, self.first_row.saturating_add(self.n_rows), self.width)?;
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.x])
    }

    /// A workgroup a row.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        plan.dispatch(
            Variant::Plain(Text::LayerNorm),
            &[self.width as u32, self.first_row as u32, self.eps.to_bits(), u32::from(self.bias.is_some())],
            &[
                (1, Binding::Read(self.x)),
                (2, Binding::Vector(self.weight)),
                (3, self.bias.map_or(Binding::Unread, Binding::Vector)),
                (4, Binding::Write(self.out)),
            ],
            [self.n_rows as u32, 1],
        );
        Ok(())
    }
}
