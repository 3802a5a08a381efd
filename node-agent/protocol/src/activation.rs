//! Hidden states as bytes: f32, f16 with one power-of-two exponent a row, or 8 bits with one scale for 32 values.
//!
//! f16 alone cannot hold the hidden states of real models (Gemma 3 270M reaches 103,795, f16 ends at 65,504), so each row is
//! scaled by 2^-e first. With m the largest magnitude of the row after rounding to 11 significant bits (to nearest even),
//! e = floor(log2 m) - 14; a row of zeros, or one that holds a value that is not finite, has e = 0. The kernels round the
//! residual stream by the same rule after every layer, so encoding a hidden state loses nothing, wherever the cut is.
//!
//! q8: for each 32 values of a row (the last group may be shorter) a scale d in bf16, then the values as signed bytes. With m
//! the largest magnitude of the group, d = m ÷ 127 rounded to 8 significant bits (to nearest even) and q = x ÷ d rounded to
//! nearest even. bf16 has the exponents of f32, so no hidden state is too large; and with 8 significant bits m ÷ d is from
//! 126.508 to 127.496, so the largest value becomes 127 · d exactly, which f32 holds, and a second encoding finds the same d and
//! the same q. A group whose d is under 2^-125 becomes zeros; one that holds a value that is not finite becomes NaN.

use bytes::{BufMut, Bytes, BytesMut};
use half::f16;
use serde::{Deserialize, Serialize};

/// The type of a hidden state on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationType {
    F32,
    F16,
    Q8,
}

impl ActivationType {
    /// Bytes of one row of `width` values.
    pub fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::F32 => width * 4,
            Self::F16 => 2 + width * 2,
            Self::Q8 => width + 2 * width.div_ceil(Q8_GROUP),
        }
    }
}

/// Values that share a scale in q8.
pub const Q8_GROUP: usize = 32;
/// The least scale of q8 but 0.
const LEAST_SCALE: f32 = f32::from_bits(2 << 23);

/// Why bytes are not rows of hidden states.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ActivationError {
    #[error("{actual} payload bytes, {expected} expected for {rows} rows of {width} values")]
    PayloadSize { actual: usize, expected: usize, rows: usize, width: usize },
    #[error("row {row} has the exponent {exponent}, outside -150..=128")]
    Exponent { row: usize, exponent: i16 },
    #[error("row {row} has the scale {scale:e}, which is neither 0, nor NaN, nor finite and at least 2^-125")]
    Scale { row: usize, scale: f32 },
}

/// Encodes rows of `width` values. `values.len()` is a multiple of `width`; a rest is left out.
pub fn encode_rows(dtype: ActivationType, width: usize, values: &[f32]) -> Bytes {
    let n_rows = values.len().checked_div(width).unwrap_or(0);
    let mut out = BytesMut::with_capacity(n_rows * dtype.row_bytes(width));
    for row in values.chunks_exact(width.max(1)) {
        match dtype {
            ActivationType::F32 => row.iter().for_each(|value| out.put_f32_le(*value)),
            ActivationType::F16 => {
                let exponent = row_exponent(row);
                let scale = power_of_two(-exponent);
                out.put_i16_le(exponent as i16);
                // In f64: a scale outside the f32 range is still exact there.
                row.iter().for_each(|value| out.put_u16_le(f16::from_f64(f64::from(*value) * scale).to_bits()));
            }
            ActivationType::Q8 => {
                for group in row.chunks(Q8_GROUP) {
                    let scale = group_scale(group);
                    out.put_u16_le((scale.to_bits() >> 16) as u16);
                    let held = scale > 0.0;
                    group.iter().for_each(|value| out.put_i8(if held { quantised(*value, scale) } else { 0 }));
                }
            }
        }
    }
    out.freeze()
}

