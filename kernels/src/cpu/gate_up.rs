//! The gate of SwiGLU, on products with rows of gate and up that take turns.

use crate::cpu::{exponential, lanes};

/// `out[i] = g / (1 + e^(−g)) · u`, as [`GateUp`](crate::ops::GateUp) says; `products` is `[outputs][g, u]`.
pub fn reference(products: &[f32], out: &mut [f32]) {
    for (out, pair) in out.iter_mut().zip(products.as_chunks::<2>().0) {
        let [gate, up] = pair.map(f64::from);
        *out = (gate / (1.0 + (-gate).exp()) * up) as f32;
    }
}

/// As [`reference()`], in f32.
pub fn fast(products: &[f32], out: &mut [f32]) {
    gate(products, out);
}

lanes::simd! {
    fn gate(products: &[f32], out: &mut [f32]) {
        for (out, [gate, up]) in out.iter_mut().zip(products.as_chunks::<2>().0) {
            *out = gate / (1.0 + exponential::exp(-gate)) * up;
        }
    }
}
