//! The same in the words of AVX2, and of its instruction for four bytes at once where there is one.

use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi32,
    _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi16, _mm256_srli_epi16,
    _mm256_storeu_ps,
};

use super::{Activations, Packed, STRIP, StripScales, Word, store};
use crate::packing::{Codes, Plane};

type Products = unsafe fn(&Packed, &[u8], &[Activations], &mut [f32]);

/// The fastest that this processor has the features for.
pub(super) fn products() -> Option<Products> {
    every_products().into_iter().flatten().next()
}

/// All that this processor has the features for, the fastest first.
pub(super) fn every_products() -> [Option<Products>; 3] {
    let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
    let has_avx512 =
        std::arch::is_x86_feature_detected!("avx512vl") && std::arch::is_x86_feature_detected!("avx512vnni");
    let has_vnni = std::arch::is_x86_feature_detected!("avxvnni");
    [
        (has_avx2 && has_avx512).then_some(of_avx512_vnni as Products),
        (has_avx2 && has_vnni).then_some(of_avx_vnni as Products),
        has_avx2.then_some(of_avx2 as Products),
    ]
}

#[target_feature(enable = "avx2,avx512vl,avx512vnni")]
fn of_avx512_vnni(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: the function is compiled for the features that this set of words needs.
    unsafe { strips_of::<Avx512Vnni>(matrix, strips, x, out) }
}

#[target_feature(enable = "avx2,avxvnni")]
fn of_avx_vnni(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<AvxVnni>(matrix, strips, x, out) }
}

#[target_feature(enable = "avx2")]
fn of_avx2(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { strips_of::<Avx2>(matrix, strips, x, out) }
}

/// What differs between processors. All that is here is inlined into a function that is compiled for the features.
trait Dots {
    /// Adds to each row's sum four products of bytes without a sign, at most 128, with bytes that have one.
    ///
    /// # Safety
    /// The processor has the features.
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i;
}

struct Avx512Vnni;
struct AvxVnni;
struct Avx2;

impl Dots for Avx512Vnni {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_epi32(sums, codes, x) }
    }
}

impl Dots for AvxVnni {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_avx_epi32(sums, codes, x) }
    }
}

