//! A row of a KV cache in its type: how values are kept there and read again. The definitions are at [`KvType`].

use std::ops::Range;

use half::{bf16, f16};

use crate::cpu::lanes;
use crate::kv_type::{KV_GROUP, KvType};

/// The least scale of 8 bits but 0: 2^-125.
const LEAST_SCALE: f64 = f32::from_bits(2 << 23) as f64;
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITY: u32 = 0x7f80_0000;

/// Keeps a row, word for word as the definition reads; `row` has the words of so many values.
pub fn reference(kv_type: KvType, values: &[f32], row: &mut [u32]) {
    row.fill(0);
    match kv_type {
        KvType::F32 => row.iter_mut().zip(values).for_each(|(word, value)| *word = value.to_bits()),
        KvType::F16 => {
            for (i, value) in values.iter().enumerate() {
                let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
                let half = if value.is_nan() { sign | 0x7e00 } else { f16::from_f64(f64::from(*value)).to_bits() };
                row[i / 2] |= u32::from(half) << (16 * (i % 2));
            }
        }
        KvType::Q8 => {
            let first_scale = values.len().div_ceil(4);
            for (g, group) in values.chunks(KV_GROUP).enumerate() {
                let (scale, quantised) = reference_q8(group);
                row[first_scale + g / 2] |= u32::from(scale.to_bits()) << (16 * (g % 2));
                for (i, q) in quantised.into_iter().enumerate() {
                    let i = g * KV_GROUP + i;
                    row[i / 4] |= u32::from(q.cast_unsigned()) << (8 * (i % 4));
                }
            }
        }
    }
}

/// Value number `i` of a row of `width`, as the definition reads.
pub fn value(kv_type: KvType, width: usize, row: &[u32], i: usize) -> f32 {
    match kv_type {
        KvType::F32 => f32::from_bits(row[i]),
        KvType::F16 => f16::from_bits((row[i / 2] >> (16 * (i % 2))) as u16).to_f32(),
        KvType::Q8 => {
            let group = i / KV_GROUP;
            let scale = bf16::from_bits((row[width.div_ceil(4) + group / 2] >> (16 * (group % 2))) as u16);
            let q = (row[i / 4] >> (8 * (i % 4))) as u8;
            scale.to_f32() * f32::from(q.cast_signed())
        }
    }
}

fn reference_q8(group: &[f32]) -> (bf16, Vec<i8>) {
    if group.iter().any(|x| !x.is_finite()) {
        return (bf16::NAN, vec![0; group.len()]);
    }
    let m = group.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    // 8 significant bits: scale to [128, 256), round, scale back.
    let exponent = if m == 0.0 { 0 } else { (m / 127.0).log2().floor() as i32 - 7 };
    let d = (m / 127.0 * 2f64.powi(-exponent)).round_ties_even() * 2f64.powi(exponent);
    if d < LEAST_SCALE {
        return (bf16::ZERO, vec![0; group.len()]);
    }
    (bf16::from_f64(d), group.iter().map(|x| (f64::from(*x) / d).round_ties_even() as i8).collect())
}

/// As [`reference()`], bit for bit, by operations that become SIMD.
pub fn fast(kv_type: KvType, values: &[f32], row: &mut [u32]) {
    match kv_type {
        KvType::F32 => row.copy_from_slice(bytemuck::cast_slice(values)),
        KvType::F16 => {
            for (word, two) in row.iter_mut().zip(values.chunks(2)) {
                let second = two.get(1).map_or(0, |value| half_of(value.to_bits()));
                *word = half_of(two[0].to_bits()) | second << 16;
            }
        }
        KvType::Q8 => fast_q8(values, row),
    }
}

/// The bits of the f16 nearest to an f32, by integers alone.
fn half_of(bits: u32) -> u32 {
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & MAGNITUDE);
    let exponent = magnitude >> 23;
    sign | if magnitude > INFINITY {
        0x7e00
    } else if exponent > 142 {
        0x7c00
    } else if exponent > 112 {
        // A carry goes on into the exponent, up to infinity.
        (magnitude - (112 << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13
    } else if exponent > 101 {
        // Multiples of 2^-24: so many of the 24 bits fall away.
        let dropped = 126 - exponent;
        let significand = magnitude & 0x7f_ffff | 0x80_0000;
        (significand + (1 << (dropped - 1)) - 1 + (significand >> dropped & 1)) >> dropped
    } else {
        0
    }
}

fn fast_q8(values: &[f32], row: &mut [u32]) {
    // Adding this rounds to the nearest integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let (quantised, scales) = row.split_at_mut(values.len().div_ceil(4));
    quantised.fill(0);
    scales.fill(0);
    let quantised: &mut [i8] = bytemuck::cast_slice_mut(quantised);
    let scales: &mut [u16] = bytemuck::cast_slice_mut(scales);
    for ((group, quantised), scale) in values.chunks(KV_GROUP).zip(quantised.chunks_mut(KV_GROUP)).zip(scales) {
        let largest = group.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & MAGNITUDE));
        if largest >= INFINITY {
            *scale = bf16::NAN.to_bits();
            continue;
        }
        let bits = (f64::from(f32::from_bits(largest)) / 127.0).to_bits();
        let d = f64::from_bits((bits + ((1 << 44) - 1) + ((bits >> 45) & 1)) >> 45 << 45);
        if d < LEAST_SCALE {
            continue;
        }
        *scale = ((d as f32).to_bits() >> 16) as u16;
        for (q, x) in quantised.iter_mut().zip(group) {
            *q = ((f64::from(*x) / d + ROUND) - ROUND) as i8;
        }
    }
}

