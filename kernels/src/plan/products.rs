//! Products of a matrix with rows of activations, cut into dispatches: what `Matmul` and `GateUp` share, and in part `ExpertMatmul`.

use crate::engine::Arithmetic;
use crate::packing::GROUP;
use crate::plan::{Binding, Form, Plan, Rows, WINDOW_BYTES};
use crate::recording::{BufferId, MatrixId};
use crate::shapes::{MatrixShape, ShapeError};
use crate::wgsl::{Lanes, Product, Variant, WINDOWS};

/// A product and what becomes of its sums.
pub(crate) struct Products {
    pub weight: MatrixId,
    pub x: BufferId,
    /// The first row of `x`.
    pub first_row: usize,
    pub n_rows: usize,
    /// What the kernel's finish knows of: the low bits, under [`GOES_ON`].
    pub flags: u32,
    /// What the kernel's finish binds.
    pub bindings: Vec<(u32, Binding)>,
    pub kernel: fn(Product) -> Variant,
}

/// Groups of 32 columns whose scales share a word, of the type that has the most of them: kernels take scales where a word of them begins.
const GROUPS_A_SCALE: usize = 16;

/// Groups of 32 columns that one dispatch multiplies: a window less the 256 bytes by which its start may be off, in whole words of scales.
pub(crate) fn dispatch_groups(form: Option<Form>) -> usize {
    (WINDOW_BYTES as usize - 256) / Form::group_bytes_of(form) / GROUPS_A_SCALE * GROUPS_A_SCALE
}

// The flags of `wgsl/parts/products.wgsl`.
pub(crate) const GOES_ON: u32 = 8;
pub(crate) const UNFINISHED: u32 = 16;

/// Rows of activations that a kernel takes at most.
const MOST_TOKENS: usize = 8;
const MOST_WINDOWS: usize = WINDOWS as usize;

/// Some rows of activations and a part of the matrix.
struct Piece {
    first_row: usize,
    n_rows: usize,
    /// Rows that the kernel takes: as many at least.
    n_tokens: u32,
    part: usize,
    first_part_row: usize,
    n_part_rows: usize,
}

/// What is made of the activations, if not even that is needed.
pub(crate) fn form(plan: &Plan<'_>, shape: MatrixShape) -> Option<Form> {
    if plan.facts.arithmetic == Arithmetic::Int8 && plan.weights(shape).may_be_int8() {
        return Some(Form::Bytes);
    }
    (!shape.n_cols.is_multiple_of(GROUP)).then_some(Form::Padded)
}

impl Products {
    /// For some rows at once and each part of the matrix: its columns in one or more dispatches that pass their sums on. Whatever rows a kernel
    /// takes, the sums are the same.
    pub fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let shape = plan.shapes.matrix("weight", self.weight)?;
        let part_rows = plan.facts.part_rows(shape);
        if let Some(form) = form(plan, shape) {
            plan.make(form, self.x, Rows { first: self.first_row, n: self.n_rows, width: shape.n_cols });
        }
        // Two rows of eight share a window.
        let most_groups = (WINDOW_BYTES as usize - 256) / Form::group_bytes_of(form(plan, shape));
        let most_tokens = if 2 * shape.n_cols.div_ceil(GROUP) <= most_groups { MOST_TOKENS } else { MOST_WINDOWS };
        let mut first_row = 0;
        while first_row < self.n_rows {
            let n_tokens = plan.facts.tuning.tokens(self.n_rows - first_row, most_tokens);
            let n_rows = (self.n_rows - first_row).min(n_tokens as usize);
            for part in 0..shape.n_rows.div_ceil(part_rows) {
                let first_part_row = part * part_rows;
                let n_part_rows = part_rows.min(shape.n_rows - first_part_row);
                let piece = Piece { first_row, n_rows, n_tokens, part, first_part_row, n_part_rows };
                self.plan_columns(plan, shape, piece);
            }
            first_row += n_rows;
        }
        Ok(())
    }

    fn plan_columns(&self, plan: &mut Plan<'_>, shape: MatrixShape, piece: Piece) {
        let n_groups = shape.n_cols.div_ceil(GROUP);
        let n_tokens = piece.n_tokens;
        let form = form(plan, shape);
        let int8 = form == Some(Form::Bytes);
        let dispatch_groups = dispatch_groups(form);
        let weights = plan.weights(shape);
        let kernel = |lanes: Lanes| {
            let pairs = int8 && plan.facts.is_software && weights.may_be_paired(lanes.n_rows);
            (self.kernel)(Product { weights, int8, pairs, n_tokens, lanes })
        };
        let lanes = plan.facts.lanes(kernel, n_tokens, piece.n_part_rows);
        let variant = kernel(lanes);
        for first_group in (0..n_groups).step_by(dispatch_groups) {
            let n_dispatch_groups = dispatch_groups.min(n_groups - first_group);
            let goes_on = if first_group > 0 { GOES_ON } else { 0 };
            let unfinished = if first_group + n_dispatch_groups < n_groups { UNFINISHED } else { 0 };

            let mut starts = 0;
            let mut bindings = vec![(1, Binding::Weights(self.weight, piece.part as u32))];
            bindings.extend(&self.bindings);
            bindings.push((9, Binding::Scratch));
            let rows_a_window = (n_tokens as usize).div_ceil(MOST_WINDOWS);
            for index in 0..n_tokens as usize / rows_a_window {
                // A row that is not there looks at the last one, or at what lies behind it; what comes of it is not stored.
                let row = self.first_row + piece.first_row + (index * rows_a_window).min(piece.n_rows - 1);
                let (window, at) = plan.row_window(form, self.x, (row * n_groups + first_group) * GROUP);
                bindings.push((10 + index as u32, window));
                // It begins less than 256 bytes before.
                starts |= at << (8 * index);
            }
            if n_dispatch_groups < n_groups {
                // Rows that are cut are too long for two in a window.
                plan.scratch_len = plan.scratch_len.max(MOST_WINDOWS * piece.n_part_rows);
            }
            let params = [
                starts,
                n_groups as u32,
                first_group as u32,
                n_dispatch_groups as u32,
                piece.first_part_row as u32,
                piece.n_part_rows as u32,
                shape.n_rows as u32,
                piece.first_row as u32,
                piece.n_rows as u32,
                self.flags | goes_on | unfinished,
                // From one row to the next, in vec4.
                (n_groups * Form::group_bytes_of(form) / 16) as u32,
            ];
            let workgroups = (piece.n_part_rows as u32).div_ceil(lanes.rows_a_workgroup());
            plan.dispatch(variant, &params, &bindings, [workgroups, 1]);
        }
    }
}
