//! Metadata: the typed keys and values at the head of a GGUF file.

use std::collections::BTreeMap;
use std::io::Read;

use super::source::Source;
use super::{GgufError, MAX_NAME_BYTES};

/// The file's keys and values; getters name the key in their errors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
}

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer of the file.
    Unsigned(u64),
    /// Any signed integer of the file.
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// A metadata array; all of one type, never an array of arrays.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    Numbers(Numbers),
    Strings(Vec<String>),
}

/// An array of numbers as the file has it: a vocabulary's scores may be millions, and most are never asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// GGUF's number of their type.
    value_type: u32,
    bytes: Box<[u8]>,
}

/// The longest string value: a chat template or a licence text, far below this.
const MAX_STRING_BYTES: u64 = 16 << 20;
/// The largest known vocabularies have 260,000 tokens, with about as many merges.
const MAX_ARRAY_LEN: u64 = 4 << 20;
/// Bound of all values together, counted in bytes of the file.
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// GGUF's numbers for value types.
mod number {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

// === impl Metadata ===

impl Metadata {
    pub(super) fn read(source: &mut Source<'_, impl Read>, n_keys: u64) -> Result<Self, GgufError> {
        let mut entries = BTreeMap::new();
        let start = source.position();
        for idx in 0..n_keys {
            let key = source.string(&format!("the name of metadata key {idx}"), MAX_NAME_BYTES)?;
            let value = read_value(source, &key)?;
            if source.position() - start > MAX_METADATA_BYTES {
                let count = source.position() - start;
                let what = "the metadata in bytes".to_owned();
                return Err(GgufError::TooMany { what, offset: start, count, limit: MAX_METADATA_BYTES });
            }
            if entries.contains_key(&key) {
                return Err(GgufError::DuplicateKey { key });
            }
            entries.insert(key, value);
        }
        Ok(Self { entries })
    }

