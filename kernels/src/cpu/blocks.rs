//! Blocks: 32 weights of 4 or 8 bits, as a file has them, each d · q + m. What the kernels of both arithmetics share.

use bytemuck::{Pod, Zeroable};

use crate::cpu::lanes::Lanes;
use crate::weight_type::GROUP;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;

/// A type of blocks. Its bytes are the scales, then the integers.
pub(crate) trait Block: Pod {
    /// Bytes of d, and of m where a block has one of its own.
    const SCALE_BYTES: usize;
    /// m, where a block has none of its own, is this times d; 0 where there is no m.
    const MINIMUM: f32;
    /// Integers of 8 bits with a sign; else two of 4 bits without one share a byte, those of the first 16 weights below those of the last.
    const IS_SIGNED: bool;
    /// Whether m is not always 0.
    const HAS_MINIMUM: bool = Self::SCALE_BYTES == 4 || Self::MINIMUM != 0.0;

    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// d and m.
    #[inline(always)]
    fn scales(&self) -> (f32, f32) {
        let bytes = self.bytes();
        let d = half_to_f32(&bytes[..2]);
        if Self::SCALE_BYTES == 4 { (d, half_to_f32(&bytes[2..4])) } else { (d, Self::MINIMUM * d) }
    }

    /// The integers, in the order of the weights.
    #[inline(always)]
    fn integers(&self) -> [i8; GROUP] {
        let bytes = &self.bytes()[Self::SCALE_BYTES..];
        let mut integers = [0; GROUP];
        if Self::IS_SIGNED {
            for (integer, byte) in integers.iter_mut().zip(bytes) {
                *integer = byte.cast_signed();
            }
        } else {
            let (first, last) = integers.split_at_mut(GROUP / 2);
            for (integer, byte) in first.iter_mut().zip(bytes) {
                *integer = (byte & 15).cast_signed();
            }
            for (integer, byte) in last.iter_mut().zip(bytes) {
                *integer = (byte >> 4).cast_signed();
            }
        }
        integers
    }
}

/// The integers of a block as f32: the first 16, then the last. Plain loops of 16, which become SIMD on any processor.
#[inline(always)]
pub(crate) fn lanes<B: Block>(block: &B) -> [Lanes; 2] {
    let bytes = &block.bytes()[B::SCALE_BYTES..];
    let (mut first, mut last): (Lanes, Lanes) = ([0.0; 16], [0.0; 16]);
    if B::IS_SIGNED {
        let [low, high] = bytes.as_chunks::<16>().0.first_chunk().expect("a block of 8 bits has 32 bytes");
        for lane in 0..16 {
            first[lane] = f32::from(low[lane].cast_signed());
        }
        for lane in 0..16 {
            last[lane] = f32::from(high[lane].cast_signed());
        }
    } else {
        let nibbles: &[u8; 16] = bytes.first_chunk().expect("a block of 4 bits has 16 bytes");
        for lane in 0..16 {
            first[lane] = (i32::from(nibbles[lane]) & 15) as f32;
        }
        for lane in 0..16 {
            last[lane] = (i32::from(nibbles[lane]) >> 4) as f32;
        }
    }
    [first, last]
}

/// d · (q − 8).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4_0 {
    d: [u8; 2],
    q: [u8; 16],
}

/// d · q + m.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4_1 {
    d: [u8; 2],
    m: [u8; 2],
    q: [u8; 16],
}

/// d · q.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q8_0 {
    d: [u8; 2],
    q: [i8; 32],
}

impl Block for Q4_0 {
    const SCALE_BYTES: usize = 2;
    const MINIMUM: f32 = -8.0;
    const IS_SIGNED: bool = false;
}

impl Block for Q4_1 {
    const SCALE_BYTES: usize = 4;
    const MINIMUM: f32 = 0.0;
    const IS_SIGNED: bool = false;
}

impl Block for Q8_0 {
    const SCALE_BYTES: usize = 2;
    const MINIMUM: f32 = 0.0;
    const IS_SIGNED: bool = true;
}

/// Two bytes of f16 to f32 without a branch or a call, so that loops over it become SIMD. Exact, NaN and infinities included.
#[inline(always)]
pub(crate) fn half_to_f32(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let magnitude = (bits & 0x7fff) << 13;
    // The exponent's bias goes from 15 to 127 by a multiplication, which sets subnormals right as well.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (bits & 0x8000) << 16)
}

/// Whether this processor has what the functions of [`avx2`] are compiled for.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Blocks with every byte there is in every place, and scales that are finite.
    fn blocks<B: Block>(n: usize) -> Vec<B> {
        let byte = |i: usize| match i % size_of::<B>() {
            at if at < B::SCALE_BYTES => [0x5a, 0x2c + (i % 5) as u8][at % 2],
            _ => (i * 97 + i / 7) as u8,
        };
        let bytes: Vec<u8> = (0..n * size_of::<B>()).map(byte).collect();
        bytemuck::cast_slice(&bytes).to_vec()
    }

    const N_GROUPS: usize = 40;

    /// Six rows of activations, with groups that are large, small and nothing but zeros.
    pub(crate) fn rows_of_activations() -> Vec<Vec<f32>> {
        let value = |i: usize| ((i * 37 % 255) as f32 - 127.0) * [1.0, 3e-3, 0.0][i / 16 % 3];
        (1..=6).map(|step| (0..N_GROUPS * GROUP).map(|i| value(i * step)).collect()).collect()
    }

    /// Outputs of a matrix's blocks times rows of activations.
    type Product<B, X> = fn(&[B], &[X], &mut [f32]);

    /// That `products` gives the bits of `portable` for `x`, which are [`rows_of_activations()`], together and one by one.
    pub(crate) fn assert_same_bits<B: Block, X>(x: &[X], portable: Product<B, X>, products: Product<B, X>) {
        let n_outputs = 9;
        let matrix = blocks::<B>(N_GROUPS * n_outputs);
        let bits = |kernel: Product<B, X>, x: &[X]| -> Vec<u32> {
            let mut out = vec![0.0f32; n_outputs * x.len()];
            kernel(&matrix, x, &mut out);
            assert!(out.iter().all(|value| value.is_finite() && *value != 0.0));
            out.iter().map(|value| value.to_bits()).collect()
        };
        let all = bits(portable, x);
        assert_eq!(bits(products, x), all);
        for (r, one) in x.chunks(1).enumerate() {
            let alone: Vec<u32> = all.iter().skip(r).step_by(x.len()).copied().collect();
            assert_eq!(bits(products, one), alone, "row {r} alone");
        }
    }

    #[test]
    fn every_half_becomes_the_f32_of_its_value() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = half_to_f32(&bits.to_le_bytes());
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#06x}: {found} instead of {expected}"
            );
        }
    }
}