impl Dots for Avx2 {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's. No pair of products is over 2 · 128 · 127, so nothing saturates.
        unsafe {
            let pairs = _mm256_maddubs_epi16(codes, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

/// Bytes that come from memory at once.
const LINE: usize = 64;

// What the codes are made of, so that each loop knows.
const NIBBLES: u8 = 4;
const BYTES: u8 = 8;
const ANY: u8 = 0;

// What the scales are: one, one with a minimum, or any.
const SCALE: u8 = 0;
const MINIMUM: u8 = 1;
const FACTORS: u8 = 2;

#[inline(always)]
unsafe fn strips_of<D: Dots>(matrix: &Packed, strips: &[u8], x: &[Activations], out: &mut [f32]) {
    let codes = match matrix.codes {
        Codes::Bits { bits: 4, .. } => NIBBLES,
        Codes::Bytes => BYTES,
        _ => ANY,
    };
    let scales = match (matrix.scales.has_factors(), matrix.scales.has_minimum()) {
        (true, _) => FACTORS,
        (false, true) => MINIMUM,
        (false, false) => SCALE,
    };
    // SAFETY: the caller's.
    unsafe {
        match (codes, scales) {
            (NIBBLES, SCALE) => all::<D, NIBBLES, SCALE>(matrix, strips, x, out),
            (NIBBLES, MINIMUM) => all::<D, NIBBLES, MINIMUM>(matrix, strips, x, out),
            (NIBBLES, _) => all::<D, NIBBLES, FACTORS>(matrix, strips, x, out),
            (BYTES, SCALE) => all::<D, BYTES, SCALE>(matrix, strips, x, out),
            (_, SCALE) => all::<D, ANY, SCALE>(matrix, strips, x, out),
            (_, MINIMUM) => all::<D, ANY, MINIMUM>(matrix, strips, x, out),
            (_, _) => all::<D, ANY, FACTORS>(matrix, strips, x, out),
        }
    }
}

#[inline(always)]
unsafe fn all<D: Dots, const CODES: u8, const SCALES: u8>(
    matrix: &Packed,
    strips: &[u8],
    x: &[Activations],
    out: &mut [f32],
) {
    let mut scales = StripScales::default();
    let mut sums = vec![[0.0; STRIP]; x.len()];
    for (strip, out) in strips.chunks_exact(matrix.layout.row_bytes() * STRIP).zip(out.chunks_mut(STRIP * x.len())) {
        let words = strip.as_chunks().0;
        scales.take(matrix.scales, &matrix.layout, words);
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let (x_fours, x_rest) = x.as_chunks::<4>();
        // SAFETY: the caller's.
        unsafe {
            for (x, sums) in x_fours.iter().zip(fours) {
                *sums = strip_of::<D, 4, CODES, SCALES>(matrix, words, &scales, x);
            }
            for (x, sums) in x_rest.iter().zip(rest) {
                [*sums] = strip_of::<D, 1, CODES, SCALES>(matrix, words, &scales, std::array::from_ref(x));
            }
        }
        store(&sums, out);
    }
}

/// A strip with some rows of activations: a lane an output.
#[inline(always)]
unsafe fn strip_of<D: Dots, const N: usize, const CODES: u8, const SCALES: u8>(
    matrix: &Packed,
    words: &[Word],
    scales: &StripScales,
    x: &[Activations; N],
) -> [[f32; STRIP]; N] {
    let n = matrix.layout.n_groups();
    let (d, m) = (&scales.d[..n], &scales.m[..n]);
    let x: [_; N] = std::array::from_fn(|row| (&x[row].words[..n], &x[row].d[..n], &x[row].sums[..n]));
    let offset = i32::from(matrix.codes.offset());
    let is_signed = CODES == BYTES || (CODES == ANY && matches!(matrix.codes, Codes::Bytes | Codes::Table(_)));
    // The next strip is fetched while this one is computed: a strip's planes are read side by side, which no processor foresees.
    let next = words.as_ptr_range().end.cast::<i8>();
    let lines = size_of_val(words).div_ceil(LINE * n.max(1));
    // SAFETY: the caller's; loads and stores are of whole arrays, and what is fetched ahead may be no memory at all.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); N];
        for group in 0..n {
            for line in group * lines..(group + 1) * lines {
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(line * LINE));
            }
            let mut codes = codes::<CODES>(matrix, words, group);
            let signs = codes;
            if is_signed {
                for code in &mut codes {
                    *code = _mm256_abs_epi8(*code);
                }
            }
            let d = _mm256_loadu_ps(d[group].as_ptr());
            for row in 0..N {
                let (x, x_d, x_sums) = (&x[row].0[group], x[row].1[group], x[row].2[group]);
                let mut halves = [_mm256_setzero_si256(); 2];
                for half in 0..2 {
                    let mut dots = _mm256_set1_epi32(-offset * x_sums[half]);
                    for c in 4 * half..4 * half + 4 {
                        let x = _mm256_set1_epi32(x[c]);
                        let x = if is_signed { _mm256_sign_epi8(x, signs[c]) } else { x };
                        dots = D::dot(dots, codes[c], x);
                    }
                    halves[half] = dots;
                }
                let [first, last] = halves;
                let term = if SCALES == FACTORS {
                    let first = _mm256_mullo_epi32(first, load(scales.factors(matrix.scales, group, 0)));
                    let last = _mm256_mullo_epi32(last, load(scales.factors(matrix.scales, group, 1)));
                    let mut term = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_add_epi32(first, last)));
                    if matrix.scales.has_minimum() {
                        let (first, last) = (_mm256_set1_epi32(x_sums[0]), _mm256_set1_epi32(x_sums[1]));
                        let first = _mm256_mullo_epi32(load(scales.minimums(matrix.scales, group, 0)), first);
                        let last = _mm256_mullo_epi32(load(scales.minimums(matrix.scales, group, 1)), last);
                        let minimums = _mm256_cvtepi32_ps(_mm256_add_epi32(first, last));
                        term = _mm256_add_ps(term, _mm256_mul_ps(_mm256_loadu_ps(m[group].as_ptr()), minimums));
                    }
                    term
                } else {
                    let term = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_add_epi32(first, last)));
                    if SCALES == MINIMUM {
                        let x_sum = _mm256_set1_ps((x_sums[0] + x_sums[1]) as f32);
                        _mm256_add_ps(term, _mm256_mul_ps(_mm256_loadu_ps(m[group].as_ptr()), x_sum))
                    } else {
                        term
                    }
                };
                sums[row] = _mm256_add_ps(sums[row], _mm256_mul_ps(_mm256_set1_ps(x_d), term));
            }
        }
        let mut stored = [[0.0; STRIP]; N];
        for (sums, stored) in sums.iter().zip(&mut stored) {
            store_floats(*sums, stored);
        }
        stored
    }
}

