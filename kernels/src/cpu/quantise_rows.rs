//! Activations of 8 bits, as `ops/quantise_rows.rs` defines them: the oracle of GPUs that multiply with them.

use crate::cpu::lanes;
use crate::weight_type::GROUP;

/// What becomes of a row: every value as d · q of its group of 32. The row is whole groups.
pub fn reference(row: &mut [f32]) {
    for group in row.as_chunks_mut::<GROUP>().0 {
        let largest = group.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
        let d = if largest > 1e-30 { largest / 127.0 } else { 0.0 };
        for x in group {
            let q = if d == 0.0 { 0.0 } else { (f64::from(*x) / d).round_ties_even() };
            *x = (d * q) as f32;
        }
    }
}

lanes::simd! {
    /// As [`reference()`], in f32.
    pub fn fast(row: &mut [f32]) {
        for group in row.as_chunks_mut::<GROUP>().0 {
            let largest = group.iter().fold(0.0, |largest: f32, x| if x.abs() > largest { x.abs() } else { largest });
            let held = largest > 1e-30;
            let (per_step, d) = if held { (127.0 / largest, largest / 127.0) } else { (0.0, 0.0) };
            for x in group {
                *x = d * (*x * per_step).round_ties_even();
            }
        }
    }
}
