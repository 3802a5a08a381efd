//! Lanes of two registers of 128 bits: the rows of one strip.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vaddq_f32, vaddq_s32, vandq_s32, vandq_u8, vcombine_s32, vcvtq_f32_s32,
    vdup_n_s32, vdupq_laneq_s32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u8, vget_low_s8, vld1q_s8, vld1q_s32, vmlal_high_s8,
    vmlal_s8, vmull_high_s8, vmull_s8, vmulq_f32, vmulq_s32, vorrq_s32, vpadalq_s16, vpaddq_s32, vqtbl1q_s8,
    vreinterpretq_f32_s32, vreinterpretq_s8_s32, vreinterpretq_s8_s64, vreinterpretq_s32_s8, vreinterpretq_s32_s64,
    vreinterpretq_s32_u8, vreinterpretq_s32_u32, vreinterpretq_s64_s8, vreinterpretq_s64_s32, vreinterpretq_u8_s32,
    vreinterpretq_u16_s32, vreinterpretq_u32_s32, vshlq_n_u8, vshlq_s32, vshlq_u32, vshrq_n_s32, vshrq_n_u8, vst1q_f32,
    vuzp1q_u16, vuzp2q_u16, vzip1q_s32, vzip1q_s64, vzip2q_s32, vzip2q_s64,
};
use std::marker::PhantomData;

use super::super::STRIP;
use super::super::lanes::Lanes;
use super::instructions::{fcvtl, sdot, smmla};

/// How a processor multiplies bytes that have signs.
///
/// # Safety
/// Of all functions: the processor has the features.
pub(super) trait Dots {
    /// The products of half a group's codes of four rows with that half of some activations, added to what it begins with.
    unsafe fn half(begin: i32, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t;

    /// The same with two rows of activations.
    #[inline(always)]
    unsafe fn half_of_two(begin: [i32; 2], codes: [int8x16_t; 4], x: [int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the caller's.
        unsafe { [Self::half(begin[0], codes, x[0]), Self::half(begin[1], codes, x[1])] }
    }
}

pub(super) struct Neons<D>(PhantomData<D>);

pub(super) struct Neon;
pub(super) struct DotProd;
pub(super) struct I8mm;

impl Dots for Neon {
    #[inline(always)]
    unsafe fn half(begin: i32, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's. Two products of bytes are 2 · 128 · 127 at most, so nothing overflows in 16 bits.
        unsafe {
            let x = vreinterpretq_s32_s8(x);
            let x = [
                vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(x)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(x)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(x)),
                vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(x)),
            ];
            let mut pairs = [vdupq_n_s32(0); 2];
            for c in [0, 2] {
                let lower = vmull_s8(vget_low_s8(codes[c]), vget_low_s8(x[c]));
                let lower = vmlal_s8(lower, vget_low_s8(codes[c + 1]), vget_low_s8(x[c + 1]));
                let upper = vmlal_high_s8(vmull_high_s8(codes[c], x[c]), codes[c + 1], x[c + 1]);
                pairs = [vpadalq_s16(pairs[0], lower), vpadalq_s16(pairs[1], upper)];
            }
            vaddq_s32(vdupq_n_s32(begin), vpaddq_s32(pairs[0], pairs[1]))
        }
    }
}

impl Dots for DotProd {
    #[inline(always)]
    unsafe fn half(begin: i32, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's.
        unsafe {
            let sums = sdot::<0>(vdupq_n_s32(begin), codes[0], x);
            let sums = sdot::<1>(sums, codes[1], x);
            let sums = sdot::<2>(sums, codes[2], x);
            sdot::<3>(sums, codes[3], x)
        }
    }
}

impl Dots for I8mm {
    #[inline(always)]
    unsafe fn half(begin: i32, codes: [int8x16_t; 4], x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's, who has asked for both.
        unsafe { DotProd::half(begin, codes, x) }
    }

