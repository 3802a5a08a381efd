//! Safetensors: the header of one file, which lists its tensors. Reads no tensor data.
//!
//! The format is that of the `safetensors` crate: 8 bytes of length, as many of JSON, then the tensors' bytes without gaps. The crate itself
//! wants the whole file in memory and takes a name that stands twice; this reads the header as it comes and believes none of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::tensor_type::TensorType;

/// One tensor of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) dtype: &'static Dtype,
    /// The slowest dimension first: a matrix is `[outputs, inputs]`.
    pub(super) shape: Vec<u64>,
    /// Of the first byte, from the start of the file.
    pub(super) offset: u64,
    pub(super) n_bytes: u64,
}

/// A type of values that the format knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    pub(super) name: &'static str,
    n_bytes: u64,
    /// The same among GGUF's.
    pub(super) tensor_type: Option<TensorType>,
}

/// Why a file is no safetensors file that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SafetensorsError {
    #[error("reading it failed: {0}")]
    Io(#[source] io::Error),
    #[error("it ends at byte {file_len}, within the 8 bytes that say how long its header is; it is truncated, fetch it again")]
    Truncated { file_len: u64 },
    #[error(
        "its header is said to have {found} bytes, but {limit} can be there; it is no safetensors file, or truncated or damaged: fetch it again"
    )]
    HeaderLength { found: u64, limit: u64 },
    #[error("its header is damaged: {0}; fetch it again")]
    Header(#[source] serde_json::Error),
    #[error("`{tensor}.dtype` is {found:?}, which is unknown; known are: {known}")]
    Dtype { tensor: String, found: String, known: String },
    #[error("`{tensor}.data_offsets` make {found} bytes, but its shape {shape:?} of {dtype} needs {expected}; it is damaged, fetch it again")]
    Size { tensor: String, dtype: &'static str, shape: Vec<u64>, found: u64, expected: String },
    #[error(
        "`{tensor}.data_offsets` are {from} to {to}, but the data have {n_data} bytes; it is truncated or damaged, fetch it again"
    )]
    Outside { tensor: String, from: u64, to: u64, n_data: u64 },
    #[error("the bytes of `{first}` and `{second}` overlap; it is damaged, fetch it again")]
    Overlap { first: String, second: String },
    #[error("{n_bytes} bytes of its data are no tensor's, those before byte {at} of them; it is damaged, fetch it again")]
    Gap { at: u64, n_bytes: u64 },
}

/// The longest header that the `safetensors` crate reads.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const MAX_TENSORS: usize = 100_000;
const MAX_NAME_BYTES: usize = 1024;
const MAX_DIMENSIONS: usize = 8;
/// The header's one key that is no tensor.
const METADATA: &str = "__metadata__";

const DTYPES: [Dtype; 15] = [
    Dtype { name: "F32", n_bytes: 4, tensor_type: Some(TensorType::F32) },
    Dtype { name: "F16", n_bytes: 2, tensor_type: Some(TensorType::F16) },
    Dtype { name: "BF16", n_bytes: 2, tensor_type: Some(TensorType::Bf16) },
    Dtype { name: "F64", n_bytes: 8, tensor_type: Some(TensorType::F64) },
    Dtype { name: "I8", n_bytes: 1, tensor_type: Some(TensorType::I8) },
    Dtype { name: "I16", n_bytes: 2, tensor_type: Some(TensorType::I16) },
    Dtype { name: "I32", n_bytes: 4, tensor_type: Some(TensorType::I32) },
    Dtype { name: "I64", n_bytes: 8, tensor_type: Some(TensorType::I64) },
    Dtype { name: "BOOL", n_bytes: 1, tensor_type: None },
    Dtype { name: "U8", n_bytes: 1, tensor_type: None },
    Dtype { name: "U16", n_bytes: 2, tensor_type: None },
    Dtype { name: "U32", n_bytes: 4, tensor_type: None },
    Dtype { name: "U64", n_bytes: 8, tensor_type: None },
    Dtype { name: "F8_E4M3", n_bytes: 1, tensor_type: None },
    Dtype { name: "F8_E5M2", n_bytes: 1, tensor_type: None },
];

