//! A gate and its way up in one (Shazeer 2020, arXiv 2002.05202): two products and the gate, as two `Matmul`s and an `Activate` give.

use crate::ops::Operation;
use crate::ops::activate::Activation;
use crate::plan::products::Products;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, MatrixId, Row};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// `out[r][o] = f(g) · u` with `g = Σᵢ weight[2o][i] · x[r][i]` and `u = Σᵢ weight[2o + 1][i] · x[r][i]` for `n_rows` rows.
///
/// `weight` is `[2 · width][n_in]`, rows of the gate and of up taking turns; `x` holds rows of `n_in`, `out` rows of `width`.
#[derive(Clone, Debug, PartialEq)]
pub struct GateUp {
    pub function: Activation,
    pub weight: MatrixId,
    pub x: BufferId,
    pub n_rows: usize,
    /// At least `[n_rows][width]`; not `x`.
    pub out: BufferId,
}

impl Operation for GateUp {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        let weight = shapes.matrix("weight", self.weight)?;
        require(self.n_rows > 0, "n_rows", "at least 1", self.n_rows)?;
        require(weight.n_rows.is_multiple_of(2), "weight", "rows of gate and up taking turns", weight.n_rows)?;
        shapes.require_rows("x", self.x, self.n_rows, weight.n_cols)?;
        shapes.require_rows("out", self.out, self.n_rows, weight.n_rows / 2)?;
        require_apart(self.out, &[self.x])
    }

    /// As [`Products`] says.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let Self { function, weight, x, n_rows, out } = *self;
        let bindings = vec![(6, Binding::Write(out))];
        Products { weight, x, first_row: 0, n_rows, flags: function.number(), bindings, kernel: Variant::GateUp }
            .plan(plan)
    }
}
