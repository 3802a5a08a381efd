//! Instructions whose intrinsics Rust 1.95 keeps unstable, as assembly. Each needs what its name says and nothing of memory.

use std::arch::aarch64::{float32x4_t, int8x16_t, int32x4_t, uint16x8_t};
use std::arch::asm;

/// Adds to each sum the four products of its codes with the four activations number `AT`.
///
/// # Safety
/// The processor has `dotprod`.
#[inline(always)]
pub(super) unsafe fn sdot<const AT: usize>(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.4b[{at}]",
            at = const AT, sums = inout(vreg) sums, codes = in(vreg) codes, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Adds the products of two rows of eight with two of eight: `[a · c, a · d, b · c, b · d]`.
///
/// # Safety
/// The processor has `i8mm`.
#[inline(always)]
pub(super) unsafe fn smmla(sums: int32x4_t, ab: int8x16_t, cd: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the caller's.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {ab:v}.16b, {cd:v}.16b",
            sums = inout(vreg) sums, ab = in(vreg) ab, cd = in(vreg) cd,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The f32 that the lower four of eight f16 are, and those that the upper four are.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
pub(super) unsafe fn fcvtl(halves: uint16x8_t) -> [float32x4_t; 2] {
    let (lower, upper): (float32x4_t, float32x4_t);
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "fcvtl {lower:v}.4s, {halves:v}.4h",
            lower = lateout(vreg) lower, halves = in(vreg) halves,
            options(pure, nomem, nostack),
        );
        asm!(
            "fcvtl2 {upper:v}.4s, {halves:v}.8h",
            upper = lateout(vreg) upper, halves = in(vreg) halves,
            options(pure, nomem, nostack),
        );
    }
    [lower, upper]
}