/// The tensors of a file of `file_len` bytes, by name; `reader` stands at its start.
///
/// # Errors
/// [`SafetensorsError`] with the tensor and the field.
pub(super) fn read(reader: &mut impl Read, file_len: u64) -> Result<BTreeMap<String, Listed>, SafetensorsError> {
    let Some(after_length) = file_len.checked_sub(8) else { return Err(SafetensorsError::Truncated { file_len }) };
    let mut length = [0; 8];
    reader.read_exact(&mut length).map_err(SafetensorsError::Io)?;
    let (found, limit) = (u64::from_le_bytes(length), after_length.min(MAX_HEADER_BYTES));
    if found > limit {
        return Err(SafetensorsError::HeaderLength { found, limit });
    }
    let json = BufReader::with_capacity(1 << 16, reader.take(found));
    let Header(entries) = serde_json::from_reader(json).map_err(SafetensorsError::Header)?;
    let n_data = after_length - found;
    let listed = entries.into_iter().map(|(name, entry)| Ok((name.clone(), entry.checked(name, 8 + found, n_data)?)));
    let listed = listed.collect::<Result<BTreeMap<_, _>, _>>()?;
    check_layout(&listed, 8 + found, n_data)?;
    Ok(listed)
}

/// No two tensors over the same bytes, and no bytes that are none's.
fn check_layout(listed: &BTreeMap<String, Listed>, data_start: u64, n_data: u64) -> Result<(), SafetensorsError> {
    let mut by_offset: Vec<(&String, &Listed)> = listed.iter().collect();
    by_offset.sort_by_key(|(_, of)| (of.offset, of.n_bytes));
    let overlap = by_offset.windows(2).find(|pair| pair[0].1.offset + pair[0].1.n_bytes > pair[1].1.offset);
    if let Some(pair) = overlap {
        return Err(SafetensorsError::Overlap { first: pair[0].0.clone(), second: pair[1].0.clone() });
    }
    let mut end = data_start;
    for begin in by_offset.iter().map(|(_, of)| (of.offset, of.n_bytes)).chain([(data_start + n_data, 0)]) {
        if begin.0 > end {
            return Err(SafetensorsError::Gap { at: begin.0 - data_start, n_bytes: begin.0 - end });
        }
        end = begin.0 + begin.1;
    }
    Ok(())
}

/// What the header says of a tensor.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Dimensions,
    data_offsets: [u64; 2],
}

// === impl Entry ===

impl Entry {
    fn checked(self, tensor: String, data_start: u64, n_data: u64) -> Result<Listed, SafetensorsError> {
        let Some(dtype) = DTYPES.iter().find(|known| known.name == self.dtype) else {
            let known = DTYPES.map(|known| known.name).join(", ");
            let found = self.dtype.chars().take(40).collect();
            return Err(SafetensorsError::Dtype { tensor, found, known });
        };
        let [from, to] = self.data_offsets;
        if from > to || to > n_data {
            return Err(SafetensorsError::Outside { tensor, from, to, n_data });
        }
        let Dimensions(shape) = self.shape;
        let expected = shape.iter().try_fold(dtype.n_bytes, |bytes, n| bytes.checked_mul(*n));
        let found = to - from;
        if expected != Some(found) {
            let expected = expected.map_or_else(|| "more than can be".to_owned(), |bytes| bytes.to_string());
            return Err(SafetensorsError::Size { tensor, dtype: dtype.name, shape, found, expected });
        }
        Ok(Listed { dtype, shape, offset: data_start + from, n_bytes: found })
    }
}

struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if name.len() > MAX_NAME_BYTES || entries.len() == MAX_TENSORS {
                        let why = format!("more than {MAX_TENSORS} tensors, or a name of more than {MAX_NAME_BYTES} bytes");
                        return Err(A::Error::custom(why));
                    }
                    let entry = map.next_value::<Entry>().map_err(|error| A::Error::custom(format!("`{name}`: {error}")))?;
                    if entries.contains_key(&name) {
                        return Err(A::Error::custom(format!("tensor `{name}` stands in it twice")));
                    }
                    entries.insert(name, entry);
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

