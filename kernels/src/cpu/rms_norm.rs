//! RMS norm of rows.

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::lanes;
use crate::cpu::order::Order;
use crate::ops::RmsNorm;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[r][i] = x[r][i] · weight[i] / √(mean(x[r]²) + eps)`; rows are as wide as `weight`.
pub fn reference(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let sum: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = 1.0 / (sum / weight.len() as f64 + f64::from(eps)).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = (f64::from(*x) * scale * f64::from(*weight)) as f32;
        }
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let scale = 1.0 / (lanes::dot(x, x) / weight.len() as f32 + eps).sqrt();
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * weight;
            }
        }
    }
}

/// As [`reference()`], in f32, the sum of squares in an order.
pub fn in_order(order: Order, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let scale = 1.0 / (order.sum(width, |i| x[i] * x[i]) / width as f32 + eps).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

// === impl Run ===

impl Run for RmsNorm {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let first = self.first_row * self.width;
            let x = &engine.buffer(self.x)[first..first + self.n_rows * self.width];
            let (weight, out) = (engine.vector(self.weight), &mut out[..x.len()]);
            match engine.arithmetic {
                Arithmetic::Reference => reference(x, weight, self.eps, out),
                Arithmetic::Fast(_, Products::Defined(order)) => in_order(order, x, weight, self.eps, out),
                Arithmetic::Fast(..) => fast(x, weight, self.eps, out),
            }
        });
        Ok(())
    }
}
