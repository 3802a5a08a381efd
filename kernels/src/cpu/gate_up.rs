//! A gate and its way up, on products with rows of both that take turns.

use super::{Arithmetic, CpuEngine, Run};
use crate::cpu::activate::{self, Function, Gelu, Relu, Silu, SiluClamped};
use crate::cpu::lanes;
use crate::cpu::matmul::NOTHING;
use crate::ops::{Activation, GateUp};
use crate::recording::Row;
use crate::shapes::ShapeError;

/// `out[i] = f(g) · u`, as [`GateUp`] says; `products` is `[outputs][g, u]`.
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

// === impl Run ===

impl Run for GateUp {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let weight = engine.matrix(self.weight)?;
            let x = &engine.buffer(self.x)[..self.n_rows * weight.shape.n_cols];
            let out = &mut out[..self.n_rows * weight.shape.n_rows / 2];
            let mut products = vec![0.0; out.len() * 2];
            engine.multiply(weight, x, &NOTHING, &mut products);
            match &engine.arithmetic {
                Arithmetic::Reference => reference(self.function, &products, out),
                Arithmetic::Fast(crew, _) => {
                    let width = out.len() / self.n_rows;
                    let (size, rows) = (products.len(), products.chunks(2 * width).zip(out.chunks_mut(width)));
                    crew.each(size, rows, || (), |(), (products, out)| fast(self.function, products, out));
                }
            }
            Ok(())
        })
    }
}
