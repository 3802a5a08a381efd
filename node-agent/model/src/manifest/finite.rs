//! Finite values: whether every number that a tensor's bytes hold is one. One infinite scale makes all that is computed with it no number.

use crate::tensor_type::{Numbers, TensorType};

/// Looks at a tensor's bytes as they come, cut anywhere.
pub(super) struct FiniteCheck {
    tensor_type: TensorType,
    /// Whether others are divided by the values, which are F32: then each is above 0, too.
    divides: bool,
    /// The begun block.
    pending: Vec<u8>,
}

// === impl FiniteCheck ===

impl FiniteCheck {
    pub(super) fn new(tensor_type: TensorType) -> Self {
        Self { tensor_type, divides: false, pending: Vec::new() }
    }

    /// Of F32 that others are divided by.
    pub(super) fn of_divisors() -> Self {
        Self { divides: true, ..Self::new(TensorType::F32) }
    }

    /// Whether all blocks that `bytes` complete are finite.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        let block = self.tensor_type.block_bytes() as usize;
        if !self.pending.is_empty() {
            let n_missing = (block - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..n_missing]);
            bytes = &bytes[n_missing..];
            if self.pending.len() < block {
                return true;
            }
            if !self.are_sound(&self.pending) {
                return false;
            }
            self.pending.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % block);
        self.pending.extend_from_slice(rest);
        self.are_sound(whole)
    }

    fn are_sound(&self, blocks: &[u8]) -> bool {
        let is_above_zero = |four: &[u8; 4]| f32::from_le_bytes(*four) > 0.0;
        are_finite(self.tensor_type, blocks) && (!self.divides || blocks.as_chunks().0.iter().all(is_above_zero))
    }
}

/// Whole blocks, whose type says where their numbers lie. An exponent of all ones is infinite or no number.
fn are_finite(tensor_type: TensorType, blocks: &[u8]) -> bool {
    let mut blocks = blocks.chunks_exact(tensor_type.block_bytes() as usize);
    match tensor_type.numbers() {
        Numbers::Single => blocks.all(|block| u16::from_le_bytes([block[2], block[3]]) & 0x7f80 != 0x7f80),
        Numbers::Brain => blocks.all(|block| u16::from_le_bytes([block[0], block[1]]) & 0x7f80 != 0x7f80),
        Numbers::Halves(places) => blocks.all(|block| places.iter().all(|&at| is_finite_half(&block[at..at + 2]))),
        Numbers::Exponent => blocks.all(|block| block[0] != 0xff),
        Numbers::Unknown => true,
    }
}

fn is_finite_half(value: &[u8]) -> bool {
    u16::from_le_bytes([value[0], value[1]]) & 0x7c00 != 0x7c00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_that_is_none_is_found_however_the_bytes_are_cut() {
        let cases: [(TensorType, usize, &[u8]); 17] = [
            (TensorType::F32, 8, &f32::NAN.to_le_bytes()),
            (TensorType::F32, 12, &f32::NEG_INFINITY.to_le_bytes()),
            (TensorType::F16, 6, &[0x00, 0x7c]),
            (TensorType::Q8_0, 34, &[0x01, 0xfe]),
            (TensorType::Q4_0, 18, &[0x00, 0xfc]),
            (TensorType::Q4_1, 22, &[0x00, 0x7e]),
            (TensorType::Bf16, 6, &[0x80, 0x7f]),
            (TensorType::Q4K, 144 + 2, &[0x00, 0x7c]),
            (TensorType::Q6K, 208, &[0x01, 0x7c]),
            (TensorType::Q5_0, 22, &[0x00, 0x7c]),
            (TensorType::Q5_1, 2, &[0x01, 0x7e]),
            (TensorType::Q2K, 84 + 82, &[0x00, 0x7e]),
            (TensorType::Q3K, 108, &[0x00, 0xfc]),
            (TensorType::Q5K, 2, &[0x00, 0x7c]),
            (TensorType::Iq4Nl, 18, &[0x01, 0x7c]),
            (TensorType::Iq4Xs, 136, &[0x00, 0x7e]),
            (TensorType::Mxfp4, 17, &[0xff]),
        ];
        for (tensor_type, at, spoilt) in cases {
            // No two bytes of 0x7b can be read as an infinite half, nor four as an infinite float.
            let sound = vec![0x7b; tensor_type.block_bytes() as usize * 12];
            let mut bytes = sound.clone();
            bytes[at..at + spoilt.len()].copy_from_slice(spoilt);
            for cut in 0..=bytes.len().min(160) {
                let look = |bytes: &[u8]| {
                    let mut check = FiniteCheck::new(tensor_type);
                    check.take(&bytes[..cut]) & check.take(&bytes[cut..])
                };
                assert!(look(&sound), "{tensor_type} cut at {cut}");
                assert!(!look(&bytes), "{tensor_type} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_divided_by_is_above_zero_however_the_bytes_are_cut() {
        let are_taken = |values: [f32; 3], cut: usize| {
            let bytes = values.map(f32::to_le_bytes).concat();
            let mut check = FiniteCheck::of_divisors();
            check.take(&bytes[..cut]) & check.take(&bytes[cut..])
        };
        for cut in 0..=12 {
            assert!(are_taken([1.0, 0.5, 32.0], cut));
            for spoilt in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY] {
                assert!(!are_taken([1.0, spoilt, 32.0], cut), "{spoilt} cut at {cut}");
            }
        }
    }

    #[test]
    fn weights_that_look_like_anything_are_not_scales() {
        let mut check = FiniteCheck::new(TensorType::Q8_0);
        let mut block = [0xff; 34];
        block[..2].copy_from_slice(&[0x00, 0x3c]);
        assert!(check.take(&block));
    }
}
