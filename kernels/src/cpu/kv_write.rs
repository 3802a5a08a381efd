//! KV write: keys or values of the step's rows into one cache.

use crate::cpu::kv_row;
use crate::kv_type::KvType;
use crate::recording::{KvLayout, Row};

/// `cache[row.slot][row.position] = from[r]` for every row of the step, in the cache's type; `from` is `[rows][kv_width]`.
pub fn reference(from: &[f32], rows: &[Row], layout: KvLayout, cache: &mut [f32]) {
    write(from, rows, layout, cache, kv_row::reference);
}

/// As [`reference()`], bit for bit.
pub fn fast(from: &[f32], rows: &[Row], layout: KvLayout, cache: &mut [f32]) {
    write(from, rows, layout, cache, kv_row::fast);
}

fn write(from: &[f32], rows: &[Row], layout: KvLayout, cache: &mut [f32], keep: fn(KvType, &[f32], &mut [u32])) {
    for (row, from) in rows.iter().zip(from.chunks_exact(layout.kv_width)) {
        let kept = &mut cache[layout.range(row.slot, row.position..row.position + 1)];
        keep(layout.kv_type, from, bytemuck::cast_slice_mut(kept));
    }
}
