//! Lanes of 256 and of 512 bits.

#![allow(clippy::needless_range_loop, reason = "an iterator hands lanes on by memory")]

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32,
    _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_mullo_epi32, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi16,
    _mm256_slli_epi32, _mm256_sllv_epi32, _mm256_srai_epi32, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_storeu_ps, _mm256_xor_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_castsi256_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_inserti64x4, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16, _mm512_sllv_epi32,
    _mm512_srai_epi32, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_srlv_epi32, _mm512_storeu_ps, _mm512_xor_si512,
};
use std::marker::PhantomData;

use super::super::STRIP;
use super::super::lanes::Lanes;

/// How a processor multiplies bytes in 256 bits.
pub(super) trait Dots {
    /// Codes up to 255 are multiplied without loss, and not up to 128 alone.
    const IS_WHOLE: bool;

    /// Adds to each row's sum four products of bytes without a sign with bytes that have one.
    ///
    /// # Safety
    /// The processor has the features.
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i;
}

/// One strip, in 256 bits.
pub(super) struct Narrow<D>(PhantomData<D>);
/// Two, in 512.
pub(super) struct Wide;

pub(super) struct Avx512Vnni;
pub(super) struct AvxVnni;
pub(super) struct Avx2;

impl Dots for Avx512Vnni {
    const IS_WHOLE: bool = true;

    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_epi32(sums, codes, x) }
    }
}

impl Dots for AvxVnni {
    const IS_WHOLE: bool = true;

    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_dpbusd_avx_epi32(sums, codes, x) }
    }
}

