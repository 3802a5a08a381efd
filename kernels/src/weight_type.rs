//! Weight types: how GGML files pack the values of a matrix. One table; a new type is one row of it.

use half::f16;

/// How the values of a matrix are packed, in GGML's own block layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    /// 32 values: f16 scale d, then 16 bytes of nibbles; value = d · (q − 8).
    Q4_0,
    /// 32 values: f16 scale d, f16 minimum m, then 16 bytes of nibbles; value = d · q + m.
    Q4_1,
    /// 32 values: f16 scale d, then 32 signed bytes; value = d · q.
    Q8_0,
}

/// What the engines know of one weight type.
struct Format {
    weight_type: WeightType,
    name: &'static str,
    /// Values and bytes of the smallest unit that a file holds.
    block: (usize, usize),
    /// One block of bytes to its values, in f32: the definition that every kernel is held to.
    dequantise: fn(&[u8], &mut [f32]),
}

const FORMATS: [Format; 5] = [
    Format { weight_type: WeightType::F32, name: "f32", block: (1, 4), dequantise: f32_block },
    Format { weight_type: WeightType::F16, name: "f16", block: (1, 2), dequantise: f16_block },
    Format { weight_type: WeightType::Q4_0, name: "q4_0", block: (32, 18), dequantise: q4_0_block },
    Format { weight_type: WeightType::Q4_1, name: "q4_1", block: (32, 20), dequantise: q4_1_block },
    Format { weight_type: WeightType::Q8_0, name: "q8_0", block: (32, 34), dequantise: q8_0_block },
];

/// Columns of every matrix come in groups of this many, whatever the type: the unit of all kernels.
pub const GROUP: usize = 32;

impl WeightType {
    /// Every type, in the order of the table.
    pub const ALL: [WeightType; 5] =
        [WeightType::F32, WeightType::F16, WeightType::Q4_0, WeightType::Q4_1, WeightType::Q8_0];

    /// Values and bytes of one block as the file holds it.
    pub fn block(self) -> (usize, usize) {
        self.format().block
    }

    /// Bytes of [`GROUP`] values.
    pub fn group_bytes(self) -> usize {
        let (values, bytes) = self.block();
        GROUP / values * bytes
    }

    /// The name that GGML gives the type, in lower case.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// Bytes of a matrix of `n_rows` × `n_cols`; `None` when the columns are no whole blocks or the size overflows.
    pub fn matrix_bytes(self, n_rows: usize, n_cols: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if !n_cols.is_multiple_of(values) {
            return None;
        }
        (n_cols / values).checked_mul(bytes)?.checked_mul(n_rows)
    }

    /// Whole blocks of file bytes to f32 values. `out` holds as many values as `ggml` packs; what is over on either side is left alone.
    pub fn dequantise(self, ggml: &[u8], out: &mut [f32]) {
        let format = self.format();
        let (values, bytes) = format.block;
        for (block, values) in ggml.chunks_exact(bytes).zip(out.chunks_exact_mut(values)) {
            (format.dequantise)(block, values);
        }
    }

    fn format(self) -> &'static Format {
        FORMATS
            .iter()
            .find(|format| format.weight_type == self)
            .expect("every weight type has its row in FORMATS (tested)")
    }
}

fn f32_block(block: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

fn f16_block(block: &[u8], out: &mut [f32]) {
    out[0] = half_at(block, 0);
}

fn q4_0_block(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (j, q) in block[2..18].iter().enumerate() {
        out[j] = d * (f32::from(q & 15) - 8.0);
        out[j + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1_block(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (j, q) in block[4..20].iter().enumerate() {
        out[j] = d * f32::from(q & 15) + m;
        out[j + 16] = d * f32::from(q >> 4) + m;
    }
}

fn q8_0_block(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (j, q) in block[2..34].iter().enumerate() {
        out[j] = d * f32::from(q.cast_signed());
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_row_in_the_table() {
        for weight_type in WeightType::ALL {
            let found = FORMATS.iter().filter(|f| f.weight_type == weight_type).count();
            assert_eq!(found, 1, "{weight_type:?}");
        }
        assert_eq!(FORMATS.len(), WeightType::ALL.len());
    }

    #[test]
    fn known_bytes_of_q4_0_become_known_values() {
        // d = 0.5 (0x3800); byte 0 holds 0 and 15, byte 15 holds 9 and 1, the others 8 and 8.
        let mut block = [0x88u8; 18];
        block[..2].copy_from_slice(&[0x00, 0x38]);
        block[2] = 0xf0;
        block[17] = 0x19;
        let mut expected = [0f32; 32];
        expected[0] = -4.0;
        expected[16] = 3.5;
        expected[15] = 0.5;
        expected[31] = -3.5;
        let mut found = [9f32; 32];
        WeightType::Q4_0.dequantise(&block, &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn known_bytes_of_q4_1_become_known_values() {
        // d = 2 (0x4000), m = -1 (0xbc00); byte 3 holds 5 and 10.
        let mut block = [0u8; 20];
        block[..4].copy_from_slice(&[0x00, 0x40, 0x00, 0xbc]);
        block[7] = 0xa5;
        let mut expected = [-1f32; 32];
        expected[3] = 9.0;
        expected[19] = 19.0;
        let mut found = [0f32; 32];
        WeightType::Q4_1.dequantise(&block, &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn known_bytes_of_q8_0_become_known_values() {
        // d = 0.25 (0x3400); values 127, -128 and -1 at the ends.
        let mut block = [0u8; 34];
        block[..2].copy_from_slice(&[0x00, 0x34]);
        block[2] = 127;
        block[3] = 0x80;
        block[33] = 0xff;
        let mut expected = [0f32; 32];
        expected[0] = 31.75;
        expected[1] = -32.0;
        expected[31] = -0.25;
        let mut found = [9f32; 32];
        WeightType::Q8_0.dequantise(&block, &mut found);
        assert_eq!(found, expected);
    }

    #[test]
    fn known_bytes_of_f16_and_f32_become_known_values() {
        let mut found = [0f32; 3];
        // 1, the largest f16, the smallest subnormal.
        WeightType::F16.dequantise(&[0x00, 0x3c, 0xff, 0x7b, 0x01, 0x00], &mut found);
        assert_eq!(found, [1.0, 65504.0, 2f32.powi(-24)]);
        WeightType::F32.dequantise(&[0x00, 0x00, 0x80, 0xbf], &mut found[..1]);
        assert_eq!(found[0], -1.0);
    }

    #[test]
    fn a_matrix_of_no_whole_blocks_has_no_size() {
        assert_eq!(WeightType::Q4_0.matrix_bytes(2, 64), Some(72));
        assert_eq!(WeightType::Q4_0.matrix_bytes(2, 63), None);
        assert_eq!(WeightType::F32.matrix_bytes(usize::MAX, 2), None);
    }
}
