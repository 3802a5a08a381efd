//! Activations of 8 bits, as `ops/quantise_rows.rs` defines them.

use crate::cpu::lanes;
use crate::ops::quantise_rows::steps;
use crate::packing::GROUP;

/// 32 activations: xᵢ ≈ d · qᵢ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantised {
    pub q: [i8; GROUP],
    pub d: f32,
}

const NOTHING: Quantised = Quantised { q: [0; GROUP], d: 0.0 };

/// What becomes of a row of whole groups.
pub fn reference(row: &[f32]) -> Vec<Quantised> {
    let quantised = |x: &[f32; GROUP]| {
        let largest = x.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
        let (per_step, d) = steps(largest);
        let q = |x: f32| if d > 0.0 { f64::from(x * per_step).round_ties_even() as i8 } else { 0 };
        Quantised { q: x.map(q), d }
    };
    row.as_chunks::<GROUP>().0.iter().map(quantised).collect()
}

/// As [`reference()`].
pub fn fast(row: &[f32]) -> Vec<Quantised> {
    let groups = row.as_chunks::<GROUP>().0;
    let mut quantised = vec![NOTHING; groups.len()];
    quantise(groups, &mut quantised);
    quantised
}

/// 3 · 2²²: in its neighbourhood the last bit of an f32 is 1, so that a sum with it is rounded to integers, which its last bits are.
const ROUNDING: f32 = 12_582_912.0;

lanes::simd! {
    fn quantise(groups: &[[f32; GROUP]], out: &mut [Quantised]) {
        for (x, out) in groups.iter().zip(out) {
            let mut largest = 0;
            for x in x {
                largest = largest.max(x.to_bits() & 0x7fff_ffff);
            }
            let (per_step, d) = steps(largest);
            *out = Quantised { q: [0; GROUP], d };
            if d > 0.0 {
                for (q, x) in out.q.iter_mut().zip(x) {
                    *q = (x * per_step + ROUNDING).to_bits().wrapping_sub(ROUNDING.to_bits()) as i8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_off_by_half_a_step_at_most_and_both_ways_give_the_same() {
        let size = |group: usize| [1.0, 3e-20, 7e19, 0.0, 1e-33, 0.37][group % 6];
        let row: Vec<f32> =
            (0..60 * GROUP).map(|i| ((i * 7919 % 20011) as f32 / 10_000.0 - 1.0) * size(i / GROUP)).collect();
        let quantised = reference(&row);
        assert_eq!(quantised, fast(&row));
        for (x, quantised) in row.as_chunks::<GROUP>().0.iter().zip(&quantised) {
            for (x, q) in x.iter().zip(quantised.q) {
                // Half a step, and what the reciprocal was rounded down by.
                let allowed = quantised.d * 0.51 + 1e-29;
                assert!((x - quantised.d * f32::from(q)).abs() <= allowed, "{x}: {q} steps of {}", quantised.d);
            }
        }
        assert!(quantised[0].q.contains(&127) || quantised[0].q.contains(&-127), "the largest uses all of the bits");
    }

    #[test]
    fn ties_go_to_even_and_what_is_no_number_is_told() {
        let mut row = [0.0; GROUP];
        // The largest is 127 / 64, so a step is 1 / 64.
        row[..5].copy_from_slice(&[127.0 / 64.0, 0.5 / 64.0, 1.5 / 64.0, 2.5 / 64.0, -3.5 / 64.0]);
        let quantised = reference(&row)[0];
        assert_eq!((&quantised.q[..5], quantised.d), (&[127, 0, 2, 2, -4][..], 1.0 / 64.0));
        for spoilt in [f32::NAN, f32::INFINITY, 1e37] {
            row[9] = spoilt;
            let (quantised, fast) = (reference(&row)[0], fast(&row)[0]);
            assert!(quantised.d.is_nan() && fast.d.is_nan() && quantised.q == [0; GROUP] && fast.q == quantised.q);
        }
    }
}
