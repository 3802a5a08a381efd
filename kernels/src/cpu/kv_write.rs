//! KV write: keys or values of the step's rows into one cache.

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::kv_row;
use crate::kv_type::KvType;
use crate::ops::KvWrite;
use crate::recording::{KvLayout, Row};
use crate::shapes::ShapeError;

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

// === impl Run ===

impl Run for KvWrite {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        for (from, cache) in [(self.k, self.k_cache), (self.v, self.v_cache)] {
            engine.update(cache, |engine, cache| {
                let kernel = match engine.arithmetic {
                    Arithmetic::Reference | Arithmetic::Fast(_, Products::Defined(_)) => reference,
                    Arithmetic::Fast(..) => fast,
                };
                kernel(engine.buffer(from), rows, self.layout, cache);
            });
        }
        Ok(())
    }
}