    #[inline(always)]
    unsafe fn half_of_two(begin: [i32; 2], codes: [int8x16_t; 4], x: [int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the caller's.
        unsafe {
            // Eight bytes of either row of activations, and eight of either of two rows of the matrix.
            let [a, b] = [vreinterpretq_s64_s8(x[0]), vreinterpretq_s64_s8(x[1])];
            let [x_first, x_last] = [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))];
            let [c0, c1] = [vreinterpretq_s32_s8(codes[0]), vreinterpretq_s32_s8(codes[1])];
            let [c2, c3] = [vreinterpretq_s32_s8(codes[2]), vreinterpretq_s32_s8(codes[3])];
            let begin = vcombine_s32(vdup_n_s32(begin[0]), vdup_n_s32(begin[1]));
            let lower = smmla(begin, x_first, vreinterpretq_s8_s32(vzip1q_s32(c0, c1)));
            let lower = vreinterpretq_s64_s32(smmla(lower, x_last, vreinterpretq_s8_s32(vzip1q_s32(c2, c3))));
            let upper = smmla(begin, x_first, vreinterpretq_s8_s32(vzip2q_s32(c0, c1)));
            let upper = vreinterpretq_s64_s32(smmla(upper, x_last, vreinterpretq_s8_s32(vzip2q_s32(c2, c3))));
            [vreinterpretq_s32_s64(vzip1q_s64(lower, upper)), vreinterpretq_s32_s64(vzip2q_s64(lower, upper))]
        }
    }
}

// SAFETY of all that follows: the caller's; loads and stores are of whole values.

impl<D: Dots> Neons<D> {
    /// Half a group's codes, of four of the rows.
    #[inline(always)]
    fn four(codes: &[[int8x16_t; 2]; 8], half: usize, rows: usize) -> [int8x16_t; 4] {
        let at = 4 * half;
        [codes[at][rows], codes[at + 1][rows], codes[at + 2][rows], codes[at + 3][rows]]
    }

    #[inline(always)]
    unsafe fn activations(x: &[i32; 8], half: usize) -> int8x16_t {
        unsafe { vreinterpretq_s8_s32(vld1q_s32(x[4 * half..].as_ptr())) }
    }
}

impl<D: Dots> Lanes for Neons<D> {
    const STRIPS: usize = 1;
    const OVER: i32 = 0;
    type Ints = [int32x4_t; 2];
    type Floats = [float32x4_t; 2];
    type Codes = [int8x16_t; 2];

    #[inline(always)]
    unsafe fn load<T>(first: &T, _: &T) -> Self::Ints {
        const { assert!(size_of::<T>() == 32) };
        let at = std::ptr::from_ref(first).cast::<i32>();
        unsafe { [vld1q_s32(at), vld1q_s32(at.add(4))] }
    }

    #[inline(always)]
    unsafe fn floats(values: Self::Ints) -> Self::Floats {
        unsafe { [vreinterpretq_f32_s32(values[0]), vreinterpretq_f32_s32(values[1])] }
    }

    #[inline(always)]
    unsafe fn from_f16(words: Self::Ints, is_upper: bool) -> Self::Floats {
        unsafe {
            let [a, b] = [vreinterpretq_u16_s32(words[0]), vreinterpretq_u16_s32(words[1])];
            fcvtl(if is_upper { vuzp2q_u16(a, b) } else { vuzp1q_u16(a, b) })
        }
    }

    #[inline(always)]
    unsafe fn byte(words: Self::Ints, at: usize, is_signed: bool) -> Self::Ints {
        let bits = 8 * at as i32;
        unsafe {
            if is_signed {
                let up = vdupq_n_s32(24 - bits);
                return [vshrq_n_s32::<24>(vshlq_s32(words[0], up)), vshrq_n_s32::<24>(vshlq_s32(words[1], up))];
            }
            let (down, byte) = (vdupq_n_s32(-bits), vdupq_n_s32(255));
            let [a, b] = [vreinterpretq_u32_s32(words[0]), vreinterpretq_u32_s32(words[1])];
            let [a, b] = [vshlq_u32(a, down), vshlq_u32(b, down)];
            [vandq_s32(vreinterpretq_s32_u32(a), byte), vandq_s32(vreinterpretq_s32_u32(b), byte)]
        }
    }

    #[inline(always)]
    unsafe fn words(value: i32) -> Self::Ints {
        unsafe { [vdupq_n_s32(value); 2] }
    }

    #[inline(always)]
    unsafe fn float(value: f32) -> Self::Floats {
        unsafe { [vdupq_n_f32(value); 2] }
    }

