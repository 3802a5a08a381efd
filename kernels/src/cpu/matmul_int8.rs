//! Matrix times rows with activations of 8 bits, as `ops/quantise_rows.rs` rounds them: integer products, scaled once for 16 values.
//!
//! The integers are exact and the order of the f32 sums is fixed, so processors with and without AVX2 give the same bits.

use rayon::ThreadPool;

use crate::cpu::Matrix;
use crate::cpu::matmul::{Add, half_to_f32, spread};
use crate::ops::quantise_rows::HALF_GROUP;
use crate::weight_type::{GROUP, WeightType};

/// Partial sums of a row: lane l takes the elements 4 l to 4 l + 3 of every group of 32.
type Sums = [f32; 8];

/// Whether matrices of this type are multiplied with activations of 8 bits; others keep f32.
pub fn takes(weight_type: WeightType) -> bool {
    matches!(weight_type, WeightType::Q4_0 | WeightType::Q4_1 | WeightType::Q8_0)
}

/// As [`reference`](crate::cpu::matmul::reference()) on activations that [`quantise_rows`](crate::cpu::quantise_rows) has rounded, in f32.
///
/// The type is one that [`takes()`] names; with any other `out` stays as it is.
pub fn fast(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], pool: &ThreadPool) {
    let kernel = match weight.shape.weight_type {
        WeightType::Q4_0 => products::<Q4_0>,
        WeightType::Q4_1 => products::<Q4_1>,
        WeightType::Q8_0 => products::<Q8_0>,
        WeightType::F32 | WeightType::F16 => {
            debug_assert!(false, "only types of 4 and 8 bits come here");
            return;
        }
    };
    let rows: Vec<Vec<Activations>> = x.chunks_exact(weight.shape.n_cols).map(quantised_row).collect();
    spread(weight, rows.len(), add, out, pool, |ggml, out| kernel(ggml, &rows, out));
}

/// A group of 32 activations: xᵢ ≈ d · qᵢ, with a d for each half.
struct Activations {
    q: [i8; GROUP],
    /// The d of each lane of the sums.
    d: Sums,
    /// Σ d · q, which a weight's minimum is multiplied with.
    sum: f32,
}

fn quantised_row(row: &[f32]) -> Vec<Activations> {
    row.as_chunks::<GROUP>().0.iter().map(quantised).collect()
}

fn quantised(x: &[f32; GROUP]) -> Activations {
    let mut group = Activations { q: [0; GROUP], d: [0.0; 8], sum: 0.0 };
    let halves = x.as_chunks::<HALF_GROUP>().0.iter().zip(group.q.as_chunks_mut::<HALF_GROUP>().0);
    for ((x, q), d) in halves.zip(group.d.as_chunks_mut::<4>().0) {
        let largest = x.iter().fold(0.0, |largest: f32, x| if x.abs() > largest { x.abs() } else { largest });
        if largest > 1e-30 {
            let per_step = 127.0 / largest;
            *q = x.map(|x| (x * per_step).round_ties_even() as i8);
            *d = [largest / 127.0; 4];
            group.sum += d[0] * q.iter().map(|q| i32::from(*q)).sum::<i32>() as f32;
        }
    }
    group
}

/// A weight type as integers: value = d · q + m.
trait Integers {
    /// Bytes of scales, then of values.
    const SCALE_BYTES: usize;
    const VALUE_BYTES: usize;
    const GROUP_BYTES: usize = Self::SCALE_BYTES + Self::VALUE_BYTES;
    /// m, when the group has none of its own, is this times d.
    const MINIMUM: f32;
}

/// d · (q − 8), with q from 0 to 15.
struct Q4_0;
struct Q4_1;
struct Q8_0;

impl Integers for Q4_0 {
    const SCALE_BYTES: usize = 2;
    const VALUE_BYTES: usize = 16;
    const MINIMUM: f32 = -8.0;
}

impl Integers for Q4_1 {
    const SCALE_BYTES: usize = 4;
    const VALUE_BYTES: usize = 16;
    const MINIMUM: f32 = 0.0;
}

