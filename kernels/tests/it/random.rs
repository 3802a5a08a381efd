//! Random values that are the same in every run.

use half::{bf16, f16};
use polyphony_kernels::WeightType;

/// A generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    /// A matrix in file bytes whose values are between about -1 and 1.
    pub fn matrix(&mut self, weight_type: WeightType, n_rows: usize, n_cols: usize) -> Vec<u8> {
        let (values, bytes) = weight_type.block();
        let mut matrix = Vec::new();
        for _ in 0..n_rows * n_cols / values {
            match weight_type {
                WeightType::F32 => matrix.extend(self.value().to_le_bytes()),
                WeightType::F16 => matrix.extend(f16::from_f32(self.value()).to_le_bytes()),
                WeightType::Bf16 => matrix.extend(bf16::from_f32(self.value()).to_le_bytes()),
                _ => {
                    let mut block: Vec<u8> = (0..bytes).map(|_| self.bits() as u8).collect();
                    let scale = 0.5 + self.value().abs() / 2.0;
                    for (at, part) in scales(weight_type) {
                        block[at..at + 2].copy_from_slice(&f16::from_f32(part * scale).to_le_bytes());
                    }
                    if weight_type == WeightType::Mxfp4 {
                        block[0] = 125 + (block[0] & 1);
                    }
                    matrix.extend(block);
                }
            }
        }
        matrix
    }
}

/// Where the scales of a block lie, and what they are for values up to about 1.
pub fn scales(weight_type: WeightType) -> Vec<(usize, f32)> {
    match weight_type {
        WeightType::F32 | WeightType::F16 | WeightType::Bf16 | WeightType::Mxfp4 => vec![],
        WeightType::Q4_0 => vec![(0, 1.0 / 8.0)],
        WeightType::Q4_1 => vec![(0, 1.0 / 8.0), (2, -1.0)],
        WeightType::Q5_0 => vec![(0, 1.0 / 16.0)],
        WeightType::Q5_1 => vec![(0, 1.0 / 16.0), (2, -1.0)],
        WeightType::Q8_0 => vec![(0, 1.0 / 128.0)],
        WeightType::Q2K => vec![(80, 1.0 / 24.0), (82, 1.0 / 16.0)],
        WeightType::Q3K => vec![(108, 1.0 / 128.0)],
        WeightType::Q4K => vec![(0, 1.0 / 512.0), (2, 1.0 / 64.0)],
        WeightType::Q5K => vec![(0, 1.0 / 1024.0), (2, 1.0 / 64.0)],
        WeightType::Q6K => vec![(208, 1.0 / 4096.0)],
        WeightType::Iq4Nl => vec![(0, 1.0 / 128.0)],
        WeightType::Iq4Xs => vec![(0, 1.0 / 4096.0)],
    }
}