impl Dots for Avx2 {
    const IS_WHOLE: bool = false;

    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller's. No pair of products is over 2 · 128 · 127, so nothing saturates.
        unsafe {
            let pairs = _mm256_maddubs_epi16(codes, x);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

/// The bit of a byte that stands for its sign: turned, it adds 128.
const SIGN: i8 = i8::MIN;

// SAFETY of all that follows: the caller's; loads and stores are of whole values, and no alignment is asked for.

impl<D: Dots> Lanes for Narrow<D> {
    const STRIPS: usize = 1;
    const OVER: i32 = if D::IS_WHOLE { 128 } else { 0 };
    type Ints = __m256i;
    type Floats = __m256;
    /// And where 128 cannot be added, their signs.
    type Codes = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn load<T>(first: &T, _: &T) -> __m256i {
        const { assert!(size_of::<T>() == 32) };
        unsafe { _mm256_loadu_si256(std::ptr::from_ref(first).cast()) }
    }

    #[inline(always)]
    unsafe fn floats(values: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(values) }
    }

    /// As [`half_bits_to_f32`](crate::canonical::half_bits_to_f32).
    #[inline(always)]
    unsafe fn from_f16(words: __m256i, is_upper: bool) -> __m256 {
        unsafe {
            let bits = if is_upper { _mm256_srli_epi32(words, 16) } else { words };
            let magnitude = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)), 13);
            let rebase = _mm256_castsi256_ps(_mm256_set1_epi32((127 + 112) << 23));
            let scaled = _mm256_castps_si256(_mm256_mul_ps(_mm256_castsi256_ps(magnitude), rebase));
            let special = _mm256_set1_epi32(0x7c00);
            let is_special = _mm256_cmpeq_epi32(_mm256_and_si256(bits, special), special);
            let special = _mm256_and_si256(is_special, _mm256_set1_epi32(0x7f80_0000));
            let sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)), 16);
            _mm256_castsi256_ps(_mm256_or_si256(_mm256_or_si256(scaled, special), sign))
        }
    }

    #[inline(always)]
    unsafe fn byte(words: __m256i, at: usize, is_signed: bool) -> __m256i {
        let bits = 8 * at as i32;
        unsafe {
            match is_signed {
                true => _mm256_srai_epi32(_mm256_sllv_epi32(words, _mm256_set1_epi32(24 - bits)), 24),
                false => _mm256_and_si256(_mm256_srlv_epi32(words, _mm256_set1_epi32(bits)), _mm256_set1_epi32(255)),
            }
        }
    }

    #[inline(always)]
    unsafe fn words(value: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn float(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn none() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    unsafe fn field<const FIRST: u32, const BITS: u32>(bytes: __m256i) -> __m256i {
        unsafe {
            let moved = match FIRST {
                1 => _mm256_srli_epi16(bytes, 1),
                2 => _mm256_srli_epi16(bytes, 2),
                3 => _mm256_srli_epi16(bytes, 3),
                4 => _mm256_srli_epi16(bytes, 4),
                5 => _mm256_srli_epi16(bytes, 5),
                6 => _mm256_srli_epi16(bytes, 6),
                7 => _mm256_srli_epi16(bytes, 7),
                _ => bytes,
            };
            _mm256_and_si256(moved, _mm256_set1_epi8((1 << BITS) - 1))
        }
    }

    #[inline(always)]
    unsafe fn left<const BITS: u32>(a: __m256i) -> __m256i {
        unsafe {
            match BITS {
                2 => _mm256_slli_epi16(a, 2),
                4 => _mm256_slli_epi16(a, 4),
                _ => a,
            }
        }
    }

    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], codes: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), codes) }
    }

    #[inline(always)]
    unsafe fn prepared(codes: __m256i, is_signed: bool) -> (__m256i, __m256i) {
        unsafe {
            match (is_signed, D::IS_WHOLE) {
                (false, _) => (codes, codes),
                (true, true) => (_mm256_xor_si256(codes, _mm256_set1_epi8(SIGN)), codes),
                (true, false) => (_mm256_abs_epi8(codes), codes),
            }
        }
    }

    #[inline(always)]
    unsafe fn dots(begin: [i32; 2], codes: &[Self::Codes; 8], x: &[i32; 8], is_signed: bool) -> [__m256i; 2] {
        unsafe {
            let mut sums = [_mm256_set1_epi32(begin[0]), _mm256_set1_epi32(begin[1])];
            for c in 0..4 {
                for half in 0..2 {
                    let ((codes, signs), x) = (codes[4 * half + c], _mm256_set1_epi32(x[4 * half + c]));
                    let x = if is_signed && !D::IS_WHOLE { _mm256_sign_epi8(x, signs) } else { x };
                    sums[half] = D::dot(sums[half], codes, x);
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn times(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn to_floats(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn plus(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn product(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn store(values: __m256, to: &mut [f32; 2 * STRIP]) {
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), values) }
    }
}

impl Lanes for Wide {
    const STRIPS: usize = 2;
    const OVER: i32 = 128;
    type Ints = __m512i;
    type Floats = __m512;
    type Codes = __m512i;

    #[inline(always)]
    unsafe fn load<T>(first: &T, second: &T) -> __m512i {
        const { assert!(size_of::<T>() == 32) };
        unsafe {
            let first = _mm256_loadu_si256(std::ptr::from_ref(first).cast());
            let second = _mm256_loadu_si256(std::ptr::from_ref(second).cast());
            _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1)
        }
    }

    #[inline(always)]
    unsafe fn floats(values: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(values) }
    }

    #[inline(always)]
    unsafe fn from_f16(words: __m512i, is_upper: bool) -> __m512 {
        unsafe {
            let bits = if is_upper { _mm512_srli_epi32::<16>(words) } else { words };
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits))
        }
    }

    #[inline(always)]
    unsafe fn byte(words: __m512i, at: usize, is_signed: bool) -> __m512i {
        let bits = 8 * at as i32;
        unsafe {
            match is_signed {
                true => _mm512_srai_epi32::<24>(_mm512_sllv_epi32(words, _mm512_set1_epi32(24 - bits))),
                false => _mm512_and_si512(_mm512_srlv_epi32(words, _mm512_set1_epi32(bits)), _mm512_set1_epi32(255)),
            }
        }
    }

    #[inline(always)]
    unsafe fn words(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn float(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn none() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    unsafe fn field<const FIRST: u32, const BITS: u32>(bytes: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<FIRST>(bytes), _mm512_set1_epi8((1 << BITS) - 1)) }
    }

    #[inline(always)]
    unsafe fn left<const BITS: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi16::<BITS>(a) }
    }

    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], codes: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), codes) }
    }

    #[inline(always)]
    unsafe fn prepared(codes: __m512i, is_signed: bool) -> __m512i {
        unsafe { if is_signed { _mm512_xor_si512(codes, _mm512_set1_epi8(SIGN)) } else { codes } }
    }

    #[inline(always)]
    unsafe fn dots(begin: [i32; 2], codes: &[__m512i; 8], x: &[i32; 8], _: bool) -> [__m512i; 2] {
        unsafe {
            let mut sums = [_mm512_set1_epi32(begin[0]), _mm512_set1_epi32(begin[1])];
            for c in 0..4 {
                for half in 0..2 {
                    let at = 4 * half + c;
                    sums[half] = _mm512_dpbusd_epi32(sums[half], codes[at], _mm512_set1_epi32(x[at]));
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn times(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    unsafe fn to_floats(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    unsafe fn plus(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn product(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn store(values: __m512, to: &mut [f32; 2 * STRIP]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) }
    }
}