/// Reads some of the values of rows of `width`, which follow each other, to the beginning of as many rows of `out`; the bits of [`value`].
pub(crate) fn read(
    kv_type: KvType,
    width: usize,
    rows: &[u32],
    values: Range<usize>,
    (out, out_width): (&mut [f32], usize),
) {
    let rows = rows.chunks_exact(kv_type.row_words(width)).zip(out.chunks_exact_mut(out_width));
    #[cfg(target_arch = "x86_64")]
    if kv_type == KvType::F16
        && std::arch::is_x86_feature_detected!("avx")
        && std::arch::is_x86_feature_detected!("f16c")
    {
        for (row, out) in rows {
            // SAFETY: the processor has just been found to have both.
            unsafe { f16c::widen(&bytemuck::cast_slice(row)[values.clone()], &mut out[..values.len()]) };
        }
        return;
    }
    for (row, out) in rows {
        read_row(kv_type, width, row, values.start, &mut out[..values.len()]);
    }
}

lanes::simd! {
    fn read_row(kv_type: KvType, width: usize, row: &[u32], first: usize, out: &mut [f32]) {
        match kv_type {
            KvType::F32 => out.copy_from_slice(bytemuck::cast_slice(&row[first..first + out.len()])),
            KvType::F16 => {
                let halves: &[u16] = bytemuck::cast_slice(row);
                for (out, half) in out.iter_mut().zip(&halves[first..]) {
                    *out = widened(u32::from(*half));
                }
            }
            KvType::Q8 => {
                let (quantised, scales) = row.split_at(width.div_ceil(4));
                let (quantised, scales): (&[i8], &[u16]) = (bytemuck::cast_slice(quantised), bytemuck::cast_slice(scales));
                let (mut at, mut out) = (first, out);
                while !out.is_empty() {
                    let (now, rest) = out.split_at_mut(out.len().min(KV_GROUP - at % KV_GROUP));
                    let d = f32::from_bits(u32::from(scales[at / KV_GROUP]) << 16);
                    for (out, q) in now.iter_mut().zip(&quantised[at..]) {
                        *out = d * f32::from(*q);
                    }
                    (at, out) = (at + now.len(), rest);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

    use super::widened;

    #[target_feature(enable = "avx,f16c")]
    pub fn widen(halves: &[u16], out: &mut [f32]) {
        let ((eights, rest), (out, out_of_rest)) = (halves.as_chunks::<8>(), out.as_chunks_mut::<8>());
        for (eight, out) in eights.iter().zip(out) {
            // SAFETY: there are eight of each.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(eight.as_ptr().cast()))) };
        }
        for (half, out) in rest.iter().zip(out_of_rest) {
            *out = widened(u32::from(*half));
        }
    }
}

/// The f32 that an f16 is. The product is exact, of subnormals too.
#[inline(always)]
fn widened(half: u32) -> f32 {
    /// 2^112: what an exponent of f16 lacks in f32.
    const REBASE: f32 = f32::from_bits((112 + 127) << 23);
    let (sign, magnitude) = ((half & 0x8000) << 16, (half & 0x7fff) << 13);
    let finite = (f32::from_bits(magnitude) * REBASE).to_bits();
    let bits = if magnitude >= 0x7c00 << 13 { magnitude | INFINITY } else { finite };
    f32::from_bits(bits | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_read_as_what_it_is_and_kept_as_itself() {
        for bits in 0..=u16::MAX {
            let expected = f16::from_bits(bits);
            // Nine, of which eight may be taken at once.
            let (row, [mut at_once, mut alone]) = ([u32::from(bits) << 16 | u32::from(bits); 5], [[0.0; 9]; 2]);
            read(KvType::F16, 9, &row, 0..9, (&mut at_once, 9));
            read_row(KvType::F16, 9, &row, 0, &mut alone);
            let one: [f32; 9] = std::array::from_fn(|i| value(KvType::F16, 9, &row, i));
            for &found in [at_once, alone, one].as_flattened() {
                if expected.is_nan() {
                    assert!(found.is_nan(), "{bits:04x}");
                } else {
                    assert_eq!(found.to_bits(), expected.to_f32().to_bits());
                    assert_eq!(half_of(found.to_bits()), u32::from(bits));
                }
            }
        }
    }

    #[test]
    fn values_between_two_f16_go_to_the_nearer_and_from_the_middle_to_the_even_one() {
        for bits in 0..0x7bff_u16 {
            let [low, high] = [bits, bits + 1].map(|bits| f16::from_bits(bits).to_f32());
            let middle = (low + high) / 2.0;
            let even = bits + (bits & 1);
            let near = |value: f32| half_of(value.to_bits());
            assert_eq!(near(middle), u32::from(even), "{middle:e}");
            assert_eq!(near(f32::from_bits(middle.to_bits() - 1)), u32::from(bits), "under {middle:e}");
            assert_eq!(near(f32::from_bits(middle.to_bits() + 1)), u32::from(bits + 1), "over {middle:e}");
        }
        assert_eq!([65_519.996, 65_520.0, f32::MAX].map(|value| half_of(value.to_bits())), [0x7bff, 0x7c00, 0x7c00]);
    }
}
