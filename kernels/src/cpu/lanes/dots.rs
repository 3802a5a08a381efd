//! Eight dot products at once, each in the order of [`dot`](super::dot): their trees are added side by side, so that none waits for its lanes to be put apart.

/// How many vectors are multiplied with one.
pub(crate) const TOGETHER: usize = 8;

/// The dot products of each of some vectors with each of eight, which follow each other in `a` and in `b`; all are as long, a multiple of 16. Those of the first are
/// put to the beginning of `out`, those of the next `stride` values behind, and so on.
pub(crate) fn dots(a: &[f32], b: &[f32], out: &mut [f32], stride: usize) {
    let width = b.len() / TOGETHER;
    assert!(width > 0 && width.is_multiple_of(16) && b.len() == TOGETHER * width, "eight vectors of whole lanes");
    let all = a.chunks_exact(width).zip(out.chunks_mut(stride));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just been found to have AVX2.
        return unsafe { x86::all_dots(all, b) };
    }
    for (a, out) in all {
        #[cfg(target_arch = "aarch64")]
        let dots = arm::dots(a, b);
        #[cfg(not(target_arch = "aarch64"))]
        let dots = portable(a, b);
        out[..TOGETHER].copy_from_slice(&dots);
    }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
fn portable(a: &[f32], b: &[f32]) -> [f32; TOGETHER] {
    std::array::from_fn(|at| super::dot(a, &b[at * a.len()..][..a.len()]))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_loadu_ps, _mm256_mul_ps,
        _mm256_permute2f128_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_pd,
        _mm256_unpacklo_pd,
    };

    use super::TOGETHER;

    #[target_feature(enable = "avx2")]
    pub fn all_dots<'a>(all: impl Iterator<Item = (&'a [f32], &'a mut [f32])>, b: &[f32]) {
        for (a, out) in all {
            out[..TOGETHER].copy_from_slice(&dots(a, b));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn dots(a: &[f32], b: &[f32]) -> [f32; TOGETHER] {
        let (first, last) = b.split_at(4 * a.len());
        let ([s0, s1, s2, s3], [s4, s5, s6, s7]) = (halves_of_four(a, first), halves_of_four(a, last));
        let pairs = (pair(quarters(s0, s4), quarters(s1, s5)), pair(quarters(s2, s6), quarters(s3, s7)));
        let even = _mm256_shuffle_ps::<0x88>(pairs.0, pairs.1);
        let odd = _mm256_shuffle_ps::<0xdd>(pairs.0, pairs.1);
        let mut out = [0.0; TOGETHER];
        // SAFETY: there are eight.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(even, odd)) };
        out
    }

    /// Of each of four vectors, lanes l and l + 8 added.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves_of_four(a: &[f32], b: &[f32]) -> [__m256; 4] {
        let mut sums = [[_mm256_setzero_ps(); 2]; 4];
        let (a, n) = (a.as_chunks::<8>().0, a.len() / 8);
        let b = b.as_chunks::<8>().0;
        for at in (0..n).step_by(2) {
            for half in 0..2 {
                let a = load(&a[at + half]);
                for (of, sums) in sums.iter_mut().enumerate() {
                    sums[half] = _mm256_add_ps(sums[half], _mm256_mul_ps(a, load(&b[of * n + at + half])));
                }
            }
        }
        sums.map(|[lower, upper]| _mm256_add_ps(lower, upper))
    }

    /// Of two vectors, lanes l and l + 4 added.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn quarters(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    }

    /// Of four vectors, lanes l and l + 2 added.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pair(a: __m256, b: __m256) -> __m256 {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(values: &[f32; 8]) -> __m256 {
        // SAFETY: there are eight.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::{
        float32x4_t, vaddq_f32, vdupq_n_f32, vld1q_f32, vmulq_f32, vpaddq_f32, vreinterpretq_f32_f64,
        vreinterpretq_f64_f32, vst1q_f32, vzip1q_f64, vzip2q_f64,
    };

    use super::TOGETHER;

    pub fn dots(a: &[f32], b: &[f32]) -> [f32; TOGETHER] {
        let mut out = [0.0; TOGETHER];
        for (two, out) in b.chunks_exact(4 * a.len()).zip(out.as_chunks_mut::<4>().0) {
            let (first, last) = two.split_at(2 * a.len());
            // SAFETY: every processor of this kind has NEON, and there are four.
            unsafe { vst1q_f32(out.as_mut_ptr(), vpaddq_f32(pair(a, first), pair(a, last))) };
        }
        out
    }

    /// Of two vectors, lanes l and l + 8, l + 4 and l + 2 added.
    #[inline(always)]
    fn pair(a: &[f32], b: &[f32]) -> float32x4_t {
        let (first, last) = b.split_at(a.len());
        let (first, last) = (quarters(a, first), quarters(a, last));
        // SAFETY: as above.
        unsafe {
            let (first, last) = (vreinterpretq_f64_f32(first), vreinterpretq_f64_f32(last));
            let (lower, upper) = (vzip1q_f64(first, last), vzip2q_f64(first, last));
            vaddq_f32(vreinterpretq_f32_f64(lower), vreinterpretq_f32_f64(upper))
        }
    }

    /// Of one vector, lanes l and l + 8 and l + 4 added.
    #[inline(always)]
    fn quarters(a: &[f32], b: &[f32]) -> float32x4_t {
        // SAFETY: as above.
        unsafe {
            let mut sums = [vdupq_n_f32(0.0); 4];
            for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
                for (at, sums) in sums.iter_mut().enumerate() {
                    let (a, b) = (&a.as_chunks::<4>().0[at], &b.as_chunks::<4>().0[at]);
                    *sums = vaddq_f32(*sums, vmulq_f32(vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())));
                }
            }
            vaddq_f32(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_once_have_the_bits_of_one_at_a_time() {
        for n in [16, 32, 48, 64, 256] {
            let value = |i: usize| ((i * 7919 % 20011) as f32 / 10_000.0 - 1.0) * [1.0, 1e-3, 3e4][i / 5 % 3];
            let a: Vec<f32> = (0..3 * n).map(value).collect();
            let b: Vec<f32> = (0..TOGETHER * n).map(|i| value(i * 3 + 1)).collect();
            let mut out = [9.0; 2 * 11 + TOGETHER];
            dots(&a, &b, &mut out, 11);
            for (a, out) in a.chunks(n).zip(out.chunks(11)) {
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&out[..TOGETHER]), bits(&portable(a, &b)), "{n} long");
                assert!(out[TOGETHER..].iter().all(|value| *value == 9.0), "nothing else is touched");
            }
        }
    }
}
