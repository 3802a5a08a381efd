//! Embedding: rows of a matrix, chosen by token.

use crate::cpu::Matrix;

/// `out[r] = table[tokens[r]]`, `out` being `[tokens.len()][n_cols]` and maybe more.
///
/// Serves as `fast` too: a few rows a step are copied, nothing is summed.
pub fn reference(table: Matrix<'_>, tokens: &[u32], out: &mut [f32]) {
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.shape.n_cols)) {
        table.shape.weight_type.dequantise(table.row(*token as usize), out);
    }
}
