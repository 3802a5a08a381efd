//! What a short convolution goes over, into its cache.

use super::{CpuEngine, Run};
use crate::ops::ConvWrite;
use crate::recording::{KvLayout, Row};
use crate::shapes::ShapeError;

/// `cache[row.slot][row.position][i] = x[r][0][i] · x[r][2][i]`; `x` is `[rows][3][kv_width]` and maybe more.
///
/// Serves as `fast` too: a product of two values rounds once.
pub fn reference(x: &[f32], rows: &[Row], layout: KvLayout, cache: &mut [f32]) {
    let width = layout.kv_width;
    for (row, x) in rows.iter().zip(x.chunks_exact(3 * width)) {
        let (gate, let_in) = (&x[..width], &x[2 * width..]);
        let place = &mut cache[layout.range(row.slot, row.position..row.position + 1)];
        for ((place, gate), let_in) in place.iter_mut().zip(gate).zip(let_in) {
            *place = gate * let_in;
        }
    }
}

// === impl Run ===

impl Run for ConvWrite {
    fn run(&self, engine: &mut CpuEngine, rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.cache, |engine, cache| {
            reference(engine.buffer(self.x), rows, self.layout, cache);
        });
        Ok(())
    }
}
