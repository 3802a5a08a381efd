//! Activation functions, with or without a gate's other factor.

use crate::cpu::{exponential, lanes};
use crate::ops::Activation;

/// Twice √(2/π).
const TWICE_ROOT: f64 = 1.595_769_121_605_731;
const CUBE: f64 = 0.044_715;

/// `out[i] = f(x[i])`, times `factor[i]` where there is one; all are equally long.
pub fn reference(function: Activation, x: &[f32], factor: Option<&[f32]>, out: &mut [f32]) {
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        let x = f64::from(*x);
        let activated = match function {
            Activation::Gelu => x / (1.0 + (-TWICE_ROOT * (x + CUBE * x * x * x)).exp()),
            Activation::Relu => x.max(0.0),
        };
        *out = (activated * factor.map_or(1.0, |factor| f64::from(factor[i]))) as f32;
    }
}

/// As [`reference()`], in f32.
pub fn fast(function: Activation, x: &[f32], factor: Option<&[f32]>, out: &mut [f32]) {
    match function {
        Activation::Gelu => gelu(x, out),
        Activation::Relu => relu(x, out),
    }
    if let Some(factor) = factor {
        multiply(factor, out);
    }
}

lanes::simd! {
    fn gelu(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            let twice_u = TWICE_ROOT as f32 * (x + CUBE as f32 * x * x * x);
            *out = x / (1.0 + exponential::exp(-twice_u));
        }
    }
}

lanes::simd! {
    fn relu(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x.max(0.0);
        }
    }
}

lanes::simd! {
    fn multiply(factor: &[f32], out: &mut [f32]) {
        for (out, factor) in out.iter_mut().zip(factor) {
            *out *= factor;
        }
    }
}
