//! Weight types: how GGML files pack the values of a matrix. One table; a new type is one row of it.

use crate::blocks::{self, Block};
use crate::packing::{Codes, Packing, Scales, Table};

/// How the values of a matrix are packed in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// What the engines know of one weight type.
struct Format {
    weight_type: WeightType,
    name: &'static str,
    /// Values and bytes of the smallest unit that a file holds.
    block: (usize, usize),
    /// The canonical form, which is all that a kernel sees.
    packing: Packing,
    /// A block's bytes into its parts; floats are taken as they are.
    take_apart: fn(&[u8], &mut Block),
}

const fn format(
    weight_type: WeightType,
    name: &'static str,
    block: (usize, usize),
    packing: Packing,
    take_apart: fn(&[u8], &mut Block),
) -> Format {
    Format { weight_type, name, block, packing, take_apart }
}

const fn bits(bits: u8, offset: i8, scales: Scales) -> Packing {
    Packing::Quantised(Codes::Bits { bits, offset }, scales)
}

const fn table(table: Table, scales: Scales) -> Packing {
    Packing::Quantised(Codes::Table(table), scales)
}

const BYTES: Packing = Packing::Quantised(Codes::Bytes, Scales::Half);

/// In the order of the enum.
const FORMATS: [Format; 16] = [
    format(WeightType::F32, "f32", (1, 4), Packing::F32, |_, _| ()),
    format(WeightType::F16, "f16", (1, 2), Packing::F16, |_, _| ()),
    format(WeightType::Bf16, "bf16", (1, 2), Packing::Bf16, |_, _| ()),
    format(WeightType::Q4_0, "q4_0", (32, 18), bits(4, 8, Scales::Half), blocks::q4_0),
    format(WeightType::Q4_1, "q4_1", (32, 20), bits(4, 0, Scales::HalfMinimum), blocks::q4_1),
    format(WeightType::Q5_0, "q5_0", (32, 22), bits(5, 16, Scales::Half), blocks::q5_0),
    format(WeightType::Q5_1, "q5_1", (32, 24), bits(5, 0, Scales::HalfMinimum), blocks::q5_1),
    format(WeightType::Q8_0, "q8_0", (32, 34), BYTES, blocks::q8_0),
    format(WeightType::Q2K, "q2_k", (256, 84), bits(2, 0, Scales::NibblesMinimum16), blocks::q2_k),
    format(WeightType::Q3K, "q3_k", (256, 110), bits(3, 4, Scales::Six16), blocks::q3_k),
    format(WeightType::Q4K, "q4_k", (256, 144), bits(4, 0, Scales::BytesMinimum32), blocks::q4_k),
    format(WeightType::Q5K, "q5_k", (256, 176), bits(5, 0, Scales::BytesMinimum32), blocks::q5_k),
    format(WeightType::Q6K, "q6_k", (256, 210), bits(6, 32, Scales::Bytes16), blocks::q6_k),
    format(WeightType::Iq4Nl, "iq4_nl", (32, 18), table(Table::Iq4, Scales::Half), blocks::q4_0),
    format(WeightType::Iq4Xs, "iq4_xs", (256, 136), table(Table::Iq4, Scales::Bytes32), blocks::iq4_xs),
    format(WeightType::Mxfp4, "mxfp4", (32, 17), table(Table::Mxfp4, Scales::Exponent), blocks::mxfp4),
];

impl WeightType {
    /// Every type, in the order of the table.
    pub const ALL: [WeightType; FORMATS.len()] = {
        let mut all = [WeightType::F32; FORMATS.len()];
        let mut at = 0;
        while at < FORMATS.len() {
            all[at] = FORMATS[at].weight_type;
            at += 1;
        }
        all
    };

    /// The type that GGML gives this name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|format| format.name.eq_ignore_ascii_case(name)).map(|format| format.weight_type)
    }

    /// Values and bytes of one block as the file holds it.
    pub fn block(self) -> (usize, usize) {
        self.format().block
    }

    /// The name that GGML gives the type, in lower case.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// What the type becomes in an engine.
    pub fn packing(self) -> Packing {
        self.format().packing
    }

    /// Takes a block of file bytes apart; a type whose values are floats has no parts.
    pub(crate) fn take_apart(self, bytes: &[u8], block: &mut Block) {
        (self.format().take_apart)(bytes, block);
    }

    /// Bytes of a matrix of `n_rows` × `n_cols`; `None` when the columns are no whole blocks or the size overflows.
    pub fn matrix_bytes(self, n_rows: usize, n_cols: usize) -> Option<usize> {
        let (values, bytes) = self.block();
        if !n_cols.is_multiple_of(values) {
            return None;
        }
        (n_cols / values).checked_mul(bytes)?.checked_mul(n_rows)
    }

    fn format(self) -> &'static Format {
        &FORMATS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::{Layout, SUPER};

    #[test]
    fn every_type_has_its_own_row_in_the_table() {
        for (at, format) in FORMATS.iter().enumerate() {
            assert_eq!(format.weight_type as usize, at, "{} stands at another place in the enum", format.name);
            assert_eq!(WeightType::named(&format.name.to_uppercase()), Some(format.weight_type));
        }
        assert_eq!(WeightType::named("q8_1"), None);
    }

    #[test]
    fn a_matrix_of_no_whole_blocks_has_no_size() {
        assert_eq!(WeightType::Q4_0.matrix_bytes(2, 64), Some(72));
        assert_eq!(WeightType::Q4_0.matrix_bytes(2, 63), None);
        assert_eq!(WeightType::Q6K.matrix_bytes(2, 64), None);
        assert_eq!(WeightType::F32.matrix_bytes(usize::MAX, 2), None);
    }

    #[test]
    fn no_row_grows_by_more_than_three_parts_in_a_hundred() {
        for weight_type in WeightType::ALL {
            // What is left of the last words is under 16 bytes a plane, however long the row.
            let n_cols = 64 * SUPER * crate::packing::GROUP;
            let file = weight_type.matrix_bytes(1, n_cols).expect("whole blocks");
            for word in [4, 16] {
                let ours = Layout::new(weight_type.packing(), n_cols, word).row_bytes();
                assert!(ours >= file && ours * 100 <= file * 103, "{weight_type:?}: {ours} bytes of {file}");
            }
        }
    }
}
