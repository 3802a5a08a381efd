//! Random values that are the same in every run.

use half::f16;
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
        let half = |value: f32| f16::from_f32(value).to_le_bytes();
        let mut matrix = Vec::new();
        for _ in 0..n_rows * n_cols / values {
            let scale = 0.5 + self.value().abs() / 2.0;
            match weight_type {
                WeightType::F32 => matrix.extend(self.value().to_le_bytes()),
                WeightType::F16 => matrix.extend(half(self.value())),
                WeightType::Q4_0 => matrix.extend(half(scale / 8.0)),
                WeightType::Q4_1 => {
                    matrix.extend(half(scale / 8.0));
                    matrix.extend(half(-scale));
                }
                WeightType::Q8_0 => matrix.extend(half(scale / 128.0)),
            }
            while !matrix.len().is_multiple_of(bytes) {
                matrix.push(self.bits() as u8);
            }
        }
        matrix
    }
}
