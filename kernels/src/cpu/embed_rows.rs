//! Embedding: rows of a matrix, chosen by token.

use crate::cpu::Matrix;

/// `out[r] = table[tokens[r]]`, added to what it held where `adds`; `out` being `[tokens.len()][n_cols]` and maybe more.
///
/// Serves as `fast` too: a few rows a step are copied or added once.
pub fn reference(table: Matrix<'_>, tokens: &[u32], adds: bool, out: &mut [f32]) {
    let mut added = vec![0.0; if adds { table.shape.n_cols } else { 0 }];
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.shape.n_cols)) {
        if !adds {
            table.values(*token as usize, out);
            continue;
        }
        table.values(*token as usize, &mut added);
        out.iter_mut().zip(&added).for_each(|(out, added)| *out += added);
    }
}
