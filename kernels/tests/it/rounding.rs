//! Properties of the rounding of rows, on the processor; the twin test holds GPUs to the same bits.

use polyphony_kernels::ActivationRounding;
use polyphony_kernels::cpu::round_rows::{fast, reference};
use proptest::prelude::*;

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

/// Rows of values that lie at most about 50 powers of two apart, and rows of any bits at all.
fn rows() -> impl Strategy<Value = Vec<f32>> {
    let near = (-110i32..110).prop_flat_map(|middle| {
        let value = (any::<bool>(), 0u32..1 << 23, -25i32..25).prop_map(move |(negative, fraction, away)| {
            let exponent = (middle + away + 127).clamp(0, 254) as u32;
            f32::from_bits(u32::from(negative) << 31 | exponent << 23 | fraction)
        });
        prop::collection::vec(value, 1..40)
    });
    let ties = (-30i32..30, prop::collection::vec((0i32..64, -40i32..0), 1..40)).prop_map(|(top, parts)| {
        let ties = parts.iter().map(|(odd, low)| (2048 + 2 * odd + 1) as f32 * 2f32.powi(top + low));
        ties.collect()
    });
    let any = prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 1..10);
    prop_oneof![4 => near, 2 => ties, 1 => any]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fast_rounding_gives_the_bits_of_the_definition(row in rows()) {
        for to in [ActivationRounding::F16, ActivationRounding::Q8] {
            let (mut by_definition, mut by_integers) = (row.clone(), row.clone());
            reference(&mut by_definition, to);
            fast(&mut by_integers, to);
            prop_assert_eq!(bits(&by_integers), bits(&by_definition), "{:?}", to);
        }
    }

    #[test]
    fn rounding_twice_is_rounding_once(row in rows()) {
        for to in [ActivationRounding::F16, ActivationRounding::Q8] {
            let mut once = row.clone();
            fast(&mut once, to);
            let mut twice = once.clone();
            fast(&mut twice, to);
            prop_assert_eq!(bits(&twice), bits(&once), "{:?}", to);
        }
    }
}

#[test]
fn known_values_round_to_known_values() {
    // m = 1: e = -14, so values are kept to 11 bits, the small ones to multiples of 2^-38.
    let mut row =
        [1.0, 1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), -(2f32.powi(-30) + 2f32.powi(-39)), 2f32.powi(-40)];
    fast(&mut row, ActivationRounding::F16);
    assert_eq!(row, [1.0, 1.0, 1.0 + 2f32.powi(-9), -(2f32.powi(-30)), 0.0]);
    // Larger than any f16, and larger than 2^15 after rounding only.
    let mut row = [103_795.0, 131_071.0];
    fast(&mut row, ActivationRounding::F16);
    assert_eq!(row, [103_808.0, 131_072.0]);
}

#[test]
fn groups_of_32_have_each_its_own_scale_of_8_bits() {
    let mut row = vec![0.0; 34];
    row[..3].copy_from_slice(&[254.0, -3.0, 1.0]);
    // 2^-119 / 127 is under 2^-125.
    row[32..].copy_from_slice(&[2f32.powi(-119), -(2f32.powi(-120))]);
    fast(&mut row, ActivationRounding::Q8);
    assert_eq!((row[0], row[1], bits(&row[2..3])), (254.0, -4.0, vec![0]));
    assert_eq!(bits(&row[32..]), [0, 0]);
    let mut largest = [f32::MAX, -f32::MAX];
    fast(&mut largest, ActivationRounding::Q8);
    assert!(largest[0] == 16383.0 * 2f32.powi(114) && largest[1] == -largest[0]);
    let mut spoiled = vec![1.0; 33];
    spoiled[7] = f32::NEG_INFINITY;
    fast(&mut spoiled, ActivationRounding::Q8);
    assert!(spoiled[..32].iter().all(|x| x.is_nan()) && spoiled[32].is_finite());
}

#[test]
fn a_row_that_is_not_finite_stays_as_it_is() {
    let row = [f32::NAN, 1.000_000_1, f32::MAX];
    let mut rounded = row;
    fast(&mut rounded, ActivationRounding::F16);
    assert_eq!(bits(&rounded), bits(&row));
    let mut overflowing = [f32::MAX, 1.000_000_1];
    fast(&mut overflowing, ActivationRounding::F16);
    assert_eq!(overflowing, [f32::MAX, 1.000_000_1]);
}
