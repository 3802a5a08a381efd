//! Matrices of 4 and 8 bits times rows of f32.
//!
//! Of each block of 32 weights the integers are multiplied first: lane l of 16 takes t = q[l] · x[l] + q[l + 16] · x[l + 16], its
//! sum grows by d · t, and the block's minimum counts once, times the sum of its 32 activations. Every processor does this in the
//! same order, so all give the same bits.

use std::borrow::Borrow;

use rayon::ThreadPool;

use super::{Add, spread};
use crate::cpu::Matrix;
use crate::cpu::blocks::{self, Block};
use crate::cpu::lanes::{self, Lanes};
use crate::weight_type::GROUP;

/// As [`fast`](super::fast()).
pub(super) fn multiply<B: Block>(weight: Matrix<'_>, x: &[f32], add: &Add<'_>, out: &mut [f32], pool: &ThreadPool) {
    let rows: Vec<Activations<'_>> = x.chunks_exact(weight.shape.n_cols).map(Activations::of).collect();
    spread(weight, rows.len(), add, out, pool, |ggml, out| products::<B>(bytemuck::cast_slice(ggml), &rows, out));
}

/// A row of activations, by groups of a block's length, with the sum of each group.
struct Activations<'a> {
    groups: &'a [[f32; GROUP]],
    sums: Vec<f32>,
}

impl<'a> Activations<'a> {
    fn of(row: &'a [f32]) -> Self {
        let groups = row.as_chunks::<GROUP>().0;
        Self { groups, sums: groups.iter().map(|group| lanes::sum(group)).collect() }
    }
}

/// Products of some of a matrix's rows, `[output][row]`.
fn products<B: Block>(matrix: &[B], x: &[Activations<'_>], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::blocks::has_avx2() {
        // SAFETY: the processor has just been found to have AVX2 and F16C, the features the function is compiled for.
        return unsafe { avx2::products(matrix, x, out) };
    }
    portable(matrix, x, out);
}