/// Decodes `n_rows` rows of `width` values.
///
/// # Errors
/// When the payload has another size, or an exponent that no f32 row can have.
pub fn decode_rows(
    dtype: ActivationType,
    width: usize,
    n_rows: usize,
    payload: &[u8],
) -> Result<Vec<f32>, ActivationError> {
    let row_bytes = dtype.row_bytes(width);
    let expected = n_rows.saturating_mul(row_bytes);
    if payload.len() != expected {
        return Err(ActivationError::PayloadSize { actual: payload.len(), expected, rows: n_rows, width });
    }
    let mut values = Vec::with_capacity(n_rows * width);
    for (row, bytes) in payload.chunks_exact(row_bytes.max(1)).enumerate() {
        match dtype {
            ActivationType::F32 => {
                values.extend(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)));
            }
            ActivationType::F16 => {
                let (head, rest) = bytes.split_at(2);
                let exponent = i16::from_le_bytes([head[0], head[1]]);
                if !(-150..=128).contains(&exponent) {
                    return Err(ActivationError::Exponent { row, exponent });
                }
                let scale = power_of_two(i32::from(exponent));
                values.extend(
                    rest.as_chunks::<2>().0.iter().map(|two| (f16::from_le_bytes(*two).to_f64() * scale) as f32),
                );
            }
            ActivationType::Q8 => {
                for group in bytes.chunks(2 + Q8_GROUP) {
                    let (head, rest) = group.split_at(2);
                    let scale = f32::from_bits(u32::from(u16::from_le_bytes([head[0], head[1]])) << 16);
                    if !(scale.is_nan() || scale == 0.0 || (LEAST_SCALE..f32::INFINITY).contains(&scale)) {
                        return Err(ActivationError::Scale { row, scale });
                    }
                    values.extend(rest.iter().map(|byte| scale * f32::from(byte.cast_signed())));
                }
            }
        }
    }
    Ok(values)
}

/// The exponent e of a row, see the top of this file.
pub fn row_exponent(row: &[f32]) -> i32 {
    let mut largest = 0.0_f32;
    for value in row {
        if !value.is_finite() {
            return 0;
        }
        largest = largest.max(round_to_11_bits(value.abs()));
    }
    if largest == 0.0 { 0 } else { floor_log2(largest) - 14 }
}

/// The scale d of a group in q8, see the top of this file: 0, NaN, or a bf16 value of at least 2^-125.
pub fn group_scale(group: &[f32]) -> f32 {
    if group.iter().any(|value| !value.is_finite()) {
        return f32::NAN;
    }
    let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // 8 of the 53 significant bits of an f64 are kept; the quotient is never so near to a tie that its own rounding matters.
    let bits = (f64::from(largest) / 127.0).to_bits();
    let kept = (bits + ((1 << 44) - 1) + ((bits >> 45) & 1)) >> 45 << 45;
    let scale = f64::from_bits(kept) as f32;
    if scale < LEAST_SCALE { 0.0 } else { scale }
}

/// A value of a group of this scale, which is above 0: at most 127 in magnitude.
fn quantised(value: f32, scale: f32) -> i8 {
    (f64::from(value) / f64::from(scale)).round_ties_even() as i8
}

/// Rounds a non-negative finite value to 11 significant bits, to nearest even. A subnormal keeps its bits: they are under the
/// precision of any f16 row that holds a normal value as well.
fn round_to_11_bits(value: f32) -> f32 {
    let bits = value.to_bits();
    let lowest_kept = (bits >> 13) & 1;
    f32::from_bits((bits + 0x0fff + lowest_kept) & !0x1fff)
}