    #[inline(always)]
    unsafe fn none() -> Self::Ints {
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    unsafe fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { [vorrq_s32(a[0], b[0]), vorrq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn field<const FIRST: u32, const BITS: u32>(bytes: Self::Ints) -> Self::Ints {
        unsafe { [field::<FIRST, BITS>(bytes[0]), field::<FIRST, BITS>(bytes[1])] }
    }

    #[inline(always)]
    unsafe fn left<const BITS: u32>(bytes: Self::Ints) -> Self::Ints {
        unsafe { [left::<BITS>(bytes[0]), left::<BITS>(bytes[1])] }
    }

    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], codes: Self::Ints) -> Self::Ints {
        unsafe {
            let table = vld1q_s8(table.as_ptr());
            let [a, b] = [vreinterpretq_u8_s32(codes[0]), vreinterpretq_u8_s32(codes[1])];
            [vreinterpretq_s32_s8(vqtbl1q_s8(table, a)), vreinterpretq_s32_s8(vqtbl1q_s8(table, b))]
        }
    }

    #[inline(always)]
    unsafe fn prepared(codes: Self::Ints, _: bool) -> Self::Codes {
        unsafe { [vreinterpretq_s8_s32(codes[0]), vreinterpretq_s8_s32(codes[1])] }
    }

    #[inline(always)]
    unsafe fn dots(begin: [i32; 2], codes: &[Self::Codes; 8], x: &[i32; 8], _: bool) -> [Self::Ints; 2] {
        unsafe {
            let [first, last] = [Self::activations(x, 0), Self::activations(x, 1)];
            [
                [D::half(begin[0], Self::four(codes, 0, 0), first), D::half(begin[0], Self::four(codes, 0, 1), first)],
                [D::half(begin[1], Self::four(codes, 1, 0), last), D::half(begin[1], Self::four(codes, 1, 1), last)],
            ]
        }
    }

    #[inline(always)]
    unsafe fn dots_of_two(
        begin: [[i32; 2]; 2],
        codes: &[Self::Codes; 8],
        x: [&[i32; 8]; 2],
        _: bool,
    ) -> [[Self::Ints; 2]; 2] {
        unsafe {
            // By halves: of four of the rows, then of the others.
            let first = [Self::activations(x[0], 0), Self::activations(x[1], 0)];
            let last = [Self::activations(x[0], 1), Self::activations(x[1], 1)];
            let (of_first, of_last) = ([begin[0][0], begin[1][0]], [begin[0][1], begin[1][1]]);
            let [a, b] = D::half_of_two(of_first, Self::four(codes, 0, 0), first);
            let [c, d] = D::half_of_two(of_first, Self::four(codes, 0, 1), first);
            let [e, f] = D::half_of_two(of_last, Self::four(codes, 1, 0), last);
            let [g, h] = D::half_of_two(of_last, Self::four(codes, 1, 1), last);
            [[[a, c], [e, g]], [[b, d], [f, h]]]
        }
    }

    #[inline(always)]
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn times(a: Self::Ints, b: Self::Ints) -> Self::Ints {
        unsafe { [vmulq_s32(a[0], b[0]), vmulq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn to_floats(a: Self::Ints) -> Self::Floats {
        unsafe { [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1])] }
    }

    #[inline(always)]
    unsafe fn plus(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn product(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn store(values: Self::Floats, to: &mut [f32; 2 * STRIP]) {
        unsafe {
            vst1q_f32(to.as_mut_ptr(), values[0]);
            vst1q_f32(to[4..].as_mut_ptr(), values[1]);
        }
    }
}

/// So many bits of each byte, from bit `FIRST` on; those that nothing lies above are not masked.
#[inline(always)]
unsafe fn field<const FIRST: u32, const BITS: u32>(bytes: int32x4_t) -> int32x4_t {
    unsafe {
        let bytes = vreinterpretq_u8_s32(bytes);
        let moved = match FIRST {
            1 => vshrq_n_u8::<1>(bytes),
            2 => vshrq_n_u8::<2>(bytes),
            3 => vshrq_n_u8::<3>(bytes),
            4 => vshrq_n_u8::<4>(bytes),
            5 => vshrq_n_u8::<5>(bytes),
            6 => vshrq_n_u8::<6>(bytes),
            7 => vshrq_n_u8::<7>(bytes),
            _ => bytes,
        };
        let is_whole = FIRST + BITS == 8;
        vreinterpretq_s32_u8(if is_whole { moved } else { vandq_u8(moved, vdupq_n_u8((1 << BITS) - 1)) })
    }
}

#[inline(always)]
unsafe fn left<const BITS: u32>(bytes: int32x4_t) -> int32x4_t {
    unsafe {
        let bytes = vreinterpretq_u8_s32(bytes);
        vreinterpretq_s32_u8(match BITS {
            2 => vshlq_n_u8::<2>(bytes),
            4 => vshlq_n_u8::<4>(bytes),
            _ => bytes,
        })
    }
}
