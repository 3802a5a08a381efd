//! The gate of SwiGLU.

use crate::cpu::{exponential, lanes};

/// `out[i] = gate[i] / (1 + e^(−gate[i])) · up[i]`; all three are equally long.
pub fn reference(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        let gate = f64::from(*gate);
        *out = (gate / (1.0 + (-gate).exp()) * f64::from(*up)) as f32;
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exponential::exp(-gate)) * up;
        }
    }
}
