//! Tensor sources: which bytes of which files a tensor is made of, and what is done with them on the way. Opens nothing.

use serde::{Deserialize, Serialize};

use crate::tensor_type::TensorType;

/// Ranges of files, one after another; together they are the tensor's bytes, or become them by its [`Form`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TensorSource {
    pub ranges: Vec<FileRange>,
    #[serde(default, skip_serializing_if = "Form::is_plain")]
    pub form: Form,
    /// In place of ranges: bytes that no file has and that follow from a model's configuration, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub literal: String,
}

/// Consecutive bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileRange {
    /// The file's place in the list of the model's files.
    pub file: u32,
    /// Of the first byte, from the start of the file.
    pub offset: u64,
    pub n_bytes: u64,
}

/// What tells a tensor from the bytes that a file has of it: what llama.cpp's converter does on the way to GGUF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Form {
    /// The rows of so many heads, of which the first half and the second half take turns: row 2j of a head is row j of its first half in
    /// the file, row 2j + 1 row j of its second half (`permute` of `convert_hf_to_gguf.py`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads_taking_turns: Option<u32>,
    /// The values are of this type in the file, F16 or BF16, and F32 in the tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widened_from: Option<TensorType>,
    /// 1 is added to each value, which is F32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plus_one: bool,
}

/// Why a source cannot be that of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("its source gives {found} bytes, {expected} expected")]
    Length { found: u64, expected: u64 },
    #[error("its {n_rows} rows cannot be those of {n_heads} heads of an even number of rows each")]
    Heads { n_rows: u64, n_heads: u32 },
    #[error("its values are made of {found}, and only F16 and BF16 become F32")]
    Widening { found: TensorType },
    #[error("its literal bytes are no hexadecimal, or stand beside ranges")]
    Literal,
}

// === impl TensorSource ===

impl TensorSource {
    /// The bytes as the first file has them.
    pub fn at(offset: u64, n_bytes: u64) -> Self {
        Self { ranges: vec![FileRange { file: 0, offset, n_bytes }], ..Self::default() }
    }

    /// Whether the tensor's bytes are those of one range, as they are.
    pub fn plain(&self) -> Option<FileRange> {
        match self.ranges.as_slice() {
            [range] if self.form.is_plain() => Some(*range),
            _ => None,
        }
    }

    /// Whether what this gives is a tensor of `shape` (the fastest dimension first) of so many bytes.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn check(&self, tensor_type: TensorType, shape: &[u64], n_bytes: u64) -> Result<(), Misfit> {
        let Form { heads_taking_turns, widened_from, plus_one } = self.form;
        let is_single = tensor_type == TensorType::F32;
        if let Some(found) = widened_from
            && !(is_single && matches!(found, TensorType::F16 | TensorType::Bf16))
        {
            return Err(Misfit::Widening { found });
        }
        if plus_one && !is_single {
            return Err(Misfit::Widening { found: tensor_type });
        }
        if let Some(n_heads) = heads_taking_turns {
            let n_rows = rows_of(shape);
            if n_heads == 0 || !n_rows.is_multiple_of(2 * u64::from(n_heads)) {
                return Err(Misfit::Heads { n_rows, n_heads });
            }
        }
        let found = if self.literal.is_empty() {
            self.ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.n_bytes))
        } else {
            let is_hex = self.literal.len().is_multiple_of(2) && self.literal.bytes().all(|c| c.is_ascii_hexdigit());
            if !is_hex || !self.ranges.is_empty() || !self.form.is_plain() {
                return Err(Misfit::Literal);
            }
            self.literal.len() as u64 / 2
        };
        let expected = self.form.n_file_bytes(n_bytes);
        if found == expected { Ok(()) } else { Err(Misfit::Length { found, expected }) }
    }
}

// === impl Form ===

impl Form {
    /// Whether nothing is done.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Bytes in the file of a tensor of so many bytes.
    pub(super) fn n_file_bytes(&self, n_bytes: u64) -> u64 {
        if self.widened_from.is_some() { n_bytes / 2 } else { n_bytes }
    }
}

/// The file's row that is row `row` of the tensor, where heads of `head_rows` rows take turns.
pub(super) fn row_in_file(row: u64, head_rows: u64) -> u64 {
    let (head, within) = (row / head_rows, row % head_rows);
    head * head_rows + within % 2 * (head_rows / 2) + within / 2
}

/// Rows of a matrix, or values of a vector.
pub(super) fn rows_of(shape: &[u64]) -> u64 {
    match shape {
        [one] => *one,
        [_, rest @ ..] => rest.iter().product(),
        [] => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_head_take_turns_as_the_converter_has_them() {
        // numpy: arange(12).reshape(2, 2, 3).swapaxes(1, 2).reshape(12)
        let rows: Vec<u64> = (0..12).map(|row| row_in_file(row, 6)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn a_source_that_does_not_fit_its_tensor_is_refused_by_what_does_not() {
        let of = |form, n_bytes| TensorSource { form, ..TensorSource::at(0, n_bytes) };
        let turns = |n_heads| Form { heads_taking_turns: Some(n_heads), ..Form::default() };
        let widened = |found| Form { widened_from: Some(found), ..Form::default() };
        let f32s = |source: TensorSource, shape: &[u64]| {
            source.check(TensorType::F32, shape, shape.iter().product::<u64>() * 4)
        };
        assert_eq!(f32s(of(Form::default(), 64), &[4, 4]), Ok(()));
        assert_eq!(f32s(of(turns(2), 64), &[4, 4]), Ok(()));
        assert_eq!(f32s(of(widened(TensorType::Bf16), 8), &[4]), Ok(()));
        assert_eq!(f32s(of(turns(0), 64), &[4, 4]), Err(Misfit::Heads { n_rows: 4, n_heads: 0 }));
        assert_eq!(f32s(of(turns(3), 64), &[4, 4]), Err(Misfit::Heads { n_rows: 4, n_heads: 3 }));
        assert_eq!(f32s(of(Form::default(), 60), &[4, 4]), Err(Misfit::Length { found: 60, expected: 64 }));
        let quantised = TensorType::Q8_0;
        assert_eq!(f32s(of(widened(quantised), 8), &[4]), Err(Misfit::Widening { found: quantised }));
        let literal = |literal: &str| TensorSource { literal: literal.into(), ..TensorSource::default() };
        assert_eq!(f32s(literal("0000803f"), &[1]), Ok(()));
        assert_eq!(f32s(literal("0000803"), &[1]), Err(Misfit::Literal));
        assert_eq!(f32s(TensorSource { literal: "00".into(), ..of(Form::default(), 4) }, &[1]), Err(Misfit::Literal));
    }
}
