//! RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467).

use crate::engine::Arithmetic;
use crate::ops::Operation;
use crate::packing::GROUP;
use crate::plan::{Binding, Form, Plan, Rows};
use crate::recording::{BufferId, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// `out[r][i] = x[first_row + r][i] · weight[i] / √(mean(x²) + eps)` for `n_rows` rows of `width`.
///
/// A row may be a part of a token's row: with `width` a head size it norms each head.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    pub x: BufferId,
    /// The first row of `x` taken, counted in rows of `width`; rows of `out` count from 0.
    pub first_row: usize,
    /// `[width]`.
    pub weight: VectorId,
    pub eps: f32,
    pub width: usize,
    pub n_rows: usize,
    /// At least `[n_rows][width]`; not `x`.
    pub out: BufferId,
}

impl Operation for RmsNorm {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        require(self.n_rows > 0, "n_rows", "at least 1", self.n_rows)?;
        require(self.eps.is_finite() && self.eps >= 0.0, "eps", "finite and not negative", self.eps)?;
        shapes.require_vector("weight", self.weight, self.width)?;
        shapes.require_rows("x", self.x, self.first_row.saturating_add(self.n_rows), self.width)?;
        shapes.require_rows("out", self.out, self.n_rows, self.width)?;
        require_apart(self.out, &[self.x])
    }

    /// A workgroup a row.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let quantised = plan.facts.arithmetic == Arithmetic::Int8 && self.width.is_multiple_of(GROUP);
        let mut bindings =
            vec![(1, Binding::Read(self.x)), (2, Binding::Vector(self.weight)), (3, Binding::Write(self.out))];
        bindings.extend(quantised.then_some((4, Binding::Made(self.out, Form::Bytes))));
        plan.dispatch(
            Variant::RmsNorm { quantised },
            &[self.width as u32, self.first_row as u32, self.eps.to_bits()],
            &bindings,
            [self.n_rows as u32, 1],
        );
        if quantised {
            plan.is_made(Form::Bytes, self.out, Rows { first: 0, n: self.n_rows, width: self.width });
        }
        Ok(())
    }
}
