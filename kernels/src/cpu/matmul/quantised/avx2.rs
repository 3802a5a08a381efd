//! The same in the words of AVX2.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64, _mm_loadu_si128, _mm_movehdup_ps,
    _mm_movehl_ps, _mm_srli_epi16, _mm_srli_si128, _mm256_add_ps, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi32,
    _mm256_srlv_epi32, _mm256_sub_epi8,
};

use super::{Activations, BYTES, CodePlanes, NIBBLES, Packed, RowScales};
use crate::packing::{Codes, GROUP};

#[target_feature(enable = "avx2")]
pub(super) fn products<const CODES: u8, const HALVES: bool, const MINIMUM: bool>(
    matrix: &Packed,
    bytes: &[u8],
    x: &[Activations<'_>],
    out: &mut [f32],
) {
    let mut scales = RowScales::default();
    let (x_fours, x_rest) = x.as_chunks::<4>();
    for (row, out) in bytes.chunks_exact(matrix.layout.row_bytes()).zip(out.chunks_exact_mut(x.len())) {
        scales.take(matrix.codes, matrix.scales, &matrix.layout, row);
        let planes = CodePlanes::of(matrix.codes, &matrix.layout, row);
        let (fours, rest) = out.as_chunks_mut::<4>();
        for (x, out) in x_fours.iter().zip(fours) {
            *out = of_four_rows::<CODES, HALVES, MINIMUM>(&planes, &scales, x);
        }
        for (x, out) in x_rest.iter().zip(rest) {
            *out = of_one::<CODES, HALVES, MINIMUM>(&planes, &scales, x);
        }
    }
}

/// One output of one row.
#[target_feature(enable = "avx2")]
fn of_one<const CODES: u8, const HALVES: bool, const MINIMUM: bool>(
    planes: &CodePlanes<'_>,
    scales: &RowScales,
    x: &Activations<'_>,
) -> f32 {
    let n = x.groups.len();
    let (planes, scales, x) =
        (cut::<CODES>(planes, n), Factors::of::<HALVES>(&scales.d, &scales.m, n), Row::of::<HALVES>(x, n));
    let mut sum = Sum::zero();
    for group in 0..n {
        let q = floats::<CODES>(&planes, group);
        sum = sum.with::<HALVES, MINIMUM>(&q, scales, x, group);
    }
    sum.total()
}

/// One output of four rows, whose weights are unpacked once.
#[target_feature(enable = "avx2")]
fn of_four_rows<const CODES: u8, const HALVES: bool, const MINIMUM: bool>(
    planes: &CodePlanes<'_>,
    scales: &RowScales,
    x: &[Activations<'_>; 4],
) -> [f32; 4] {
    let n = x[0].groups.len();
    let (planes, scales) = (cut::<CODES>(planes, n), Factors::of::<HALVES>(&scales.d, &scales.m, n));
    let [xa, xb, xc, xd] = x;
    let (xa, xb) = (Row::of::<HALVES>(xa, n), Row::of::<HALVES>(xb, n));
    let (xc, xd) = (Row::of::<HALVES>(xc, n), Row::of::<HALVES>(xd, n));
    let (mut a, mut b, mut c, mut d) = (Sum::zero(), Sum::zero(), Sum::zero(), Sum::zero());
    for group in 0..n {
        let q = floats::<CODES>(&planes, group);
        a = a.with::<HALVES, MINIMUM>(&q, scales, xa, group);
        b = b.with::<HALVES, MINIMUM>(&q, scales, xb, group);
        c = c.with::<HALVES, MINIMUM>(&q, scales, xc, group);
        d = d.with::<HALVES, MINIMUM>(&q, scales, xd, group);
    }
    [a.total(), b.total(), c.total(), d.total()]
}

/// The planes that are looked at, of just so many groups: then no index of the loop has to be checked.
#[inline(always)]
fn cut<'a, const CODES: u8>(planes: &CodePlanes<'a>, n: usize) -> CodePlanes<'a> {
    match CODES {
        NIBBLES => CodePlanes { nibbles: &planes.nibbles[..n], ..*planes },
        BYTES => CodePlanes { bytes: &planes.bytes[..n], ..*planes },
        _ => *planes,
    }
}

/// Scales of just so many groups.
#[derive(Clone, Copy)]
struct Factors<'a> {
    d: &'a [f32],
    m: &'a [f32],
}

impl<'a> Factors<'a> {
    #[inline(always)]
    fn of<const HALVES: bool>(d: &'a [f32], m: &'a [f32], n: usize) -> Self {
        let n = if HALVES { 2 * n } else { n };
        Self { d: &d[..n], m: &m[..n] }
    }
}

/// A row of activations, of just so many groups.
#[derive(Clone, Copy)]
struct Row<'a> {
    groups: &'a [[f32; GROUP]],
    sums: &'a [f32],
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn of<const HALVES: bool>(x: &'a Activations<'_>, n: usize) -> Self {
        Self { groups: &x.groups[..n], sums: &x.sums[..if HALVES { 2 * n } else { n }] }
    }
}

/// The sums of one output of one row: lanes 0 to 7, 8 to 15, and the minimums.
#[derive(Clone, Copy)]
struct Sum {
    low: __m256,
    high: __m256,
    minimums: f32,
}