/// As [`products`], on any processor.
fn portable<B: Block>(matrix: &[B], x: &[Activations<'_>], out: &mut [f32]) {
    let n_groups = x.first().map_or(1, |x| x.groups.len());
    for (row, out) in matrix.chunks_exact(n_groups).zip(out.chunks_exact_mut(x.len())) {
        if let ([x], [out]) = (x, &mut *out) {
            *out = product::<B>(row.iter().map(Weights::of), x);
            continue;
        }
        // Unpacked once for all rows of activations.
        let weights: Vec<Weights> = row.iter().map(Weights::of).collect();
        for (x, out) in x.iter().zip(out) {
            *out = product::<B>(weights.iter(), x);
        }
    }
}

/// A block, unpacked.
#[derive(Clone, Copy)]
struct Weights {
    d: f32,
    m: f32,
    q: [Lanes; 2],
}

impl Weights {
    #[inline(always)]
    fn of<B: Block>(block: &B) -> Self {
        let (d, m) = block.scales();
        Self { d, m, q: blocks::lanes(block) }
    }
}

#[inline(always)]
fn product<B: Block>(row: impl Iterator<Item = impl Borrow<Weights>>, x: &Activations<'_>) -> f32 {
    let (mut sums, mut minimums): (Lanes, f32) = ([0.0; 16], 0.0);
    for ((weights, x), x_sum) in row.zip(x.groups).zip(&x.sums) {
        let Weights { d, m, q } = weights.borrow();
        add_block(&mut sums, *d, q, x);
        if B::HAS_MINIMUM {
            minimums += m * x_sum;
        }
    }
    lanes::tree(&sums) + minimums
}

/// `sums[l] += d · t[l]`, in loops of 16 that become SIMD on any processor.
#[inline(always)]
fn add_block(sums: &mut Lanes, d: f32, [q_first, q_last]: &[Lanes; 2], x: &[f32; GROUP]) {
    let [x_first, x_last] = x.as_chunks::<16>().0 else { unreachable!("32 are twice 16") };
    let mut t: Lanes = [0.0; 16];
    for lane in 0..16 {
        t[lane] = q_first[lane] * x_first[lane];
    }
    for lane in 0..16 {
        t[lane] += q_last[lane] * x_last[lane];
    }
    for lane in 0..16 {
        sums[lane] += d * t[lane];
    }
}

/// The same in the words of AVX2 and F16C.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps, _mm256_add_ps,
        _mm256_broadcastss_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_mul_ps, _mm256_setzero_ps,
    };

    use super::Activations;
    use crate::cpu::blocks::Block;
    use crate::cpu::blocks::avx2::{floats, load_floats, scales};
    use crate::weight_type::GROUP;

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn products<B: Block>(matrix: &[B], x: &[Activations<'_>], out: &mut [f32]) {
        let n_groups = x.first().map_or(1, |x| x.groups.len());
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
    fn of_one<B: Block>(row: &[B], x: &Activations<'_>) -> f32 {
        let mut sum = Sum::zero();
        for ((block, x), x_sum) in row.iter().zip(x.groups).zip(&x.sums) {
            sum = sum.with::<B>(&Weights::of(block), x, *x_sum);
        }
        sum.total()
    }

    /// One output of four rows, whose weights are unpacked once.
    #[target_feature(enable = "avx2,f16c")]
    fn of_four_rows<B: Block>(row: &[B], [a, b, c, d]: &[Activations<'_>; 4]) -> [f32; 4] {
        let n = row.len();
        let (groups_a, groups_b) = (&a.groups[..n], &b.groups[..n]);
        let (groups_c, groups_d) = (&c.groups[..n], &d.groups[..n]);
        let (sums_a, sums_b, sums_c, sums_d) = (&a.sums[..n], &b.sums[..n], &c.sums[..n], &d.sums[..n]);
        let (mut a, mut b, mut c, mut d) = (Sum::zero(), Sum::zero(), Sum::zero(), Sum::zero());
        for at in 0..n {
            let weights = Weights::of(&row[at]);
            a = a.with::<B>(&weights, &groups_a[at], sums_a[at]);
            b = b.with::<B>(&weights, &groups_b[at], sums_b[at]);
            c = c.with::<B>(&weights, &groups_c[at], sums_c[at]);
            d = d.with::<B>(&weights, &groups_d[at], sums_d[at]);
        }
        [a.total(), b.total(), c.total(), d.total()]
    }

    /// A block in registers.
    struct Weights {
        d: __m256,
        m: f32,
        q: [__m256; 4],
    }

    /// The sums of one output of one row: lanes 0 to 7, 8 to 15, and the minimums.
    #[derive(Clone, Copy)]
    struct Sum {
        low: __m256,
        high: __m256,
        minimums: f32,
    }

    impl Weights {
        #[target_feature(enable = "avx2,f16c")]
        #[inline]
        fn of<B: Block>(block: &B) -> Self {
            let (d, m) = scales(block);
            Self { d: _mm256_broadcastss_ps(d), m: _mm_cvtss_f32(m), q: floats(block) }
        }
    }

    impl Sum {
        #[target_feature(enable = "avx2")]
        #[inline]
        fn zero() -> Self {
            Self { low: _mm256_setzero_ps(), high: _mm256_setzero_ps(), minimums: 0.0 }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn with<B: Block>(self, weights: &Weights, x: &[f32; GROUP], x_sum: f32) -> Self {
            let Weights { d, m, q: [q0, q1, q2, q3] } = *weights;
            let [x0, x1, x2, x3] = x.as_chunks().0 else { unreachable!("32 are four times 8") };
            let low = _mm256_add_ps(_mm256_mul_ps(q0, load_floats(x0)), _mm256_mul_ps(q2, load_floats(x2)));
            let high = _mm256_add_ps(_mm256_mul_ps(q1, load_floats(x1)), _mm256_mul_ps(q3, load_floats(x3)));
            Self {
                low: _mm256_add_ps(self.low, _mm256_mul_ps(d, low)),
                high: _mm256_add_ps(self.high, _mm256_mul_ps(d, high)),
                minimums: if B::HAS_MINIMUM { self.minimums + m * x_sum } else { 0.0 },
            }
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        fn total(self) -> f32 {
            tree(self.low, self.high) + self.minimums
        }
    }

    /// As [`lanes::tree`](crate::cpu::lanes::tree).
    #[target_feature(enable = "avx2")]
    #[inline]
    fn tree(low: __m256, high: __m256) -> f32 {
        let eight = _mm256_add_ps(low, high);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::blocks::tests::{assert_same_bits, rows_of_activations};
    use crate::cpu::blocks::{Q4_0, Q4_1, Q8_0};

    fn is_one_whoever_computes<B: Block>() {
        let rows = rows_of_activations();
        let x: Vec<_> = rows.iter().map(|row| Activations::of(row)).collect();
        assert_same_bits::<B, _>(&x, portable, products);
    }

    #[test]
    fn a_product_has_the_same_bits_on_any_processor_and_beside_any_rows() {
        is_one_whoever_computes::<Q4_0>();
        is_one_whoever_computes::<Q4_1>();
        is_one_whoever_computes::<Q8_0>();
    }
}
