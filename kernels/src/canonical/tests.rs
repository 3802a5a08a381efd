//! Tests of the canonical form: bytes composed by hand, by the struct definitions of ggml; and that nothing is lost on the way.

use super::*;

/// A block: its type, the bytes that are not 0, and some of its values.
struct Case(WeightType, &'static [(usize, u8)], &'static [(usize, f32)]);

/// An f16 of 0.5 is 0x3800, of 0.25 0x3400, of 2 0x4000, of -1 0xbc00.
const CASES: [Case; 16] = [
    Case(WeightType::F32, &[(2, 0x80), (3, 0xbf)], &[(0, -1.0)]),
    Case(WeightType::F16, &[(0, 0xff), (1, 0x7b)], &[(0, 65504.0)]),
    Case(WeightType::Bf16, &[(0, 0x80), (1, 0x3f)], &[(0, 1.0)]),
    // Nibbles 0 and 15, 9 and 1; the others 0.
    Case(
        WeightType::Q4_0,
        &[(1, 0x38), (2, 0xf0), (17, 0x19)],
        &[(0, -4.0), (16, 3.5), (15, 0.5), (31, -3.5), (1, -4.0)],
    ),
    Case(WeightType::Q4_1, &[(1, 0x40), (3, 0xbc), (7, 0xa5)], &[(3, 9.0), (19, 19.0), (0, -1.0), (31, -1.0)]),
    // Fifth bits of the values 0 and 31.
    Case(
        WeightType::Q5_0,
        &[(1, 0x38), (2, 0x01), (5, 0x80), (6, 0xf5), (21, 0x30)],
        &[(0, 2.5), (16, -0.5), (15, -8.0), (31, 1.5), (1, -8.0)],
    ),
    Case(
        WeightType::Q5_1,
        &[(1, 0x40), (3, 0xbc), (4, 0x02), (6, 0x02), (9, 0x21)],
        &[(1, 33.0), (17, 35.0), (0, -1.0), (31, -1.0)],
    ),
    Case(
        WeightType::Q8_0,
        &[(1, 0x34), (2, 127), (3, 0x80), (33, 0xff)],
        &[(0, 31.75), (1, -32.0), (31, -0.25), (2, 0.0)],
    ),
    // Factor 1 less 2 minimums for the first 16, factor 15 for the last.
    Case(
        WeightType::Q2K,
        &[(0, 0x21), (15, 0x0f), (16, 0xe4), (17, 0x03), (79, 0xc0), (81, 0x38), (83, 0x34)],
        &[(0, -0.5), (1, 1.0), (2, -0.5), (32, 0.0), (254, 0.0), (255, 22.5)],
    ),
    // Factors 33 - 32 for the first 16, 63 - 32 for the last, -32 between; the upper bits of the values 0 and 255.
    Case(
        WeightType::Q3K,
        &[
            (0, 0x01),
            (31, 0x80),
            (32, 0x03),
            (95, 0x40),
            (96, 0x01),
            (103, 0xf0),
            (104, 0x02),
            (107, 0xc0),
            (109, 0x38),
        ],
        &[(0, 1.5), (1, -2.0), (16, 64.0), (32, 64.0), (254, -62.0), (255, 15.5)],
    ),
    // Factors 5 and 49, minimums 3 and 18, of the groups 0 and 4.
    Case(
        WeightType::Q4K,
        &[(1, 0x38), (3, 0x34), (4, 0xc5), (8, 0x43), (12, 0x21), (16, 0xa7), (80, 0x0b)],
        &[(0, 16.75), (1, -0.75), (32, 0.0), (128, 265.0), (129, -4.5), (255, 0.0)],
    ),
    Case(
        WeightType::Q5K,
        &[(1, 0x38), (3, 0x34), (4, 0xc5), (8, 0x43), (12, 0x21), (16, 0x11), (48, 0x07), (112, 0x0b)],
        &[(0, 56.75), (1, -0.75), (32, 0.0), (128, 657.0), (129, -4.5), (255, 0.0)],
    ),
    // Factors -2 and 3 of the first and of the last 16.
    Case(
        WeightType::Q6K,
        &[(0, 0x05), (127, 0xf0), (128, 0x03), (191, 0x40), (192, 0xfe), (207, 0x03), (209, 0x38)],
        &[(0, -21.0), (1, 32.0), (16, 0.0), (254, -48.0), (255, -1.5)],
    ),
    Case(
        WeightType::Iq4Nl,
        &[(1, 0x38), (2, 0xf0), (17, 0x98)],
        &[(0, -63.5), (16, 56.5), (15, 0.5), (31, 6.5), (1, -63.5)],
    ),
    // Factors 33 - 32 and 63 - 32 of the groups 0 and 7, -32 between.
    Case(
        WeightType::Iq4Xs,
        &[(1, 0x38), (2, 0x02), (3, 0xc0), (4, 0x01), (7, 0xf0), (8, 0x0f), (135, 0x80)],
        &[(0, 56.5), (16, -63.5), (32, 2032.0), (224, -1968.5), (255, 15.5)],
    ),
    Case(WeightType::Mxfp4, &[(0, 129), (1, 0xf7)], &[(0, 24.0), (16, -24.0), (1, 0.0)]),
];

