//! Rows added to others, times a number.

use super::{CpuEngine, Run};
use crate::cpu::lanes;
use crate::ops::AddRows;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[i] = out[i] + scale · x[i]`; both are equally long.
pub fn reference(x: &[f32], scale: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = (f64::from(*out) + f64::from(scale) * f64::from(*x)) as f32;
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(x: &[f32], scale: f32, out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += scale * x;
        }
    }
}

// === impl Run ===

impl Run for AddRows {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let len = self.n_rows * self.width;
            let kernel = if engine.is_reference() { reference } else { fast };
            kernel(&engine.buffer(self.x)[..len], self.scale, &mut out[..len]);
        });
        Ok(())
    }
}