fn floor_log2(value: f32) -> i32 {
    let exponent = (value.to_bits() >> 23) as i32;
    if exponent == 0 { 31 - value.to_bits().leading_zeros() as i32 - 149 } else { exponent - 127 }
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_row_of_f16_begins_with_its_exponent() {
        // 1.0 is the largest: e = 0 - 14, so 1.0 is stored as 2^14 = 0x7400 and -0.5 as -2^13 = 0xf000.
        let bytes = encode_rows(ActivationType::F16, 2, &[1.0, -0.5]);
        assert_eq!(&bytes[..], [0xf2, 0xff, 0x00, 0x74, 0x00, 0xf0]);
    }

    #[test]
    fn values_over_the_range_of_f16_survive() {
        let row = [103_795.0, 1.5, -65_504.0];
        let bytes = encode_rows(ActivationType::F16, 3, &row);
        let back = decode_rows(ActivationType::F16, 3, 1, &bytes).unwrap();
        assert!((back[0] - row[0]).abs() <= 103_795.0 / 2048.0);
        assert_eq!(back[1], 1.5);
    }

    #[test]
    fn a_group_of_q8_begins_with_its_scale_and_a_row_may_end_in_a_short_group() {
        let mut row = vec![0.0; 34];
        row[..3].copy_from_slice(&[254.0, -3.0, 1.0]);
        row[32..].copy_from_slice(&[-1.0, 0.25]);
        let bytes = encode_rows(ActivationType::Q8, 34, &row);
        // 254 / 127 = 2 = 0x4000 in bf16; -1.5 and 0.5 are ties and become -2 and 0.
        assert_eq!(&bytes[..6], [0x00, 0x40, 127, 0xfe, 0, 0]);
        // 1 / 127 to 8 bits is 129 / 2^14, 0x3c01; 0.25 is 31.75 of them.
        assert_eq!(&bytes[34..], [0x01, 0x3c, 0x81, 32]);
        let back = decode_rows(ActivationType::Q8, 34, 1, &bytes).unwrap();
        assert_eq!((back[0], back[1], back[2]), (254.0, -4.0, 0.0));
        assert_eq!((back[32], back[33]), (-127.0 * 129.0 / 16384.0, 32.0 * 129.0 / 16384.0));
        assert_eq!(ActivationType::Q8.row_bytes(34), 38);
    }

    #[test]
    fn a_group_of_q8_that_holds_no_number_says_so() {
        let bytes = encode_rows(ActivationType::Q8, 2, &[1.0, f32::INFINITY]);
        assert_eq!(&bytes[..], [0xc0, 0x7f, 0, 0]);
        assert!(decode_rows(ActivationType::Q8, 2, 1, &bytes).unwrap().iter().all(|value| value.is_nan()));
        for scale in [0x8000_u16, 0xbf80, 0x7f80, 0x0001] {
            let [low, high] = scale.to_le_bytes();
            let error = decode_rows(ActivationType::Q8, 1, 1, &[low, high, 1]);
            // -0 is 0.
            assert_eq!(error.is_err(), scale != 0x8000, "{scale:#06x}: {error:?}");
        }
    }

    #[test]
    fn a_payload_of_another_size_is_an_error() {
        let error = decode_rows(ActivationType::F16, 4, 2, &[0; 19]).unwrap_err();
        assert_eq!(error, ActivationError::PayloadSize { actual: 19, expected: 20, rows: 2, width: 4 });
    }

    proptest! {
        #[test]
        fn encoding_twice_changes_nothing_more(row in proptest::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 1..40)) {
            let once = decode_rows(ActivationType::F16, row.len(), 1, &encode_rows(ActivationType::F16, row.len(), &row)).unwrap();
            prop_assume!(once.iter().all(|value| value.is_finite()));
            let twice = decode_rows(ActivationType::F16, row.len(), 1, &encode_rows(ActivationType::F16, row.len(), &once)).unwrap();
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn encoding_in_8_bits_twice_changes_nothing_more(row in proptest::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 1..80)) {
            let once = encode_rows(ActivationType::Q8, row.len(), &row);
            let values = decode_rows(ActivationType::Q8, row.len(), 1, &once).unwrap();
            prop_assert!(values.iter().all(|value| value.is_finite()));
            prop_assert_eq!(encode_rows(ActivationType::Q8, row.len(), &values), once);
        }

        #[test]
        fn q8_is_within_half_a_scale(row in proptest::collection::vec(-1e6_f32..1e6, 1..80)) {
            let back = decode_rows(ActivationType::Q8, row.len(), 1, &encode_rows(ActivationType::Q8, row.len(), &row)).unwrap();
            for (group, got) in row.chunks(Q8_GROUP).zip(back.chunks(Q8_GROUP)) {
                let scale = group_scale(group);
                for (value, got) in group.iter().zip(got) {
                    // And no further by the rounding of the division.
                    prop_assert!((value - got).abs() <= 0.5001 * scale);
                }
            }
        }

        #[test]
        fn any_bytes_are_rows_or_an_error(payload in proptest::collection::vec(any::<u8>(), 70)) {
            for dtype in [ActivationType::F32, ActivationType::F16, ActivationType::Q8] {
                let _ = decode_rows(dtype, 33, 2, &payload);
            }
        }

        #[test]
        fn f16_is_within_half_a_unit_of_the_largest_value(row in proptest::collection::vec(-1e6_f32..1e6, 1..40)) {
            let back = decode_rows(ActivationType::F16, row.len(), 1, &encode_rows(ActivationType::F16, row.len(), &row)).unwrap();
            for (value, got) in row.iter().zip(&back) {
                // 11 significant bits: a relative error of 2^-11 at most for normal values.
                let largest = row.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
                prop_assert!((value - got).abs() <= value.abs() / 2048.0 + largest * 2.0_f32.powi(-38));
            }
        }

        #[test]
        fn f32_is_lossless(row in proptest::collection::vec(any::<u32>(), 1..40)) {
            let row: Vec<f32> = row.into_iter().map(f32::from_bits).collect();
            let back = decode_rows(ActivationType::F32, row.len(), 1, &encode_rows(ActivationType::F32, row.len(), &row)).unwrap();
            prop_assert_eq!(row.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), back.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
        }
    }
}
