//! Gate and up of SwiGLU in one: two products and the gate.

use rayon::ThreadPool;

use crate::cpu::matmul::{self, Add, Residual};
use crate::cpu::{Matrix, exponential, lanes, matmul_int8};

const NOTHING: Add<'_> = Add { bias: None, residual: Residual::None };

/// As [`GateUp`](crate::ops::GateUp) says; `x` is `[rows][n_in]`, `out` `[rows][n_out / 2]`.
pub fn reference(weight: Matrix<'_>, x: &[f32], out: &mut [f32]) {
    let mut products = vec![0.0; out.len() * 2];
    matmul::reference(weight, x, &NOTHING, &mut products);
    for (out, pair) in out.iter_mut().zip(products.as_chunks::<2>().0) {
        let [gate, up] = pair.map(f64::from);
        *out = (gate / (1.0 + (-gate).exp()) * up) as f32;
    }
}

/// As [`reference()`], in f32.
pub fn fast(weight: Matrix<'_>, x: &[f32], out: &mut [f32], pool: &ThreadPool) {
    let mut products = vec![0.0; out.len() * 2];
    matmul::fast(weight, x, &NOTHING, &mut products, pool);
    gate(&products, out);
}

/// As [`fast()`], with activations of 8 bits.
pub fn fast_int8(weight: Matrix<'_>, x: &[f32], out: &mut [f32], pool: &ThreadPool) {
    let mut products = vec![0.0; out.len() * 2];
    matmul_int8::fast(weight, x, &NOTHING, &mut products, pool);
    gate(&products, out);
}

lanes::simd! {
    /// `products` is `[outputs][gate, up]`.
    fn gate(products: &[f32], out: &mut [f32]) {
        for (out, [gate, up]) in out.iter_mut().zip(products.as_chunks::<2>().0) {
            *out = gate / (1.0 + exponential::exp(-gate)) * up;
        }
    }
}
