//! Blocks in the registers of AVX2 and F16C.

use std::arch::x86_64::{
    __m128, __m128i, __m256, __m256i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_mul_ss, _mm_set_ss, _mm_srli_epi16, _mm256_and_si256, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set_m128i, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_srli_epi32,
};

use super::Block;

/// d and m of a block, in the first lane of each.
#[target_feature(enable = "avx2,f16c")]
#[inline]
pub(crate) fn scales<B: Block>(block: &B) -> (__m128, __m128) {
    // A block is longer than 4 bytes, whatever its type.
    let halves = block.bytes().first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
    let scales = _mm_cvtph_ps(_mm_cvtsi32_si128(halves));
    let m = if B::SCALE_BYTES == 4 { _mm_movehdup_ps(scales) } else { _mm_mul_ss(_mm_set_ss(B::MINIMUM), scales) };
    (scales, m)
}

/// The integers of a block as bytes, in order.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn integers<B: Block>(block: &B) -> __m256i {
    let bytes = &block.bytes()[B::SCALE_BYTES..];
    if B::IS_SIGNED {
        return load_32(bytes.first_chunk().expect("a block of 8 bits has 32 bytes"));
    }
    let nibbles: &[u8; 16] = bytes.first_chunk().expect("a block of 4 bits has 16 bytes");
    // SAFETY: the array has the 16 bytes that are loaded; no alignment is asked for.
    let nibbles = unsafe { _mm_loadu_si128(nibbles.as_ptr().cast()) };
    _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(nibbles, 4), nibbles), _mm256_set1_epi8(15))
}

/// The integers of a block as f32, in order.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn floats<B: Block>(block: &B) -> [__m256; 4] {
    let bytes = block.bytes()[B::SCALE_BYTES..].as_chunks::<8>().0;
    let [a, b, c, d] = if B::IS_SIGNED {
        let [a, b, c, d] = bytes.first_chunk().expect("a block of 8 bits has 32 bytes");
        [
            _mm256_cvtepi8_epi32(load_8(a)),
            _mm256_cvtepi8_epi32(load_8(b)),
            _mm256_cvtepi8_epi32(load_8(c)),
            _mm256_cvtepi8_epi32(load_8(d)),
        ]
    } else {
        let [a, b] = bytes.first_chunk().expect("a block of 4 bits has 16 bytes");
        let (a, b) = (_mm256_cvtepu8_epi32(load_8(a)), _mm256_cvtepu8_epi32(load_8(b)));
        let low = _mm256_set1_epi32(15);
        [_mm256_and_si256(a, low), _mm256_and_si256(b, low), _mm256_srli_epi32(a, 4), _mm256_srli_epi32(b, 4)]
    };
    [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b), _mm256_cvtepi32_ps(c), _mm256_cvtepi32_ps(d)]
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_8(from: &[u8; 8]) -> __m128i {
    // SAFETY: the array has the 8 bytes that are loaded; no alignment is asked for.
    unsafe { _mm_loadl_epi64(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_32<T: bytemuck::Pod>(from: &[T; 32]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: the array has the 32 bytes that are loaded; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn load_floats(from: &[f32; 8]) -> __m256 {
    // SAFETY: the array has the 8 values that are loaded; no alignment is asked for.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}
