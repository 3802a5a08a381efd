//! Rows times a number and held below a cap.

use super::{CpuEngine, Run};
use crate::cpu::{exponential, lanes};
use crate::ops::ScaleRows;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `x[i] = s` with `s = scale · x[i]`, or `cap · tanh(s / cap)` where there is a cap.
pub fn reference(x: &mut [f32], scale: f32, cap: Option<f32>) {
    for x in x {
        let scaled = f64::from(*x) * f64::from(scale);
        *x = cap.map(f64::from).map_or(scaled, |cap| cap * (scaled / cap).tanh()) as f32;
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(x: &mut [f32], scale: f32, cap: Option<f32>) {
        for x in x.iter_mut() {
            *x *= scale;
        }
        let Some(cap) = cap else { return };
        for x in x {
            *x = exponential::capped(*x, cap);
        }
    }
}

// === impl Run ===

impl Run for ScaleRows {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.x, |engine, x| {
            let kernel = if engine.is_reference() { reference } else { fast };
            kernel(&mut x[..self.n_rows * self.width], self.scale, self.cap);
        });
        Ok(())
    }
}
