//! Matrix times rows, with bias and residual.

use crate::ops::Operation;
use crate::plan::products::Products;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, MatrixId, Row, VectorId};
use crate::shapes::{ShapeError, Shapes, require, require_apart};
use crate::wgsl::Variant;

/// `out[r][o] = Σᵢ weight[o][i] · x[first_row + r][i] + bias[o] + residual[r][o]` for `n_rows` rows.
///
/// `weight` is `[n_out][n_in]`; `x` holds rows of `n_in`, `out` and `residual` rows of `n_out`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matmul {
    pub weight: MatrixId,
    pub x: BufferId,
    /// The first row of `x` taken ("only the last row" for logits); rows of `out` count from 0.
    pub first_row: usize,
    pub n_rows: usize,
    /// `[n_out]`.
    pub bias: Option<VectorId>,
    /// Added last, row r of it to row r of `out`; may be `out` itself.
    pub residual: Option<BufferId>,
    /// At least `[n_rows][n_out]`; not `x`.
    pub out: BufferId,
}

// The flags of `wgsl/matmul.wgsl`.
const HAS_BIAS: u32 = 1;
const HAS_RESIDUAL: u32 = 2;
const IN_PLACE: u32 = 4;

impl Operation for Matmul {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        let weight = shapes.matrix("weight", self.weight)?;
        require(self.n_rows > 0, "n_rows", "at least 1", self.n_rows)?;
        shapes.require_rows("x", self.x, self.first_row.saturating_add(self.n_rows), weight.n_cols)?;
        shapes.require_rows("out", self.out, self.n_rows, weight.n_rows)?;
        if let Some(bias) = self.bias {
            shapes.require_vector("bias", bias, weight.n_rows)?;
        }
        if let Some(residual) = self.residual {
            shapes.require_rows("residual", residual, self.n_rows, weight.n_rows)?;
        }
        require_apart(self.out, &[self.x])
    }

    /// As [`Products`] says.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let flag = |held: bool, flag: u32| if held { flag } else { 0 };
        let flags = flag(self.bias.is_some(), HAS_BIAS)
            | flag(self.residual.is_some(), HAS_RESIDUAL)
            | flag(self.residual == Some(self.out), IN_PLACE);
        let bindings = vec![
            (6, Binding::Write(self.out)),
            (7, self.residual.filter(|r| *r != self.out).map_or(Binding::Unread, Binding::Read)),
            (8, self.bias.map_or(Binding::Unread, Binding::Vector)),
        ];
        let Self { weight, x, first_row, n_rows, .. } = *self;
        Products { weight, x, first_row, n_rows, flags, bindings, kernel: Variant::Matmul }.plan(plan)
    }
}