#[test]
fn bytes_composed_by_hand_become_known_values() {
    assert_eq!(CASES.map(|case| case.0), WeightType::ALL, "a case for each type");
    for Case(weight_type, bytes, expected) in CASES {
        let (n_values, n_bytes) = weight_type.block();
        let mut block = vec![0; n_bytes];
        bytes.iter().for_each(|&(at, byte)| block[at] = byte);
        let mut found = vec![9.0; n_values];
        weight_type.dequantise(&block, &mut found);
        for (at, expected) in expected {
            assert_eq!(found[*at], *expected, "{weight_type:?}: value {at}");
        }
    }
}

#[test]
fn the_canonical_form_keeps_every_value_of_every_type() {
    for weight_type in WeightType::ALL {
        let n_rows = 7;
        // One block, several, and where values are single, what fills no group.
        for n_cols in [1, 40, 256, 1280].map(|n_cols: usize| n_cols.next_multiple_of(weight_type.block().0)) {
            let shape = MatrixShape { weight_type, n_rows, n_cols };
            let ggml = sample::matrix(weight_type, n_rows, n_cols);
            let mut expected = vec![0.0; n_rows * n_cols];
            weight_type.dequantise(&ggml, &mut expected);
            for word in [4, 16] {
                let layout = shape.layout(word);
                let rows = rows(shape, &ggml, word).expect("they are in memory");
                let mut found = vec![0.0; n_rows * n_cols];
                for (row, out) in rows.chunks_exact(layout.row_bytes()).zip(found.chunks_exact_mut(n_cols)) {
                    values(weight_type.packing(), &layout, row, out);
                }
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert_eq!(found, expected, "{weight_type:?}, {n_cols} columns: value {i}");
                }
                for n in [1, 4, 7, 8] {
                    let strips = strips(shape, all(shape, &ggml), &ggml, word, n).expect("they are in memory");
                    assert_eq!(strips.len(), layout.row_bytes() * n_rows.next_multiple_of(n));
                    for (r, row) in rows.chunks_exact(layout.row_bytes()).enumerate() {
                        let apart = row_of_strips(&layout, &strips, word, n, r);
                        assert_eq!(apart, row, "{weight_type:?}: the words of row {r} in strips of {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_half_becomes_the_f32_of_its_value() {
    for bits in 0..=u16::MAX {
        let expected = f16::from_bits(bits).to_f32();
        let found = half_to_f32(&bits.to_le_bytes());
        assert!(
            found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
            "{bits:#06x}: {found} instead of {expected}"
        );
    }
}

#[test]
fn exponents_are_powers_of_two_down_to_the_least() {
    for e in 0..=255u8 {
        assert_eq!(f64::from(exponent(e)), 2f64.powi(i32::from(e) - 128), "{e}");
    }
}
