//! Activations of 8 bits, as `ops/quantise_rows.rs` defines them: the oracle of GPUs that multiply with them.

use crate::ops::quantise_rows::HALF_GROUP;

/// What becomes of a row: every value as d · q of its 16. The row is whole groups.
pub fn reference(row: &mut [f32]) {
    for half in row.as_chunks_mut::<HALF_GROUP>().0 {
        let largest = half.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
        let d = if largest > 1e-30 { largest / 127.0 } else { 0.0 };
        for x in half {
            let q = if d == 0.0 { 0.0 } else { (f64::from(*x) / d).round_ties_even() };
            *x = (d * q) as f32;
        }
    }
}
