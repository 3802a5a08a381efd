//! Matrices for tests, in file bytes: every byte there is in every place, and scales that are finite.

use crate::weight_type::WeightType;

/// A matrix of so many rows and columns, which are whole blocks.
pub(crate) fn matrix(weight_type: WeightType, n_rows: usize, n_cols: usize) -> Vec<u8> {
    let (_, block_bytes) = weight_type.block();
    let n_bytes = weight_type.matrix_bytes(n_rows, n_cols).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..n_bytes).map(|i| (i * 89 + i / 13 + i / 251 * 7) as u8).collect();
    for (index, block) in bytes.chunks_exact_mut(block_bytes).enumerate() {
        // An f16 of 2^-9 to 2^-5; the upper half of an f32; an exponent of 2^-8 to 2^-1.
        let upper = [0x18, 0x1c, 0x20, 0x24, 0xa8][index % 5];
        match weight_type {
            WeightType::F32 => block[3] = upper + 0x20,
            WeightType::Bf16 => block[1] = upper + 0x20,
            WeightType::Mxfp4 => block[0] = 120 + (index % 8) as u8,
            _ => scales(weight_type).iter().for_each(|at| block[at + 1] = upper),
        }
    }
    bytes
}

/// Where a block has its f16.
fn scales(weight_type: WeightType) -> &'static [usize] {
    match weight_type {
        WeightType::F32 | WeightType::Bf16 | WeightType::Mxfp4 => &[],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
        WeightType::Q2K => &[80, 82],
        WeightType::Q3K => &[108],
        WeightType::Q6K => &[208],
        _ => &[0],
    }
}
