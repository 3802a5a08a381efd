//! Rows added to others, times a number.

use crate::cpu::lanes;

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
