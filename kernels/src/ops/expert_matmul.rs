//! Products of rows with the matrices of the experts that each has chosen; of other experts nothing is computed.

use crate::ops::Operation;
use crate::packing::GROUP;
use crate::plan::products::{GOES_ON, UNFINISHED, dispatch_groups, form};
use crate::plan::{Binding, Form, Plan, Rows};
use crate::recording::{BufferId, MatrixId, Row, VectorId};
use crate::shapes::{MatrixShape, ShapeError, Shapes, require, require_apart};
use crate::wgsl::{Lanes, Product, Variant};

/// `out[r · n_chosen + j][o] = Σᵢ weight[e][o][i] · x[…][i] + bias[e][o]` with `e = chosen[r][j]` for `n_rows` rows and their `n_chosen` choices each.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertMatmul {
    /// `[n_experts · n_out][n_in]`: the matrices of all experts one after another.
    pub weight: MatrixId,
    pub n_experts: usize,
    /// `[n_experts][n_out]`.
    pub bias: Option<VectorId>,
    /// Rows of `n_in`: `n_rows` of them, which all their choices take, or `n_rows · n_chosen`, one a choice.
    pub x: BufferId,
    /// Whether each choice has a row of `x` of its own.
    pub is_apart: bool,
    /// At least `[n_rows][n_chosen]`: numbers of experts, as `Route` gives them.
    pub chosen: BufferId,
    pub n_chosen: usize,
    pub n_rows: usize,
    /// At least `[n_rows][n_chosen][n_out]`; neither `x` nor `chosen`.
    pub out: BufferId,
}

impl ExpertMatmul {
    /// Rows of `x`.
    pub(crate) fn n_inputs(&self) -> usize {
        if self.is_apart { self.n_rows.saturating_mul(self.n_chosen) } else { self.n_rows }
    }
}

// The flag of `wgsl/expert_matmul.wgsl`.
const HAS_BIAS: u32 = 1;

/// Choices of one row, and what they are multiplied with.
#[derive(Clone, Copy)]
struct Choices {
    /// The first of them, of those of all rows.
    first: usize,
    n: usize,
    /// The row of `x` that the first takes.
    x_row: usize,
}

impl Operation for ExpertMatmul {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        let weight = shapes.matrix("weight", self.weight)?;
        require(self.n_experts > 0, "n_experts", "at least 1", self.n_experts)?;
        let whole = format!("as many rows for each of {} experts", self.n_experts);
        require(weight.n_rows.is_multiple_of(self.n_experts), "weight", whole, weight.n_rows)?;
        shapes.require_rows("x", self.x, self.n_inputs(), weight.n_cols)?;
        shapes.require_rows("chosen", self.chosen, self.n_rows, self.n_chosen)?;
        let n_out = weight.n_rows / self.n_experts;
        shapes.require_rows("out", self.out, self.n_rows.saturating_mul(self.n_chosen), n_out)?;
        if let Some(bias) = self.bias {
            shapes.require_vector("bias", bias, weight.n_rows)?;
        }
        require_apart(self.out, &[self.x, self.chosen])
    }

    /// A dispatch for each row of `x` that choices share, or for as many rows of theirs as one window holds; as often as the matrix has parts.
    /// Which experts those are the lanes look up, and those whose expert lies in another part are idle.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let shape = plan.shapes.matrix("weight", self.weight)?;
        let form = form(plan, shape);
        if let Some(form) = form {
            plan.make(form, self.x, Rows { first: 0, n: self.n_inputs(), width: shape.n_cols });
        }
        let n_at_once = match self.is_apart {
            true => (dispatch_groups(form) / shape.n_cols.div_ceil(GROUP)).clamp(1, self.n_chosen),
            false => self.n_chosen,
        };
        let part_rows = plan.facts.part_rows(shape);
        for row in 0..self.n_rows {
            for choice in (0..self.n_chosen).step_by(n_at_once) {
                let first = row * self.n_chosen + choice;
                let n = n_at_once.min(self.n_chosen - choice);
                let choices = Choices { first, n, x_row: if self.is_apart { first } else { row } };
                for part in 0..shape.n_rows.div_ceil(part_rows) {
                    self.plan_columns(plan, shape, form, choices, part);
                }
            }
        }
        Ok(())
    }
}

impl ExpertMatmul {
    fn plan_columns(&self, plan: &mut Plan<'_>, shape: MatrixShape, form: Option<Form>, choices: Choices, part: usize) {
        let (n_groups, n_out) = (shape.n_cols.div_ceil(GROUP), shape.n_rows / self.n_experts);
        let (group_bytes, dispatch_groups) = (Form::group_bytes_of(form), dispatch_groups(form));
        let part_rows = plan.facts.part_rows(shape);
        let first_part_row = part * part_rows;
        let n_part_rows = part_rows.min(shape.n_rows - first_part_row);
        let weights = plan.weights(shape);
        let int8 = form == Some(Form::Bytes);
        let kernel = |lanes: Lanes| {
            let pairs = int8 && plan.facts.is_software && weights.may_be_paired(lanes.n_rows);
            Variant::ExpertMatmul(Product { weights, int8, pairs, n_tokens: 1, lanes })
        };
        let lanes = plan.facts.lanes(kernel, 1, n_out);
        let variant = kernel(lanes);
        for first_group in (0..n_groups).step_by(dispatch_groups) {
            let n_dispatch_groups = dispatch_groups.min(n_groups - first_group);
            let is_all = n_dispatch_groups == n_groups;
            let flags = if self.bias.is_some() { HAS_BIAS } else { 0 }
                | if first_group > 0 { GOES_ON } else { 0 }
                | if first_group + n_dispatch_groups < n_groups { UNFINISHED } else { 0 };
            let (window, start) = plan.row_window(form, self.x, (choices.x_row * n_groups + first_group) * GROUP);
            if !is_all {
                plan.scratch_len = plan.scratch_len.max(choices.n * n_out);
            }
            let params = [
                start,
                n_groups as u32,
                first_group as u32,
                n_dispatch_groups as u32,
                first_part_row as u32,
                n_part_rows as u32,
                n_out as u32,
                choices.first as u32,
                choices.n as u32,
                flags,
                // From one choice's row to the next, in vec4.
                if self.is_apart { (n_groups * group_bytes / 16) as u32 } else { 0 },
                self.n_experts as u32,
            ];
            let bindings = [
                (1, Binding::Weights(self.weight, part as u32)),
                (6, Binding::Write(self.out)),
                (7, Binding::Read(self.chosen)),
                (8, self.bias.map_or(Binding::Unread, Binding::Vector)),
                (9, Binding::Scratch),
                (10, window),
            ];
            let workgroups = (n_out as u32).div_ceil(lanes.rows_a_workgroup());
            plan.dispatch(variant, &params, &bindings, [workgroups, choices.n as u32]);
        }
    }
}
