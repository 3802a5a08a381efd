//! The scales of a strip's rows, unpacked before their codes are.

use super::Word;
use crate::canonical::{exponent, half_bits_to_f32};
use crate::cpu::matrix::STRIP;
use crate::packing::{Layout, Plane, SUPER, Scales};

/// What the integers of each group are multiplied with, row by row.
#[derive(Default)]
pub(super) struct StripScales {
    /// The scale of each group.
    pub d: Vec<[f32; STRIP]>,
    /// What is added; only where the packing has a minimum.
    pub m: Vec<[f32; STRIP]>,
    /// Of each group or of each half of one, where the scale has factors.
    pub factors: Vec<[i32; STRIP]>,
    /// The same of the minimum.
    pub minimums: Vec<[i32; STRIP]>,
}

const ONES: [i32; STRIP] = [1; STRIP];

impl StripScales {
    /// Those of a strip, in place of another's.
    #[inline(always)]
    pub fn take(&mut self, scales: Scales, layout: &Layout, words: &[Word]) {
        let n = layout.n_groups();
        self.d.resize(n, [0.0; STRIP]);
        self.m.resize(n, [0.0; STRIP]);
        let plane = |plane: Plane| {
            let bytes = layout.range(plane);
            &words[bytes.start / 4..bytes.end / 4]
        };
        let upper = plane(Plane::Scales);
        match scales {
            Scales::Half => {
                for (d, word) in self.d.chunks_mut(2).zip(upper) {
                    for (half, d) in d.iter_mut().enumerate() {
                        *d = halves(word, half);
                    }
                }
                return;
            }
            Scales::HalfMinimum => {
                for ((d, m), word) in self.d.iter_mut().zip(&mut self.m).zip(upper) {
                    (*d, *m) = (halves(word, 0), halves(word, 1));
                }
                return;
            }
            Scales::Exponent => {
                for (group, d) in self.d.iter_mut().enumerate() {
                    *d = bytes(&upper[group / 4], group % 4).map(exponent);
                }
                return;
            }
            Scales::BytesMinimum32 | Scales::NibblesMinimum16 => {
                let groups = self.d.chunks_mut(SUPER).zip(self.m.chunks_mut(SUPER));
                for ((d, m), word) in groups.zip(upper) {
                    d.fill(halves(word, 0));
                    m.fill(halves(word, 1).map(|m| -m));
                }
            }
            Scales::Bytes16 | Scales::Bytes32 | Scales::Six16 => {
                for (block, d) in self.d.chunks_mut(SUPER).enumerate() {
                    d.fill(halves(&upper[block / 2], block % 2));
                }
            }
        }
        let per_block = if scales.has_halves() { 16 } else { 8 };
        self.factors.resize(n / SUPER * per_block, ONES);
        self.minimums.resize(n / SUPER * per_block, ONES);
        let (lower, higher) = (plane(Plane::Factors), plane(Plane::HighFactors));
        let blocks = self.factors.chunks_exact_mut(per_block).zip(self.minimums.chunks_exact_mut(per_block));
        for (block, (factors, minimums)) in blocks.enumerate() {
            for (j, (factor, minimum)) in factors.iter_mut().zip(minimums).enumerate() {
                match scales {
                    Scales::Bytes16 => *factor = bytes(&lower[4 * block + j / 4], j % 4).map(signed),
                    Scales::Bytes32 => *factor = bytes(&lower[2 * block + j / 4], j % 4).map(signed),
                    Scales::Six16 => {
                        let low = bytes(&lower[2 * block + j % 8 / 4], j % 4).map(|byte| byte >> (4 * (j / 8)) & 15);
                        let high = bytes(&higher[block], j % 4).map(|byte| byte >> (2 * (j / 4)) & 3);
                        *factor = std::array::from_fn(|row| i32::from(low[row] | high[row] << 4) - 32);
                    }
                    Scales::NibblesMinimum16 => {
                        let both = bytes(&lower[4 * block + j / 4], j % 4);
                        *factor = both.map(|byte| i32::from(byte & 15));
                        *minimum = both.map(|byte| i32::from(byte >> 4));
                    }
                    _ => {
                        *factor = bytes(&lower[4 * block + j / 4], j % 4).map(i32::from);
                        *minimum = bytes(&lower[4 * block + 2 + j / 4], j % 4).map(i32::from);
                    }
                }
            }
        }
    }

    /// What the sums of a half of a group are multiplied with.
    #[inline(always)]
    pub fn factors(&self, scales: Scales, group: usize, half: usize) -> &[i32; STRIP] {
        Self::of(&self.factors, scales, group, half)
    }

    /// The same for the sums of activations.
    #[inline(always)]
    pub fn minimums(&self, scales: Scales, group: usize, half: usize) -> &[i32; STRIP] {
        Self::of(&self.minimums, scales, group, half)
    }

    #[inline(always)]
    fn of(values: &[[i32; STRIP]], scales: Scales, group: usize, half: usize) -> &[i32; STRIP] {
        if !scales.has_factors() {
            return &ONES;
        }
        &values[if scales.has_halves() { 2 * group + half } else { group }]
    }
}

/// The lower or the upper half of each row's word.
#[inline(always)]
fn halves(word: &Word, half: usize) -> [f32; STRIP] {
    let words = word.as_chunks::<4>().0;
    std::array::from_fn(|row| half_bits_to_f32(u32::from_le_bytes(words[row]) >> (16 * half) & 0xffff))
}

/// A byte of each row's word.
#[inline(always)]
fn bytes(word: &Word, at: usize) -> [u8; STRIP] {
    std::array::from_fn(|row| word[4 * row + at])
}

fn signed(byte: u8) -> i32 {
    i32::from(byte.cast_signed())
}
