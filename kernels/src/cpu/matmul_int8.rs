//! Matrix times rows with activations of 8 bits, as `ops/quantise_rows.rs` rounds them: integer products, scaled once for 16 values.
//!
//! The integers are exact and the order of the f32 sums is fixed, so processors with and without AVX2 give the same bits.

use rayon::ThreadPool;

use crate::cpu::Matrix;
use crate::cpu::blocks::{Block, Q4_0, Q4_1, Q8_0};
use crate::cpu::matmul::{Add, spread};
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
    match weight.shape.weight_type {
        WeightType::Q4_0 => multiply::<Q4_0>(weight, x, add, out, pool),
        WeightType::Q4_1 => multiply::<Q4_1>(weight, x, add, out, pool),
        WeightType::Q8_0 => multiply::<Q8_0>(weight, x, add, out, pool),
        WeightType::F32 | WeightType::F16 => debug_assert!(false, "only types of 4 and 8 bits come here"),
    }
}

fn multiply<B: Block>(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], pool: &ThreadPool) {
    let rows: Vec<Vec<Activations>> = x.chunks_exact(weight.shape.n_cols).map(quantised_row).collect();
    spread(weight, rows.len(), add, out, pool, |ggml, out| products::<B>(bytemuck::cast_slice(ggml), &rows, out));
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

/// Products of some of a matrix's rows, `[output][row]`.
fn products<B: Block>(matrix: &[B], x: &[Vec<Activations>], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::blocks::has_avx2() {
        // SAFETY: the processor has just been found to have AVX2 and F16C, the features the function is compiled for.
        return unsafe { avx2::products(matrix, x, out) };
    }
    portable(matrix, x, out);
}

/// As [`products`], on any processor.
fn portable<B: Block>(matrix: &[B], x: &[Vec<Activations>], out: &mut [f32]) {
    let n_groups = x.first().map_or(1, Vec::len);
    for (row, out) in matrix.chunks_exact(n_groups).zip(out.chunks_exact_mut(x.len())) {
        for (x, out) in x.iter().zip(out) {
            let (mut sums, mut minimums) = ([0.0; 8], 0.0);
            for (block, x) in row.iter().zip(x) {
                let (d, m) = block.scales();
                add_group(&mut sums, &block.integers(), x, d);
                if B::HAS_MINIMUM {
                    minimums += m * x.sum;
                }
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

#[inline(always)]
fn total(sums: &Sums) -> f32 {
    let fours: [f32; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
    (fours[0] + fours[2]) + (fours[1] + fours[3])
}

/// The same in the words of AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, __m256i, _mm_cvtss_f32, _mm256_abs_epi8, _mm256_add_ps, _mm256_broadcastss_ps, _mm256_cvtepi32_ps,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_setzero_ps, _mm256_sign_epi8,
        _mm256_storeu_ps,
    };

    use super::{Activations, total};
    use crate::cpu::blocks::Block;
    use crate::cpu::blocks::avx2::{integers, load_32, load_floats, scales};

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn products<B: Block>(matrix: &[B], x: &[Vec<Activations>], out: &mut [f32]) {
        let n_groups = x.first().map_or(1, Vec::len);
        let (x_fours, x_rest) = x.as_chunks::<4>();
        for (row, out) in matrix.chunks_exact(n_groups).zip(out.chunks_exact_mut(x.len())) {
            let (fours, rest) = out.as_chunks_mut::<4>();
            for (x, out) in x_fours.iter().zip(fours) {
                *out = of_four_rows(row, x);
            }
            for (x, out) in x_rest.iter().zip(rest) {
                *out = of_one(row, x);
            }
        }
    }

    /// One output of one row.
    #[target_feature(enable = "avx2,f16c")]
    fn of_one<B: Block>(row: &[B], x: &[Activations]) -> f32 {
        let mut sum = Sum::zero();
        for (block, x) in row.iter().zip(x) {
            sum = sum.with::<B>(&Weights::of(block), x);
        }
        sum.total()
    }

    /// One output of four rows, whose weights are unpacked once.
    #[target_feature(enable = "avx2,f16c")]
    fn of_four_rows<B: Block>(row: &[B], [a, b, c, d]: &[Vec<Activations>; 4]) -> [f32; 4] {
        let x = a.iter().zip(b).zip(c).zip(d);
        let (mut a, mut b, mut c, mut d) = (Sum::zero(), Sum::zero(), Sum::zero(), Sum::zero());
        for (block, (((x_a, x_b), x_c), x_d)) in row.iter().zip(x) {
            let weights = Weights::of(block);
            a = a.with::<B>(&weights, x_a);
            b = b.with::<B>(&weights, x_b);
            c = c.with::<B>(&weights, x_c);
            d = d.with::<B>(&weights, x_d);
        }
        [a.total(), b.total(), c.total(), d.total()]
    }

    /// A block in registers.
    struct Weights {
        d: __m256,
        m: f32,
        q: __m256i,
    }

    /// The sums of one output of one row.
    #[derive(Clone, Copy)]
    struct Sum {
        lanes: __m256,
        minimums: f32,
    }

    impl Weights {
        #[target_feature(enable = "avx2,f16c")]
        #[inline]
        fn of<B: Block>(block: &B) -> Self {
            let (d, m) = scales(block);
            Self { d: _mm256_broadcastss_ps(d), m: _mm_cvtss_f32(m), q: integers(block) }
        }
    }

    impl Sum {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn zero() -> Self {
            Self { lanes: _mm256_setzero_ps(), minimums: 0.0 }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn with<B: Block>(self, weights: &Weights, x: &Activations) -> Self {
            let dots = _mm256_cvtepi32_ps(fours::<B>(weights.q, load_32(&x.q)));
            let scale = _mm256_mul_ps(weights.d, load_floats(&x.d));
            Self {
                lanes: _mm256_add_ps(self.lanes, _mm256_mul_ps(dots, scale)),
                minimums: if B::HAS_MINIMUM { self.minimums + weights.m * x.sum } else { 0.0 },
            }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn total(self) -> f32 {
            let mut lanes = [0.0; 8];
            // SAFETY: the array has room for the 8 values that are stored; no alignment is asked for.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), self.lanes) };
            total(&lanes) + self.minimums
        }
    }

    /// Dot products of four neighbours each. No pair of products is over 2 · 128 · 127, so nothing saturates.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn fours<B: Block>(weights: __m256i, q: __m256i) -> __m256i {
        let pairs = if B::IS_SIGNED {
            _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(q, weights))
        } else {
            _mm256_maddubs_epi16(weights, q)
        };
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::blocks::tests::{assert_same_bits, rows_of_activations};

    fn is_one_whoever_computes<B: Block>() {
        let x: Vec<_> = rows_of_activations().iter().map(|row| quantised_row(row)).collect();
        assert_same_bits::<B, _>(&x, portable, products);
    }

    #[test]
    fn what_this_processor_has_gives_the_bits_of_any_processor() {
        is_one_whoever_computes::<Q4_0>();
        is_one_whoever_computes::<Q4_1>();
        is_one_whoever_computes::<Q8_0>();
    }
}
