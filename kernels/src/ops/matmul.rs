//! Matrix times rows, with bias and residual.

use crate::plan::{Binding, Plan, WINDOW_BYTES};
use crate::recording::{BufferId, MatrixId, VectorId};
use crate::shapes::{MatrixShape, ShapeError, Shapes, require, require_apart};
use crate::weight_type::GROUP;
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

impl Matmul {
    pub(crate) fn check(&self, shapes: &Shapes) -> Result<(), ShapeError> {
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
}

/// Groups of 32 columns that one dispatch multiplies: a window less the 256 bytes by which its start may be off, in whole scale words.
const DISPATCH_GROUPS: usize = (WINDOW_BYTES as usize - 256) / (GROUP * 4) / 8 * 8;

// The flags of `wgsl/matmul.wgsl`.
const HAS_BIAS: u32 = 1;
const HAS_RESIDUAL: u32 = 2;
const IN_PLACE: u32 = 4;
const GOES_ON: u32 = 8;
const UNFINISHED: u32 = 16;

impl Matmul {
    /// For each four rows and each part of the matrix: its columns in one or more dispatches that pass their sums on. A single
    /// row left over takes the kernel for one; the sums are the same.
    pub(crate) fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let shape = plan.shapes.matrix("weight", self.weight)?;
        let part_rows = plan.facts.part_rows(shape);
        for first_row in (0..self.n_rows).step_by(4) {
            let n_rows = (self.n_rows - first_row).min(4);
            for part in 0..shape.n_rows.div_ceil(part_rows) {
                let first_part_row = part * part_rows;
                let n_part_rows = part_rows.min(shape.n_rows - first_part_row);
                self.plan_columns(plan, shape, Piece { first_row, n_rows, part, first_part_row, n_part_rows });
            }
        }
        Ok(())
    }

    fn plan_columns(&self, plan: &mut Plan<'_>, shape: MatrixShape, piece: Piece) {
        let n_groups = shape.n_cols / GROUP;
        let four_rows = piece.n_rows > 1;
        for first_group in (0..n_groups).step_by(DISPATCH_GROUPS) {
            let n_dispatch_groups = DISPATCH_GROUPS.min(n_groups - first_group);
            let flag = |held: bool, flag: u32| if held { flag } else { 0 };
            let flags = flag(self.bias.is_some(), HAS_BIAS)
                | flag(self.residual.is_some(), HAS_RESIDUAL)
                | flag(self.residual == Some(self.out), IN_PLACE)
                | flag(first_group > 0, GOES_ON)
                | flag(first_group + n_dispatch_groups < n_groups, UNFINISHED);

            let mut starts = [0; 4];
            let mut bindings = vec![(1, Binding::Weights(self.weight, piece.part as u32))];
            for (index, start) in starts.iter_mut().enumerate().take(if four_rows { 4 } else { 1 }) {
                // A row that is not there looks at the last one; what comes of it is not stored.
                let row = self.first_row + piece.first_row + index.min(piece.n_rows - 1);
                let (window, at) = plan.window(self.x, row * shape.n_cols + first_group * GROUP);
                bindings.push((2 + index as u32, window));
                *start = at;
            }
            bindings.extend([
                (6, Binding::Write(self.out)),
                (7, self.residual.filter(|r| *r != self.out).map_or(Binding::Unread, Binding::Read)),
                (8, self.bias.map_or(Binding::Unread, Binding::Vector)),
                (9, Binding::Scratch),
            ]);
            if n_dispatch_groups < n_groups {
                plan.scratch_len = plan.scratch_len.max(4 * piece.n_part_rows);
            }
            let [s0, s1, s2, s3] = starts;
            plan.dispatch_lanes(
                Variant::Matmul { weights: plan.weights(shape), four_rows },
                &[
                    s0,
                    s1,
                    s2,
                    s3,
                    n_groups as u32,
                    first_group as u32,
                    n_dispatch_groups as u32,
                    piece.first_part_row as u32,
                    piece.n_part_rows as u32,
                    shape.n_rows as u32,
                    piece.first_row as u32,
                    piece.n_rows as u32,
                    flags,
                ],
                &bindings,
                piece.n_part_rows,
                1,
            );
        }
    }
}

/// Up to four rows of activations and a part of the matrix.
struct Piece {
    first_row: usize,
    n_rows: usize,
    part: usize,
    first_part_row: usize,
    n_part_rows: usize,
}
