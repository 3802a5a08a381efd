//! Embedding: rows of a matrix, chosen by token.

use super::{CpuEngine, Run};
use crate::cpu::Matrix;
use crate::ops::EmbedRows;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[r] = scale · table[tokens[r]]`, added to what it held where `adds`; `out` being `[tokens.len()][n_cols]` and maybe more.
///
/// Serves as `fast` too: a few rows a step are copied or added once.
pub fn reference(table: Matrix<'_>, tokens: &[u32], scale: f32, adds: bool, out: &mut [f32]) {
    let mut row = vec![0.0; table.shape.n_cols];
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.shape.n_cols)) {
        table.values(*token as usize, &mut row);
        for (out, value) in out.iter_mut().zip(&row) {
            let value = value * scale;
            *out = if adds { *out + value } else { value };
        }
    }
}

// === impl Run ===

impl Run for EmbedRows {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            reference(engine.matrix(self.table)?, &self.tokens, self.scale, self.adds, out);
            Ok(())
        })
    }
}