/// As [`super::codes`].
#[inline(always)]
unsafe fn codes<const CODES: u8>(matrix: &Packed, words: &[Word], group: usize) -> [__m256i; 8] {
    let plane =
        |plane: Plane, n_words: usize| &words[matrix.layout.range(plane).start / 4 + group * n_words..][..n_words];
    // SAFETY: the caller's; loads are of whole arrays.
    unsafe {
        let mut codes = [_mm256_setzero_si256(); 8];
        if CODES == BYTES || (CODES == ANY && matrix.codes == Codes::Bytes) {
            for (code, word) in codes.iter_mut().zip(plane(Plane::Values, 8)) {
                *code = load(word);
            }
            return codes;
        }
        let has_nibbles = CODES == NIBBLES || matrix.codes.has_nibbles();
        if has_nibbles {
            let low = _mm256_set1_epi8(15);
            for (c, word) in plane(Plane::Nibbles, 4).iter().enumerate() {
                let word = load(word);
                codes[c] = _mm256_and_si256(word, low);
                codes[4 + c] = _mm256_and_si256(_mm256_srli_epi16(word, 4), low);
            }
        }
        if CODES == NIBBLES {
            return codes;
        }
        if matrix.codes.has_pairs() {
            let mask = _mm256_set1_epi8(3);
            for (h, word) in plane(Plane::Pairs, 2).iter().enumerate() {
                let word = load(word);
                let pairs = [word, _mm256_srli_epi16(word, 2), _mm256_srli_epi16(word, 4), _mm256_srli_epi16(word, 6)];
                for (s, pairs) in pairs.into_iter().enumerate() {
                    let pairs = _mm256_and_si256(pairs, mask);
                    let pairs = if has_nibbles { _mm256_slli_epi16(pairs, 4) } else { pairs };
                    codes[4 * h + s] = _mm256_or_si256(codes[4 * h + s], pairs);
                }
            }
        }
        if matrix.codes.has_ones() {
            let (word, mask) = (load(&plane(Plane::Ones, 1)[0]), _mm256_set1_epi8(1));
            let ones = [
                word,
                _mm256_srli_epi16(word, 1),
                _mm256_srli_epi16(word, 2),
                _mm256_srli_epi16(word, 3),
                _mm256_srli_epi16(word, 4),
                _mm256_srli_epi16(word, 5),
                _mm256_srli_epi16(word, 6),
                _mm256_srli_epi16(word, 7),
            ];
            for (code, ones) in codes.iter_mut().zip(ones) {
                let ones = _mm256_and_si256(ones, mask);
                let ones = if has_nibbles { _mm256_slli_epi16(ones, 4) } else { _mm256_slli_epi16(ones, 2) };
                *code = _mm256_or_si256(*code, ones);
            }
        }
        if let Codes::Table(table) = matrix.codes {
            let integers = table.integers();
            let integers = _mm256_broadcastsi128_si256(_mm_loadu_si128(integers.as_ptr().cast()));
            for code in &mut codes {
                *code = _mm256_shuffle_epi8(integers, *code);
            }
        }
        codes
    }
}

/// 32 bytes of anything.
#[inline(always)]
unsafe fn load<T>(from: &T) -> __m256i {
    const { assert!(size_of::<T>() == 32) };
    // SAFETY: the value has the 32 bytes that are loaded; no alignment is asked for.
    unsafe { _mm256_loadu_si256(std::ptr::from_ref(from).cast()) }
}

#[inline(always)]
unsafe fn store_floats(values: __m256, to: &mut [f32; STRIP]) {
    // SAFETY: the array has room for the 8 values that are stored; no alignment is asked for.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), values) };
}