impl Sum {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn zero() -> Self {
        Self { low: _mm256_setzero_ps(), high: _mm256_setzero_ps(), minimums: 0.0 }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn with<const HALVES: bool, const MINIMUM: bool>(
        self,
        [q0, q1, q2, q3]: &[__m256; 4],
        scales: Factors<'_>,
        x: Row<'_>,
        group: usize,
    ) -> Self {
        let [x0, x1, x2, x3] = x.groups[group].as_chunks().0 else { unreachable!("32 are four times 8") };
        let Self { mut low, mut high, mut minimums } = self;
        let (p0, p1) = (_mm256_mul_ps(*q0, load_floats(x0)), _mm256_mul_ps(*q1, load_floats(x1)));
        let (p2, p3) = (_mm256_mul_ps(*q2, load_floats(x2)), _mm256_mul_ps(*q3, load_floats(x3)));
        if HALVES {
            let [first, last] = [2 * group, 2 * group + 1];
            let (d_first, d_last) = (_mm256_set1_ps(scales.d[first]), _mm256_set1_ps(scales.d[last]));
            low = _mm256_add_ps(_mm256_add_ps(low, _mm256_mul_ps(d_first, p0)), _mm256_mul_ps(d_last, p2));
            high = _mm256_add_ps(_mm256_add_ps(high, _mm256_mul_ps(d_first, p1)), _mm256_mul_ps(d_last, p3));
            if MINIMUM {
                minimums += scales.m[first] * x.sums[first];
                minimums += scales.m[last] * x.sums[last];
            }
        } else {
            let d = _mm256_set1_ps(scales.d[group]);
            low = _mm256_add_ps(low, _mm256_mul_ps(d, _mm256_add_ps(p0, p2)));
            high = _mm256_add_ps(high, _mm256_mul_ps(d, _mm256_add_ps(p1, p3)));
            if MINIMUM {
                minimums += scales.m[group] * x.sums[group];
            }
        }
        Self { low, high, minimums }
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

/// The integers of a group as f32, in order; as [`super::integers`].
#[target_feature(enable = "avx2")]
#[inline]
fn floats<const CODES: u8>(planes: &CodePlanes<'_>, group: usize) -> [__m256; 4] {
    let integers = match CODES {
        NIBBLES => {
            let [a, b] = planes.nibbles[group].as_chunks::<8>().0 else { unreachable!("16 are twice 8") };
            let (a, b) = (_mm256_cvtepu8_epi32(load_8(a)), _mm256_cvtepu8_epi32(load_8(b)));
            let low = _mm256_set1_epi32(15);
            [_mm256_and_si256(a, low), _mm256_and_si256(b, low), _mm256_srli_epi32(a, 4), _mm256_srli_epi32(b, 4)]
        }
        BYTES => {
            let [a, b, c, d] = planes.bytes[group].as_chunks::<8>().0 else { unreachable!("32 are four times 8") };
            [
                _mm256_cvtepi8_epi32(load_8(a)),
                _mm256_cvtepi8_epi32(load_8(b)),
                _mm256_cvtepi8_epi32(load_8(c)),
                _mm256_cvtepi8_epi32(load_8(d)),
            ]
        }
        _ => {
            let bytes = any_integers(planes, group);
            let (first, last) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
            [
                _mm256_cvtepi8_epi32(first),
                _mm256_cvtepi8_epi32(_mm_srli_si128(first, 8)),
                _mm256_cvtepi8_epi32(last),
                _mm256_cvtepi8_epi32(_mm_srli_si128(last, 8)),
            ]
        }
    };
    let [a, b, c, d] = integers;
    [_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b), _mm256_cvtepi32_ps(c), _mm256_cvtepi32_ps(d)]
}

/// The integers of a group as signed bytes, in order, whatever its codes.
#[target_feature(enable = "avx2")]
#[inline]
fn any_integers(planes: &CodePlanes<'_>, group: usize) -> __m256i {
    if planes.codes == Codes::Bytes {
        return load_32(&planes.bytes[group]);
    }
    let mut codes = _mm256_setzero_si256();
    let has_nibbles = planes.codes.has_nibbles();
    if has_nibbles {
        let nibbles = load_16(&planes.nibbles[group]);
        codes = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(nibbles, 4), nibbles), _mm256_set1_epi8(15));
    }
    if planes.codes.has_pairs() {
        let [first, last] = planes.pairs[group].as_chunks::<4>().0 else { unreachable!("8 are twice 4") };
        let (a, b) = (i32::from_le_bytes(*first), i32::from_le_bytes(*last));
        let words = _mm256_setr_epi32(a, a, a, a, b, b, b, b);
        let pairs = _mm256_srlv_epi32(words, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
        let pairs = _mm256_and_si256(pairs, _mm256_set1_epi8(3));
        codes = _mm256_or_si256(codes, if has_nibbles { _mm256_slli_epi16(pairs, 4) } else { pairs });
    }
    if planes.codes.has_ones() {
        let word = _mm256_set1_epi32(i32::from_le_bytes(planes.ones[group]));
        let ones = _mm256_srlv_epi32(word, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        let ones = _mm256_and_si256(ones, _mm256_set1_epi8(1));
        codes =
            _mm256_or_si256(codes, if has_nibbles { _mm256_slli_epi16(ones, 4) } else { _mm256_slli_epi16(ones, 2) });
    }
    match planes.codes {
        Codes::Table(table) => {
            let integers = table.integers().map(i8::cast_unsigned);
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_16(&integers)), codes)
        }
        _ => _mm256_sub_epi8(codes, _mm256_set1_epi8(planes.codes.offset())),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_16(from: &[u8; GROUP / 2]) -> __m128i {
    // SAFETY: the array has the 16 bytes that are loaded; no alignment is asked for.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_8(from: &[u8; 8]) -> __m128i {
    // SAFETY: the array has the 8 bytes that are loaded; no alignment is asked for.
    unsafe { _mm_loadl_epi64(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_32(from: &[u8; GROUP]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are loaded; no alignment is asked for.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_floats(from: &[f32; 8]) -> __m256 {
    // SAFETY: the array has the 8 values that are loaded; no alignment is asked for.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}
