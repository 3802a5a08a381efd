//! Layer norm of rows.

use super::{Arithmetic, CpuEngine, Products, Run};
use crate::cpu::lanes;
use crate::cpu::order::Order;
use crate::ops::LayerNorm;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[r][i] = (x[r][i] − mean) · weight[i] / √(mean((x[r] − mean)²) + eps) + bias[i]`; rows are as wide as `weight` and `bias`, which may be
/// absent.
pub fn reference(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let n = weight.len() as f64;
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let squares: f64 = x.iter().map(|&x| (f64::from(x) - mean) * (f64::from(x) - mean)).sum();
        let scale = 1.0 / (squares / n + f64::from(eps)).sqrt();
        for (i, ((out, x), weight)) in out.iter_mut().zip(x).zip(weight).enumerate() {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[i]));
            *out = ((f64::from(*x) - mean) * scale * f64::from(*weight) + bias) as f32;
        }
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
        let n = weight.len() as f32;
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let mean = lanes::sum(x) / n;
            for (out, x) in out.iter_mut().zip(x) {
                *out = x - mean;
            }
            let scale = 1.0 / (lanes::dot(out, out) / n + eps).sqrt();
            for (out, weight) in out.iter_mut().zip(weight) {
                *out = *out * scale * weight;
            }
            let Some(bias) = bias else { continue };
            for (out, bias) in out.iter_mut().zip(bias) {
                *out += bias;
            }
        }
    }
}

/// As [`reference()`], in f32, both sums in an order.
pub fn in_order(order: Order, x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    let width = weight.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = order.sum(width, |i| x[i]) / width as f32;
        let squares = order.sum(width, |i| (x[i] - mean) * (x[i] - mean));
        let scale = 1.0 / (squares / width as f32 + eps).sqrt();
        for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
            *out = (x - mean) * scale * weight[i];
            if let Some(bias) = bias {
                *out += bias[i];
            }
        }
    }
}

// === impl Run ===

impl Run for LayerNorm {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let first = self.first_row * self.width;
            let x = &engine.buffer(self.x)[first..first + self.n_rows * self.width];
            let bias = self.bias.map(|bias| engine.vector(bias));
            let (weight, out) = (engine.vector(self.weight), &mut out[..x.len()]);
            match engine.arithmetic {
                Arithmetic::Reference => reference(x, weight, bias, self.eps, out),
                Arithmetic::Fast(_, Products::Defined(order)) => {
                    in_order(order, x, weight, bias, self.eps, out);
                }
                Arithmetic::Fast(..) => fast(x, weight, bias, self.eps, out),
            }
        });
        Ok(())
    }
}