impl Integers for Q8_0 {
    const SCALE_BYTES: usize = 2;
    const VALUE_BYTES: usize = 32;
    const MINIMUM: f32 = 0.0;
}

/// d and m of a group.
#[inline(always)]
fn scales<W: Integers>(group: &[u8]) -> (f32, f32) {
    let d = half_to_f32(&group[..2]);
    if W::SCALE_BYTES == 4 { (d, half_to_f32(&group[2..4])) } else { (d, W::MINIMUM * d) }
}

/// Products of some of a matrix's rows, `[output][row]`.
fn products<W: Integers>(ggml: &[u8], x: &[Vec<Activations>], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has just been found to have AVX2 and F16C, the features the function is compiled for.
        return unsafe { avx2::products::<W>(ggml, x, out) };
    }
    portable::<W>(ggml, x, out);
}

/// As [`products`], on any processor.
fn portable<W: Integers>(ggml: &[u8], x: &[Vec<Activations>], out: &mut [f32]) {
    let n_groups = x.first().map_or(0, Vec::len);
    for (row, out) in ggml.chunks_exact(n_groups * W::GROUP_BYTES).zip(out.chunks_exact_mut(x.len())) {
        for (x, out) in x.iter().zip(out) {
            let (mut sums, mut minimums) = ([0.0; 8], 0.0);
            for (group, x) in row.chunks_exact(W::GROUP_BYTES).zip(x) {
                let (d, m) = scales::<W>(group);
                add_group(&mut sums, &values::<W>(group), x, d);
                minimums += m * x.sum;
            }
            *out = total(&sums) + minimums;
        }
    }
}

#[inline(always)]
fn add_group(sums: &mut Sums, weights: &[i8; GROUP], x: &Activations, d: f32) {
    let fours = weights.as_chunks::<4>().0.iter().zip(x.q.as_chunks::<4>().0);
    for ((sum, (weights, q)), x_d) in sums.iter_mut().zip(fours).zip(&x.d) {
        let dot: i32 = weights.iter().zip(q).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
        *sum += dot as f32 * (d * x_d);
    }
}

/// The integers of a group, in order.
#[inline(always)]
fn values<W: Integers>(group: &[u8]) -> [i8; GROUP] {
    let bytes = &group[W::SCALE_BYTES..];
    std::array::from_fn(|i| match W::VALUE_BYTES {
        32 => bytes[i].cast_signed(),
        _ if i < 16 => (bytes[i] & 15).cast_signed(),
        _ => (bytes[i - 16] >> 4).cast_signed(),
    })
}

