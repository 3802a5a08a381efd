//! Sixteen lanes: the one order of every sum on the processor, the same bits on SSE2, AVX2 and NEON.
//!
//! Lane l takes the elements l, l + 16, l + 32, …; the lanes are added as a tree. Multiplication and addition stay apart: a fused one
//! rounds once instead of twice and not every processor has it.

mod dots;

pub(crate) use dots::{TOGETHER, dots};

/// Partial sums of one reduction.
pub(crate) type Lanes = [f32; 16];

/// Adds the lanes as a tree: l and l + 8, then l and l + 4, …
///
/// Never inlined: seen together with the loop before it, the tree leads LLVM to cut that loop's lanes in pairs, at a third of the speed.
#[inline(never)]
pub(crate) fn tree(lanes: &Lanes) -> f32 {
    let mut lanes = *lanes;
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// `lanes[l] += a[i] · b[i]` for every i, l = i mod 16. Both are equally long.
#[inline(always)]
pub(crate) fn multiply_add(lanes: &mut Lanes, a: &[f32], b: &[f32]) {
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] += a * b;
    }
}

/// The dot product of two equally long slices.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    multiply_add(&mut lanes, a, b);
    tree(&lanes)
}

/// The sum of the values.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        lanes[lane] += value;
    }
    tree(&lanes)
}

/// Asks for memory that is read soon, or may be no memory at all. On x86 alone: on ARM nothing is asked for, since what that gains was never measured.
#[inline(always)]
pub(crate) fn fetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this kind has it, and it reads nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Defines a function whose body is compiled once for the target's base and once for AVX2, chosen as the program runs.
/// Both do the same operations in the same order, so their bits are equal.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$generic:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            fn base $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $out)? {
                    base $(::<$generic>)? ($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been found to have AVX2, the one feature the function is compiled for.
                    return unsafe { avx2 $(::<$generic>)? ($($arg),*) };
                }
            }
            base $(::<$generic>)? ($($arg),*)
        }
    };
}
pub(crate) use simd;

/// The name of what `simd!` chooses on this processor.
pub(crate) fn simd_name() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return "avx2";
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "base" }
}
