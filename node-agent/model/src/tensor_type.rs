//! Tensor types: how GGML packs the values of a tensor into blocks of bytes.

use std::fmt;

/// The type of a tensor's values, with GGML's number for it.
///
/// Values are packed along the fastest dimension, a block at a time; a row is a whole number of blocks. In JSON and
/// in text a type has the name that GGUF tools print, for example `Q4_1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq2Xxs,
    Iq2Xs,
    Iq3Xxs,
    Iq1S,
    Iq4Nl,
    Iq3S,
    Iq2S,
    Iq4Xs,
    I8,
    I16,
    I32,
    I64,
    F64,
    Iq1M,
    Bf16,
    Tq1_0,
    Tq2_0,
    Mxfp4,
}

/// A name that no tensor type has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no tensor type; names are as GGUF tools print them, for example `Q4_1` or `F16`")]
pub struct UnknownTensorType(pub String);

/// Where a block has numbers that may be none. Everything else of it is integers, which are sound whatever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// The block is an f32.
    Single,
    /// The block is a bf16.
    Brain,
    /// f16 at these bytes.
    Halves(&'static [usize]),
    /// The first byte is an exponent, of which 255 is no number (OCP Microscaling Formats 1.0, E8M0).
    Exponent,
    /// No kernel multiplies with the type, so nobody looks.
    Unknown,
}

use Numbers::{Brain, Exponent, Halves, Single, Unknown};

/// Type, GGML number, name, values a block, bytes a block (`ggml_type` and the `block_*` structs of ggml), and where its numbers lie.
const TABLE: [(TensorType, u32, &str, u32, u32, Numbers); 32] = [
    (TensorType::F32, 0, "F32", 1, 4, Single),
    (TensorType::F16, 1, "F16", 1, 2, Halves(&[0])),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18, Halves(&[0])),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20, Halves(&[0, 2])),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22, Halves(&[0])),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24, Halves(&[0, 2])),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34, Halves(&[0])),
    (TensorType::Q8_1, 9, "Q8_1", 32, 36, Unknown),
    (TensorType::Q2K, 10, "Q2_K", 256, 84, Halves(&[80, 82])),
    (TensorType::Q3K, 11, "Q3_K", 256, 110, Halves(&[108])),
    (TensorType::Q4K, 12, "Q4_K", 256, 144, Halves(&[0, 2])),
    (TensorType::Q5K, 13, "Q5_K", 256, 176, Halves(&[0, 2])),
    (TensorType::Q6K, 14, "Q6_K", 256, 210, Halves(&[208])),
    (TensorType::Q8K, 15, "Q8_K", 256, 292, Unknown),
    (TensorType::Iq2Xxs, 16, "IQ2_XXS", 256, 66, Unknown),
    (TensorType::Iq2Xs, 17, "IQ2_XS", 256, 74, Unknown),
    (TensorType::Iq3Xxs, 18, "IQ3_XXS", 256, 98, Unknown),
    (TensorType::Iq1S, 19, "IQ1_S", 256, 50, Unknown),
    (TensorType::Iq4Nl, 20, "IQ4_NL", 32, 18, Halves(&[0])),
    (TensorType::Iq3S, 21, "IQ3_S", 256, 110, Unknown),
    (TensorType::Iq2S, 22, "IQ2_S", 256, 82, Unknown),
    (TensorType::Iq4Xs, 23, "IQ4_XS", 256, 136, Halves(&[0])),
    (TensorType::I8, 24, "I8", 1, 1, Unknown),
    (TensorType::I16, 25, "I16", 1, 2, Unknown),
    (TensorType::I32, 26, "I32", 1, 4, Unknown),
    (TensorType::I64, 27, "I64", 1, 8, Unknown),
    (TensorType::F64, 28, "F64", 1, 8, Unknown),
    (TensorType::Iq1M, 29, "IQ1_M", 256, 56, Unknown),
    (TensorType::Bf16, 30, "BF16", 1, 2, Brain),
    (TensorType::Tq1_0, 34, "TQ1_0", 256, 54, Unknown),
    (TensorType::Tq2_0, 35, "TQ2_0", 256, 66, Unknown),
    (TensorType::Mxfp4, 39, "MXFP4", 32, 17, Exponent),
];

// === impl TensorType ===

impl TensorType {
    /// The types that kernels multiply with. Held to the kernels' own by a test of who has both.
    pub fn computed() -> impl Iterator<Item = TensorType> {
        TABLE.iter().map(|row| row.0).filter(|tensor_type| tensor_type.is_computed())
    }

    /// Whether a kernel multiplies with it.
    pub fn is_computed(self) -> bool {
        self.numbers() != Unknown
    }

    /// Where a block has numbers that may be none.
    pub(crate) fn numbers(self) -> Numbers {
        self.row().5
    }

    /// The type with GGML's `number`; `None` for a removed or unknown one.
    pub fn from_number(number: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// GGML's number for this type, as it stands in a file.
    pub fn number(self) -> u32 {
        self.row().1
    }

    /// The name that GGUF tools print, for example `Q4_1`.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Values in one block.
    pub fn block_values(self) -> u32 {
        self.row().3
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u32 {
        self.row().4
    }

    /// Bytes of a tensor of `shape` (fastest dimension first).
    ///
    /// `None` when the shape is empty or holds a 0, when a row is no whole number of blocks, or when the size does
    /// not fit 64 bits.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let block_values = u64::from(self.block_values());
        let row = *shape.first()?;
        if shape.contains(&0) || row % block_values != 0 {
            return None;
        }
        let row_bytes = (row / block_values).checked_mul(u64::from(self.block_bytes()))?;
        shape[1..].iter().try_fold(row_bytes, |bytes, &n| bytes.checked_mul(n))
    }

    fn row(self) -> &'static (TensorType, u32, &'static str, u32, u32, Numbers) {
        // The table is in the order of the enum; a unit test holds it to that.
        &TABLE[self as usize]
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for TensorType {
    type Err = UnknownTensorType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0).ok_or_else(|| UnknownTensorType(name.to_owned()))
    }
}

impl serde::Serialize for TensorType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for TensorType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_type_finds_its_own_row_by_number_and_by_name() {
        for (idx, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, idx, "{} stands at another place in the enum", row.2);
            assert_eq!(TensorType::from_number(row.1), Some(row.0));
            assert_eq!(row.2.parse::<TensorType>().unwrap(), row.0);
        }
        assert_eq!(TensorType::from_number(4), None, "Q4_2 was removed from ggml");
    }

    #[test]
    fn bytes_count_whole_blocks_and_refuse_what_cannot_be() {
        assert_eq!(TensorType::Q4_1.bytes(&[576, 192]), Some(576 / 32 * 20 * 192));
        assert_eq!(TensorType::Q8_0.bytes(&[576, 49152]), Some(30_081_024));
        assert_eq!(TensorType::F32.bytes(&[3]), Some(12));
        assert_eq!(TensorType::Q4_0.bytes(&[33]), None);
        assert_eq!(TensorType::F32.bytes(&[]), None);
        assert_eq!(TensorType::F32.bytes(&[4, 0]), None);
        assert_eq!(TensorType::F32.bytes(&[u64::MAX, 2]), None);
    }
}