#[inline(always)]
fn total(sums: &Sums) -> f32 {
    let fours: [f32; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
    (fours[0] + fours[2]) + (fours[1] + fours[3])
}

/// The same in the words of AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m128, __m256, __m256i, _mm_add_ss, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128,
        _mm_movehdup_ps, _mm_mul_ss, _mm_set_ss, _mm_setzero_ps, _mm_srli_epi16, _mm256_abs_epi8, _mm256_add_ps,
        _mm256_and_si256, _mm256_broadcastss_ps, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_setzero_ps, _mm256_sign_epi8, _mm256_storeu_ps,
    };

    use super::{Activations, Integers, total};

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn products<W: Integers>(ggml: &[u8], x: &[Vec<Activations>], out: &mut [f32]) {
        let n_groups = x.first().map_or(0, Vec::len);
        for (row, out) in ggml.chunks_exact(n_groups * W::GROUP_BYTES).zip(out.chunks_exact_mut(x.len())) {
            for (x, out) in x.iter().zip(out) {
                let (mut sums, mut minimums) = (_mm256_setzero_ps(), _mm_setzero_ps());
                for (group, x) in row.chunks_exact(W::GROUP_BYTES).zip(x) {
                    let (d, m) = scales::<W>(group);
                    let dots = _mm256_cvtepi32_ps(fours(values::<W>(group), bytes(&x.q)));
                    let scale = _mm256_mul_ps(_mm256_broadcastss_ps(d), floats(&x.d));
                    sums = _mm256_add_ps(sums, _mm256_mul_ps(dots, scale));
                    minimums = _mm_add_ss(minimums, _mm_mul_ss(m, _mm_set_ss(x.sum)));
                }
                let mut lanes = [0.0; 8];
                // SAFETY: the array has room for the 8 values that are stored; no alignment is asked for.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums) };
                *out = total(&lanes) + _mm_cvtss_f32(minimums);
            }
        }
    }

    /// d and m of a group, in the first lane of each.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    fn scales<W: Integers>(group: &[u8]) -> (__m128, __m128) {
        // A group is longer than 4 bytes, whatever its type.
        let halves = group.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
        let scales = _mm_cvtph_ps(_mm_cvtsi32_si128(halves));
        let m = if W::SCALE_BYTES == 4 { _mm_movehdup_ps(scales) } else { _mm_mul_ss(_mm_set_ss(W::MINIMUM), scales) };
        (scales, m)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn values<W: Integers>(group: &[u8]) -> __m256i {
        if W::VALUE_BYTES == 32 {
            return bytes(group[W::SCALE_BYTES..].first_chunk().expect("a group of 8 bits has 32 bytes"));
        }
        let nibbles: &[u8; 16] = group[W::SCALE_BYTES..].first_chunk().expect("a group of 4 bits has 16 bytes");
        // SAFETY: the array has the 16 bytes that are loaded; no alignment is asked for.
        let nibbles = unsafe { _mm_loadu_si128(nibbles.as_ptr().cast()) };
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(nibbles, 4), nibbles), _mm256_set1_epi8(15))
    }

    /// Dot products of four neighbours each. No pair of products is over 2 · 128 · 127, so nothing saturates.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn fours(weights: __m256i, q: __m256i) -> __m256i {
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(q, weights));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn bytes<T: bytemuck::Pod>(from: &[T; 32]) -> __m256i {
        const { assert!(size_of::<T>() == 1) };
        // SAFETY: the array has the 32 bytes that are loaded; no alignment is asked for.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn floats(from: &[f32; 8]) -> __m256 {
        // SAFETY: the array has the 8 values that are loaded; no alignment is asked for.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of every byte there is in every place; scales that are finite.
    fn groups<W: Integers>(n_groups: usize) -> Vec<u8> {
        let byte = |i: usize| match i % W::GROUP_BYTES {
            at if at < W::SCALE_BYTES => [0x5a, 0x2c + (i % 5) as u8][at % 2],
            _ => (i * 97 + i / 7) as u8,
        };
        (0..n_groups * W::GROUP_BYTES).map(byte).collect()
    }

    fn both_ways<W: Integers>() -> [Vec<u32>; 2] {
        let (n_groups, n_rows) = (40, 9);
        let ggml = groups::<W>(n_groups * n_rows);
        let value = |i: usize| ((i * 37 % 255) as f32 - 127.0) * [1.0, 3e-3, 0.0][i / 16 % 3];
        let rows: Vec<Vec<f32>> = (0..3).map(|r| (0..n_groups * GROUP).map(|i| value(i * (r + 1))).collect()).collect();
        let x: Vec<_> = rows.iter().map(|row| quantised_row(row)).collect();
        [products::<W>, portable::<W>].map(|kernel| {
            let mut out = vec![0.0f32; n_rows * x.len()];
            kernel(&ggml, &x, &mut out);
            assert!(out.iter().all(|value| value.is_finite() && *value != 0.0));
            out.iter().map(|value| value.to_bits()).collect()
        })
    }

    #[test]
    fn what_this_processor_has_gives_the_bits_of_any_processor() {
        for [chosen, portable] in [both_ways::<Q4_0>(), both_ways::<Q4_1>(), both_ways::<Q8_0>()] {
            assert_eq!(chosen, portable);
        }
    }
}