struct Dimensions(Vec<u64>);

impl<'de> Deserialize<'de> for Dimensions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Dimensions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`shape` of at most {MAX_DIMENSIONS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Dimensions, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() == MAX_DIMENSIONS {
                        return Err(A::Error::invalid_length(MAX_DIMENSIONS + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Dimensions(shape))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn file(json: &str, n_data: usize) -> Vec<u8> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file.resize(file.len() + n_data, 7);
        file
    }

    fn refusal(json: &str, n_data: usize) -> String {
        let file = file(json, n_data);
        read(&mut file.as_slice(), file.len() as u64).unwrap_err().to_string()
    }

    const SOUND: &str = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}  "#;

    #[test]
    fn tensors_are_listed_with_their_places() {
        let file = file(SOUND, 12);
        let listed = read(&mut file.as_slice(), file.len() as u64).unwrap();
        let data = file.len() as u64 - 12;
        let a = &listed["a"];
        assert_eq!((a.dtype.tensor_type, a.shape.as_slice(), a.offset, a.n_bytes), (Some(TensorType::Bf16), &[1, 2][..], data, 4));
        assert_eq!((listed["b"].offset, listed["b"].n_bytes), (data + 4, 8));
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_tensor_and_the_field() {
        let one = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
        let table: [(String, usize, &str); 14] = [
            (one(r#""dtype":"F4","shape":[2],"data_offsets":[0,8]"#), 8, "`a.dtype` is \"F4\""),
            (one(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#), 8, "`a.data_offsets` make 8 bytes, but its shape [3] of F32 needs 12"),
            (one(r#""dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]"#), 8, "more than can be"),
            (one(r#""dtype":"F32","shape":[2],"data_offsets":[0,12]"#), 8, "`a.data_offsets` are 0 to 12, but the data have 8"),
            (one(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#), 8, "`a.data_offsets` are 8 to 0"),
            (one(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#), 9, "1 bytes of its data are no tensor's"),
            (one(r#""dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1"#), 8, "`a`: unknown field `x`"),
            (one(r#""dtype":"F32","shape":[2]"#), 8, "`a`: missing field `data_offsets`"),
            (one(r#""dtype":"F32","shape":[-2],"data_offsets":[0,8]"#), 8, "`a`: invalid value"),
            (one(r#""dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]"#), 4, "`shape` of at most 8 sizes"),
            (format!(r#"{{"a":{0},"a":{0}}}"#, r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 8, "tensor `a` stands in it twice"),
            (SOUND.replace("[4,12]", "[2,10]"), 12, "the bytes of `a` and `b` overlap"),
            (format!("{{\"a\":{}", "[".repeat(100_000)), 8, "header is damaged"),
            ("[]".to_owned(), 8, "header is damaged"),
        ];
        for (json, n_data, words) in table {
            let error = refusal(&json, n_data);
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }

    #[test]
    fn a_header_longer_than_the_file_reserves_nothing() {
        for found in [9, 100_000_001, u64::MAX] {
            let mut file = found.to_le_bytes().to_vec();
            file.extend_from_slice(b"{}      ");
            let error = read(&mut file.as_slice(), file.len() as u64).unwrap_err();
            assert!(matches!(error, SafetensorsError::HeaderLength { limit: 8, .. }), "{error}");
        }
        assert!(matches!(read(&mut [0; 7].as_slice(), 7), Err(SafetensorsError::Truncated { file_len: 7 })));
    }

    #[test]
    fn a_file_cut_at_any_length_is_refused() {
        let whole = file(SOUND, 12);
        for len in 0..whole.len() {
            assert!(read(&mut &whole[..len], len as u64).is_err(), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_listed_lies_within_the_file_whatever_its_bytes_are(
            changes in prop::collection::vec((0..SOUND.len() + 20, any::<u8>()), 0..4),
        ) {
            let mut bytes = file(SOUND, 12);
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            for listed in read(&mut bytes.as_slice(), bytes.len() as u64).unwrap_or_default().into_values() {
                prop_assert!(listed.offset + listed.n_bytes <= bytes.len() as u64);
            }
        }
    }
}