    /// Puts in a value, in place of another of that key.
    pub(crate) fn set(&mut self, key: String, value: Value) {
        self.entries.insert(key, value);
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Every key with its value, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A string that has to be there.
    pub fn string(&self, key: &str) -> Result<&str, GgufError> {
        required(key, self.optional_string(key)?)
    }

    pub fn optional_string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An integer from 0 to 2³²-1 that has to be there.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, self.optional_u32(key)?)
    }

    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an integer from 0 to 4294967295", |value| unsigned(value).and_then(|n| u32::try_from(n).ok()))
    }

    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer from 0", unsigned)
    }

    /// A finite number that has to be there.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, self.optional_f32(key)?)
    }

    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a finite number", |value| {
            let number = match *value {
                Value::F32(number) => number,
                Value::F64(number) => number as f32,
                _ => return None,
            };
            number.is_finite().then_some(number)
        })
    }

    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(yes) => Some(*yes),
            _ => None,
        })
    }

    /// An array of strings that has to be there.
    pub fn strings(&self, key: &str) -> Result<&[String], GgufError> {
        let found = self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Strings(strings)) => Some(strings.as_slice()),
            _ => None,
        })?;
        required(key, found)
    }

    /// An array of integers, where there is one.
    pub fn optional_integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(Array::Numbers(numbers)) => numbers.integers(),
            _ => None,
        })
    }

    /// An array of numbers that has to be there, as f32.
    pub fn floats(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        let found = self.typed(key, "an array of numbers", |value| match value {
            Value::Array(Array::Numbers(numbers)) => numbers.floats(),
            _ => None,
        })?;
        required(key, found)
    }

    /// An array of bytes, where there is one.
    pub fn optional_bytes(&self, key: &str) -> Result<Option<&[u8]>, GgufError> {
        self.typed(key, "an array of bytes", |value| match value {
            Value::Array(Array::Numbers(numbers)) => {
                matches!(numbers.value_type, number::U8 | number::I8).then_some(&*numbers.bytes)
            }
            _ => None,
        })
    }

    /// An array of booleans, where there is one.
    pub fn optional_bools(&self, key: &str) -> Result<Option<Vec<bool>>, GgufError> {
        self.typed(key, "an array of booleans", |value| match value {
            Value::Array(Array::Numbers(Numbers { value_type: number::BOOL, bytes })) => {
                Some(bytes.iter().map(|byte| *byte != 0).collect())
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match pick(value) {
            Some(picked) => Ok(Some(picked)),
            None => Err(GgufError::WrongType { key: key.to_owned(), found: describe(value), expected }),
        }
    }
}

// === impl Numbers ===

impl Numbers {
    /// Bytes that they take, here as in the file.
    pub fn n_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All of them, where they are fractions.
    fn floats(&self) -> Option<Vec<f32>> {
        match self.value_type {
            number::F32 => Some(self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            number::F64 => {
                Some(self.bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect())
            }
            _ => None,
        }
    }

    /// All of them, where they are integers of at most 63 bits.
    fn integers(&self) -> Option<Vec<i64>> {
        fn read<const N: usize>(bytes: &[u8], decode: impl Fn([u8; N]) -> Option<i64>) -> Option<Vec<i64>> {
            bytes.as_chunks::<N>().0.iter().map(|number| decode(*number)).collect()
        }
        match self.value_type {
            number::U8 => read(&self.bytes, |[byte]| Some(i64::from(byte))),
            number::I8 => read(&self.bytes, |bytes| Some(i64::from(i8::from_le_bytes(bytes)))),
            number::U16 => read(&self.bytes, |bytes| Some(i64::from(u16::from_le_bytes(bytes)))),
            number::I16 => read(&self.bytes, |bytes| Some(i64::from(i16::from_le_bytes(bytes)))),
            number::U32 => read(&self.bytes, |bytes| Some(i64::from(u32::from_le_bytes(bytes)))),
            number::I32 => read(&self.bytes, |bytes| Some(i64::from(i32::from_le_bytes(bytes)))),
            number::U64 => read(&self.bytes, |bytes| i64::try_from(u64::from_le_bytes(bytes)).ok()),
            number::I64 => read(&self.bytes, |bytes| Some(i64::from_le_bytes(bytes))),
            _ => None,
        }
    }
}

fn required<T>(key: &str, found: Option<T>) -> Result<T, GgufError> {
    found.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
}

fn unsigned(value: &Value) -> Option<u64> {
    match *value {
        Value::Unsigned(number) => Some(number),
        Value::Signed(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Unsigned(number) => format!("the integer {number}"),
        Value::Signed(number) => format!("the integer {number}"),
        Value::F32(number) => format!("the number {number}"),
        Value::F64(number) => format!("the number {number}"),
        Value::Bool(yes) => format!("{yes}"),
        Value::String(text) => {
            format!("the string {:?}", text.chars().take(40).collect::<String>())
        }
        Value::Array(_) => "an array".to_owned(),
    }
}

fn read_value(source: &mut Source<'_, impl Read>, key: &str) -> Result<Value, GgufError> {
    let what = format!("metadata `{key}`");
    let offset = source.position();
    let value_type = source.u32(&what)?;
    Ok(match value_type {
        number::U8 => Value::Unsigned(u64::from(source.array::<1>(&what)?[0])),
        number::U16 => Value::Unsigned(u64::from(u16::from_le_bytes(source.array(&what)?))),
        number::U32 => Value::Unsigned(u64::from(source.u32(&what)?)),
        number::U64 => Value::Unsigned(source.u64(&what)?),
        number::I8 => Value::Signed(i64::from(i8::from_le_bytes(source.array(&what)?))),
        number::I16 => Value::Signed(i64::from(i16::from_le_bytes(source.array(&what)?))),
        number::I32 => Value::Signed(i64::from(i32::from_le_bytes(source.array(&what)?))),
        number::I64 => Value::Signed(i64::from_le_bytes(source.array(&what)?)),
        number::F32 => Value::F32(f32::from_le_bytes(source.array(&what)?)),
        number::F64 => Value::F64(f64::from_le_bytes(source.array(&what)?)),
        number::BOOL => Value::Bool(source.array::<1>(&what)?[0] != 0),
        number::STRING => Value::String(source.string(&what, MAX_STRING_BYTES)?),
        number::ARRAY => Value::Array(read_array(source, key, &what)?),
        found => {
            return Err(GgufError::ValueType { key: key.to_owned(), offset, found });
        }
    })
}

fn read_array(source: &mut Source<'_, impl Read>, key: &str, what: &str) -> Result<Array, GgufError> {
    let offset = source.position();
    let value_type = source.u32(what)?;
    let len = source.count(what, MAX_ARRAY_LEN)?;
    Ok(match value_type {
        number::U8 | number::I8 | number::BOOL => numbers(source, what, len, value_type, 1)?,
        number::U16 | number::I16 => numbers(source, what, len, value_type, 2)?,
        number::U32 | number::I32 | number::F32 => numbers(source, what, len, value_type, 4)?,
        number::U64 | number::I64 | number::F64 => numbers(source, what, len, value_type, 8)?,
        number::STRING => {
            // Each string takes at least the 8 bytes of its length: the count cannot make us reserve more than that.
            source.require(what, len.saturating_mul(8))?;
            let mut strings = Vec::with_capacity(len as usize);
            let mut total = 0;
            for _ in 0..len {
                let text = source.string(what, MAX_STRING_BYTES)?;
                total += text.len() as u64;
                if total > MAX_METADATA_BYTES {
                    let (what, limit) = (format!("{what} in bytes"), MAX_METADATA_BYTES);
                    return Err(GgufError::TooMany { what, offset, count: total, limit });
                }
                strings.push(text);
            }
            Array::Strings(strings)
        }
        number::ARRAY => {
            return Err(GgufError::NestedArray { key: key.to_owned(), offset });
        }
        found => {
            return Err(GgufError::ValueType { key: key.to_owned(), offset, found });
        }
    })
}

fn numbers(
    source: &mut Source<'_, impl Read>,
    what: &str,
    len: u64,
    value_type: u32,
    width: u64,
) -> Result<Array, GgufError> {
    let bytes = source.bytes(what, len.saturating_mul(width))?.into_boxed_slice();
    Ok(Array::Numbers(Numbers { value_type, bytes }))
}
