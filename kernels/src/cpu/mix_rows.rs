//! Rows mixed, each times its share.

use super::{CpuEngine, Run};
use crate::cpu::lanes;
use crate::ops::MixRows;
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[i] = Σⱼ shares[j] · x[j][i]`; `x` is `[shares][width]`.
pub fn reference(x: &[f32], shares: &[f32], out: &mut [f32]) {
    let width = out.len();
    for (i, out) in out.iter_mut().enumerate() {
        let terms = shares.iter().enumerate().map(|(j, share)| f64::from(*share) * f64::from(x[j * width + i]));
        *out = terms.sum::<f64>() as f32;
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(x: &[f32], shares: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        for (x, share) in x.chunks_exact(out.len()).zip(shares) {
            for (out, x) in out.iter_mut().zip(x) {
                *out += share * x;
            }
        }
    }
}

// === impl Run ===

impl Run for MixRows {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let kernel = if engine.is_reference() { reference } else { fast };
            let mut mixed = vec![0.0; self.width];
            let shares = engine.buffer(self.shares).chunks_exact(self.n_mixed);
            let rows = engine.buffer(self.x).chunks_exact(self.n_mixed * self.width).zip(shares);
            for (r, (out, (x, shares))) in out.chunks_exact_mut(self.width).zip(rows).take(self.n_rows).enumerate() {
                kernel(x, shares, &mut mixed);
                let residual = self.residual.filter(|residual| *residual != self.out);
                let residual = residual.map(|residual| &engine.buffer(residual)[r * self.width..][..self.width]);
                for (i, (out, mixed)) in out.iter_mut().zip(&mixed).enumerate() {
                    *out = match (self.residual, residual) {
                        (None, _) => *mixed,
                        (Some(_), None) => *mixed + *out,
                        (Some(_), Some(residual)) => *mixed + residual[i],
                    };
                }
            }
        });
        Ok(())
    }
}
