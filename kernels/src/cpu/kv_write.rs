//! KV write: keys or values of the step's rows into one cache.

use crate::recording::{KvLayout, Row};

/// `cache[row.slot][row.position] = from[r]` for every row of the step; `from` is `[rows][kv_width]`.
///
/// Serves as `fast` too: it only copies.
pub fn reference(from: &[f32], rows: &[Row], layout: KvLayout, cache: &mut [f32]) {
    for (row, from) in rows.iter().zip(from.chunks_exact(layout.kv_width)) {
        cache[layout.range(row.slot, row.position..row.position + 1)].copy_from_slice(from);
    }
}
