//! Activation functions, with or without a gate's other factor.

use super::{CpuEngine, Run};
use crate::cpu::{exponential, lanes};
use crate::ops::{Activate, Activation};
use crate::recording::Row;
use crate::shapes::ShapeError;

/// Twice √(2/π).
const TWICE_ROOT: f64 = 1.595_769_121_605_731;
const CUBE: f64 = 0.044_715;

/// `out[i] = f(x[i])`, times `factor[i]` as the function takes it where there is one; all are equally long.
pub fn reference(function: Activation, x: &[f32], factor: Option<&[f32]>, out: &mut [f32]) {
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        let factor = factor.map_or(1.0, |factor| factored(function, f64::from(factor[i])));
        *out = (activated(function, f64::from(*x)) * factor) as f32;
    }
}

/// The function itself.
pub(crate) fn activated(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Gelu => x / (1.0 + (-TWICE_ROOT * (x + CUBE * x * x * x)).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::SiluClamped => {
            let gate = if x > 7.0 { 7.0 } else { x };
            gate / (1.0 + (-1.702 * gate).exp())
        }
    }
}

/// The other factor of a gate, as the function takes it.
pub(crate) fn factored(function: Activation, factor: f64) -> f64 {
    match function {
        Activation::SiluClamped => factor.clamp(-7.0, 7.0) + 1.0,
        Activation::Gelu | Activation::Relu | Activation::Silu => factor,
    }
}

/// A function of one value in f32: what [`fast`] and the gates of `gate_up` share.
pub(crate) trait Function {
    fn of(x: f32) -> f32;

    /// The other factor of a gate.
    #[inline(always)]
    fn factor(factor: f32) -> f32 {
        factor
    }
}

pub(crate) struct Gelu;
pub(crate) struct Relu;
pub(crate) struct Silu;
pub(crate) struct SiluClamped;

impl Function for Gelu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        let twice_u = TWICE_ROOT as f32 * (x + CUBE as f32 * x * x * x);
        x / (1.0 + exponential::exp(-twice_u))
    }
}

impl Function for Relu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x.max(0.0)
    }
}

impl Function for Silu {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        x / (1.0 + exponential::exp(-x))
    }
}

impl Function for SiluClamped {
    #[inline(always)]
    fn of(x: f32) -> f32 {
        let gate = if x > 7.0 { 7.0 } else { x };
        gate / (1.0 + exponential::exp(-1.702 * gate))
    }

    #[inline(always)]
    fn factor(factor: f32) -> f32 {
        let below = if factor > 7.0 { 7.0 } else { factor };
        (if below < -7.0 { -7.0 } else { below }) + 1.0
    }
}

/// As [`reference()`], in f32.
pub fn fast(function: Activation, x: &[f32], factor: Option<&[f32]>, out: &mut [f32]) {
    match function {
        Activation::Gelu => activate::<Gelu>(x, factor, out),
        Activation::Relu => activate::<Relu>(x, factor, out),
        Activation::Silu => activate::<Silu>(x, factor, out),
        Activation::SiluClamped => activate::<SiluClamped>(x, factor, out),
    }
}

fn activate<F: Function>(x: &[f32], factor: Option<&[f32]>, out: &mut [f32]) {
    apply::<F>(x, out);
    if let Some(factor) = factor {
        multiply::<F>(factor, out);
    }
}

lanes::simd! {
    fn apply<F: Function>(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = F::of(*x);
        }
    }
}

lanes::simd! {
    fn multiply<F: Function>(factor: &[f32], out: &mut [f32]) {
        for (out, factor) in out.iter_mut().zip(factor) {
            *out *= F::factor(*factor);
        }
    }
}

// === impl Run ===

impl Run for Activate {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        engine.update(self.out, |engine, out| {
            let len = self.n_rows * self.width;
            let factor = self.factor.map(|factor| &engine.buffer(factor)[..len]);
            let kernel = if engine.is_reference() { reference } else { fast };
            kernel(self.function, &engine.buffer(self.x)[..len], factor, &mut out[..len]);
        });
        Ok(())
    }
}
