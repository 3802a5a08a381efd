//! The canonical layout of weights on a GPU: 16-byte words of one row each, row fastest, scales after the values.

use std::ops::Range;

use crate::shapes::MatrixShape;
use crate::weight_type::{GROUP, WeightType};

/// How the file's bytes of a group of 32 values are cut: scales first, then values.
struct Packing {
    scale_bytes: usize,
    value_bytes: usize,
}

fn packing(weight_type: WeightType) -> Packing {
    let (scale_bytes, value_bytes) = match weight_type {
        WeightType::F32 => (0, 128),
        WeightType::F16 => (0, 64),
        WeightType::Q4_0 => (2, 16),
        WeightType::Q4_1 => (4, 16),
        WeightType::Q8_0 => (2, 32),
    };
    Packing { scale_bytes, value_bytes }
}

/// Words that one row takes.
pub(crate) fn row_words(shape: MatrixShape) -> usize {
    let packing = packing(shape.weight_type);
    let n_groups = shape.n_cols / GROUP;
    n_groups * packing.value_bytes / 16 + (n_groups * packing.scale_bytes).div_ceil(16)
}

/// The rows `rows` of a matrix in file bytes as `[word][row]` of 16 bytes: first each group's values as the file orders them (which
/// is what `dot4I8Packed` wants of nibbles), then the scales of all groups close together.
pub(crate) fn pack(shape: MatrixShape, ggml: &[u8], rows: Range<usize>) -> Vec<u8> {
    let Packing { scale_bytes, value_bytes } = packing(shape.weight_type);
    let group_bytes = scale_bytes + value_bytes;
    let n_groups = shape.n_cols / GROUP;
    let n_rows = rows.len();
    let mut words = vec![0; row_words(shape) * n_rows * 16];
    let row_bytes = n_groups * group_bytes;
    for (r, row) in ggml[rows.start * row_bytes..rows.end * row_bytes].chunks_exact(row_bytes).enumerate() {
        for (g, group) in row.chunks_exact(group_bytes).enumerate() {
            let (scale, values) = group.split_at(scale_bytes);
            for (w, word) in values.chunks_exact(16).enumerate() {
                let index = g * value_bytes / 16 + w;
                words[(index * n_rows + r) * 16..][..16].copy_from_slice(word);
            }
            if scale_bytes == 0 {
                continue;
            }
            let index = n_groups * value_bytes / 16 + g * scale_bytes / 16;
            let at = (index * n_rows + r) * 16 + g * scale_bytes % 16;
            words[at..at + scale_bytes].copy_from_slice(scale);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_q4_1_matrix_lies_as_words_of_rows_with_its_scales_behind() {
        // 2 rows of 2 groups; every byte of group g of row r is 16 r + g, its scales have 8 added.
        let shape = MatrixShape { weight_type: WeightType::Q4_1, n_rows: 3, n_cols: 64 };
        let mut ggml = Vec::new();
        for (row, group) in [(0u8, 0u8), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
            ggml.extend([16 * row + group + 8; 4]);
            ggml.extend([16 * row + group; 16]);
        }
        let mut expected = Vec::new();
        expected.extend([[16u8; 16], [32; 16], [17; 16], [33; 16]].concat());
        for row in [1u8, 2] {
            expected.extend([16 * row + 8; 4]);
            expected.extend([16 * row + 9; 4]);
            expected.extend([0; 8]);
        }
        assert_eq!(row_words(shape), 3);
        assert_eq!(pack(shape, &ggml, 1..3), expected);
    }

    #[test]
    fn every_type_packs_whole_groups() {
        for weight_type in WeightType::ALL {
            let packing = packing(weight_type);
            assert_eq!(packing.scale_bytes + packing.value_bytes, weight_type.group_bytes(), "{weight_type:?}");
            assert!(packing.value_bytes.is_multiple_of(16));
        }
    }
}
