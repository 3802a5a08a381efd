//! Rows mixed, each times its share.

use super::{Arithmetic, CpuEngine};
use crate::cpu::lanes;
use crate::ops::MixRows;

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

// === impl CpuEngine ===

impl CpuEngine {
    pub(super) fn mix_rows(&mut self, op: &MixRows) {
        self.update(op.out, |engine, out| {
            let kernel = match engine.arithmetic {
                Arithmetic::Reference => reference,
                Arithmetic::Fast(..) => fast,
            };
            let mut mixed = vec![0.0; op.width];
            let shares = engine.buffer(op.shares).chunks_exact(op.n_mixed);
            let rows = engine.buffer(op.x).chunks_exact(op.n_mixed * op.width).zip(shares);
            for (r, (out, (x, shares))) in out.chunks_exact_mut(op.width).zip(rows).take(op.n_rows).enumerate() {
                kernel(x, shares, &mut mixed);
                let residual = op.residual.filter(|residual| *residual != op.out);
                let residual = residual.map(|residual| &engine.buffer(residual)[r * op.width..][..op.width]);
                for (i, (out, mixed)) in out.iter_mut().zip(&mixed).enumerate() {
                    *out = match (op.residual, residual) {
                        (None, _) => *mixed,
                        (Some(_), None) => *mixed + *out,
                        (Some(_), Some(residual)) => *mixed + residual[i],
                    };
                }
            }
        });
    }
}
