//! A gate and its way up, on products with rows of both that take turns.

use crate::cpu::activate::{self, Function, Gelu, Relu, Silu, SiluClamped};
use crate::cpu::lanes;
use crate::ops::Activation;

/// `out[i] = f(g) · u`, as [`GateUp`](crate::ops::GateUp) says; `products` is `[outputs][g, u]`.
pub fn reference(function: Activation, products: &[f32], out: &mut [f32]) {
    for (out, pair) in out.iter_mut().zip(products.as_chunks::<2>().0) {
        let [gate, up] = pair.map(f64::from);
        *out = (activate::activated(function, gate) * activate::factored(function, up)) as f32;
    }
}

/// As [`reference()`], in f32.
pub fn fast(function: Activation, products: &[f32], out: &mut [f32]) {
    match function {
        Activation::Gelu => gate::<Gelu>(products, out),
        Activation::Relu => gate::<Relu>(products, out),
        Activation::Silu => gate::<Silu>(products, out),
        Activation::SiluClamped => gate::<SiluClamped>(products, out),
    }
}

lanes::simd! {
    fn gate<F: Function>(products: &[f32], out: &mut [f32]) {
        for (out, [gate, up]) in out.iter_mut().zip(products.as_chunks::<2>().0) {
            *out = F::of(*gate) * F::factor(*up);
        }
    }
}
