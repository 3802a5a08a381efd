//! Embedding: rows of a matrix, chosen by token.

use crate::ops::Operation;
use crate::packing::GROUP;
use crate::plan::{Binding, Plan};
use crate::recording::{BufferId, MatrixId, Row};
use crate::shapes::{ShapeError, Shapes, require};
use crate::wgsl::Variant;

/// `out[r] = scale · table[tokens[r]]`, or that added to what `out` held.
///
/// `table` is `[n_vocabulary][width]`, `out` at least `[tokens.len()][width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRows {
    pub table: MatrixId,
    /// One token a row, each less than the table's rows.
    pub tokens: Vec<u32>,
    pub scale: f32,
    /// Whether the rows are added to those of `out`.
    pub adds: bool,
    pub out: BufferId,
}

impl Operation for EmbedRows {
    fn check(&self, shapes: &Shapes, _rows: &[Row]) -> Result<(), ShapeError> {
        let table = shapes.matrix("table", self.table)?;
        require(self.scale.is_finite(), "scale", "finite", self.scale)?;
        for &token in &self.tokens {
            let held = (token as usize) < table.n_rows;
            require(held, "tokens", format_args!("less than {} each", table.n_rows), token)?;
        }
        shapes.require_rows("out", self.out, self.tokens.len(), table.n_cols)
    }

    /// A dispatch for each part of the table that holds a token of the step.
    fn plan(&self, plan: &mut Plan<'_>) -> Result<(), ShapeError> {
        let shape = plan.shapes.matrix("table", self.table)?;
        let n_groups = shape.n_cols.div_ceil(GROUP);
        let part_rows = plan.facts.part_rows(shape);
        let tokens_at = plan.put(self.tokens.iter().copied());
        let mut parts: Vec<usize> = self.tokens.iter().map(|token| *token as usize / part_rows).collect();
        parts.sort_unstable();
        parts.dedup();
        for part in parts {
            let first = part * part_rows;
            let n_part_rows = part_rows.min(shape.n_rows - first);
            plan.dispatch_lanes(
                Variant::EmbedRows { weights: plan.weights(shape) },
                &[
                    n_groups as u32,
                    shape.n_cols as u32,
                    first as u32,
                    n_part_rows as u32,
                    tokens_at,
                    u32::from(self.adds),
                    self.scale.to_bits(),
                ],
                &[(1, Binding::Weights(self.table, part as u32)), (2, Binding::Data), (3, Binding::Write(self.out))],
                n_groups,
                self.tokens.len(),
            );
        }
        Ok(())
    }
}
