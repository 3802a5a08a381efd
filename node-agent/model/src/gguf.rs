//! GGUF files: header, metadata and the place of every tensor. Reads no tensor data.
//!
//! The format is `docs/gguf.md` of ggml, versions 2 and 3. A file is taken as hostile: every count and length is
//! checked against what is left of the file before anything is allocated for it. What other formats say is put into the same
//! words ([`crate::SourceFiles`]).

mod metadata;
mod source;

use std::io::{Read, Seek};
use std::path::Path;

pub use metadata::{Array, Metadata, Numbers, Value};

use crate::source_files::TensorSource;
use crate::tensor_type::TensorType;
use source::Source;

/// What a model's files say of it, in the words of GGUF, and where each tensor lies.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// Version of the format, 2 or 3.
    pub version: u32,
    pub metadata: Metadata,
    /// In the order of the files' directories.
    pub tensors: Vec<GgufTensor>,
    /// Bytes of all files together.
    pub file_len: u64,
}

/// One tensor of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    pub name: String,
    /// GGML order: the fastest dimension first. A matrix is `[inputs, outputs]`.
    pub shape: Vec<u64>,
    pub tensor_type: TensorType,
    pub n_bytes: u64,
    pub source: TensorSource,
}

/// A tensor whose place is known from the start of the data alone.
struct Entry {
    tensor: GgufTensor,
    /// Of its first byte, from there.
    offset: u64,
}

/// Why a file is no GGUF file that can be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("reading the model file failed at byte {offset}: {source}")]
    Io { offset: u64, source: std::io::Error },
    #[error("the file begins with {found:02x?}, not with `GGUF`: it is no GGUF model; check what was downloaded")]
    Magic { found: [u8; 4] },
    #[error("GGUF version {found} is not supported, only 2 and 3 are; convert the model anew with current tools")]
    Version { found: u32 },
    #[error("the file is big-endian GGUF; only little-endian is supported, convert it with gguf-convert-endian")]
    BigEndian,
    #[error(
        "the file ends at byte {file_len} within {what}, which begins at byte {offset} and needs {needed} bytes; it is truncated or damaged, fetch it again"
    )]
    Truncated { what: String, offset: u64, needed: u64, file_len: u64 },
    #[error("{what} at byte {offset} counts {count}, over the limit of {limit}; the file is damaged, fetch it again")]
    TooMany { what: String, offset: u64, count: u64, limit: u64 },
    #[error("{what} at byte {offset} is not UTF-8; the file is damaged, fetch it again")]
    NotUtf8 { what: String, offset: u64 },
    #[error(
        "metadata `{key}` at byte {offset} has value type {found}, which GGUF does not define; the file is damaged"
    )]
    ValueType { key: String, offset: u64, found: u32 },
    #[error("metadata `{key}` at byte {offset} is an array of arrays, which no model needs; the file is refused")]
    NestedArray { key: String, offset: u64 },
    #[error("metadata `{key}` stands in the file twice; it is damaged or was edited wrongly, fetch it again")]
    DuplicateKey { key: String },
    #[error("metadata `{key}` is missing; the file is incomplete, convert the model anew")]
    MissingKey { key: String },
    #[error("metadata `{key}` is {found}, but {expected} is expected; convert the model anew")]
    WrongType { key: String, found: String, expected: &'static str },
    #[error("`general.alignment` is {found}; it has to be a power of two from 8 to 65536")]
    Alignment { found: u64 },
    #[error("tensor `{tensor}` stands in the file twice; it is damaged, fetch it again")]
    DuplicateTensor { tensor: String },
    #[error(
        "tensor `{tensor}` has type number {found}, which is unknown here; convert the model to a type such as Q8_0 or Q4_1"
    )]
    TensorType { tensor: String, found: u32 },
    #[error(
        "tensor `{tensor}` of type {tensor_type} cannot have the shape {shape:?}; the file is damaged, fetch it again"
    )]
    Shape { tensor: String, tensor_type: TensorType, shape: Vec<u64> },
    #[error("tensor `{tensor}` begins at byte {offset} of the data, which is no multiple of the alignment {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },
    #[error(
        "tensor `{tensor}` ends at byte {end}, but the file ends at byte {file_len}; it is truncated or damaged, fetch it again"
    )]
    OutOfFile { tensor: String, end: u64, file_len: u64 },
    #[error("tensors `{first}` and `{second}` overlap in the file; it is damaged, fetch it again")]
    Overlap { first: String, second: String },
}

/// Bytes of padding between header and tensors where the file names no alignment.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Alignments beyond a large page are a sign of damage.
const MAX_ALIGNMENT: u64 = 65_536;
/// The largest known models have some thousands of tensors.
const MAX_TENSORS: u64 = 100_000;
const MAX_METADATA_KEYS: u64 = 100_000;
const MAX_DIMENSIONS: u32 = 4;
/// Longest key or tensor name; the format allows 65535 for keys, ggml 64 for names.
const MAX_NAME_BYTES: u64 = 65_535;

// === impl Gguf ===

impl Gguf {
    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    /// [`GgufError`] when the file cannot be read, is truncated, or is no sound GGUF file.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let mut file = crate::model_file::open(path).map_err(|source| GgufError::Io { offset: 0, source })?;
        Self::read(&mut file)
    }

    /// Reads a header from the start of `reader`; its length is found by seeking to the end.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn read(reader: &mut (impl Read + Seek)) -> Result<Self, GgufError> {
        let mut source = Source::new(reader)?;
        let version = read_magic_and_version(&mut source)?;
        let n_tensors = source.count("the number of tensors", MAX_TENSORS)?;
        let n_keys = source.count("the number of metadata keys", MAX_METADATA_KEYS)?;
        let metadata = Metadata::read(&mut source, n_keys)?;
        let alignment = alignment(&metadata)?;
        let mut entries = Vec::new();
        for idx in 0..n_tensors {
            entries.push(read_tensor(&mut source, idx, alignment)?);
        }
        let (data_start, file_len) = (source.position().next_multiple_of(alignment), source.file_len());
        let placed = entries.into_iter().map(|entry| entry.place(data_start, file_len));
        let tensors = placed.collect::<Result<Vec<_>, _>>()?;
        check_layout(&tensors)?;
        Ok(Self { version, metadata, tensors, file_len: source.file_len() })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn read_magic_and_version(source: &mut Source<'_, impl Read>) -> Result<u32, GgufError> {
    let found: [u8; 4] = source.array("the magic number")?;
    if &found != b"GGUF" {
        return Err(GgufError::Magic { found });
    }
    let version = source.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        // A small number read with its bytes the wrong way round.
        found if found.swap_bytes() <= 0xffff => Err(GgufError::BigEndian),
        found => Err(GgufError::Version { found }),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let found = metadata.optional_u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if found.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&found) {
        Ok(found)
    } else {
        Err(GgufError::Alignment { found })
    }
}

fn read_tensor(source: &mut Source<'_, impl Read>, idx: u64, alignment: u64) -> Result<Entry, GgufError> {
    let name = source.string(&format!("the name of tensor {idx}"), MAX_NAME_BYTES)?;
    let what = format!("the entry of tensor `{name}`");
    let at = source.position();
    let n_dimensions = source.u32(&what)?;
    if n_dimensions > MAX_DIMENSIONS {
        let (count, limit) = (u64::from(n_dimensions), u64::from(MAX_DIMENSIONS));
        return Err(GgufError::TooMany {
            what: format!("the dimensions of tensor `{name}`"),
            offset: at,
            count,
            limit,
        });
    }
    let shape = (0..n_dimensions).map(|_| source.u64(&what)).collect::<Result<Vec<_>, _>>()?;
    let number = source.u32(&what)?;
    let offset = source.u64(&what)?;
    let Some(tensor_type) = TensorType::from_number(number) else {
        return Err(GgufError::TensorType { tensor: name, found: number });
    };
    let Some(n_bytes) = tensor_type.bytes(&shape) else {
        return Err(GgufError::Shape { tensor: name, tensor_type, shape });
    };
    if offset % alignment != 0 {
        return Err(GgufError::Misaligned { tensor: name, offset, alignment });
    }
    Ok(Entry { tensor: GgufTensor { name, shape, tensor_type, n_bytes, source: TensorSource::default() }, offset })
}

// === impl Entry ===

impl Entry {
    fn place(self, data_start: u64, file_len: u64) -> Result<GgufTensor, GgufError> {
        let Self { tensor, offset } = self;
        let begin = data_start.checked_add(offset);
        let end = begin.and_then(|begin| begin.checked_add(tensor.n_bytes));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= file_len => {
                Ok(GgufTensor { source: TensorSource::at(begin, tensor.n_bytes), ..tensor })
            }
            _ => Err(GgufError::OutOfFile { tensor: tensor.name, end: end.unwrap_or(u64::MAX), file_len }),
        }
    }
}

/// No name twice and no two tensors over the same bytes.
fn check_layout(tensors: &[GgufTensor]) -> Result<(), GgufError> {
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(tensor.name.as_str())) {
        return Err(GgufError::DuplicateTensor { tensor: twice.name.clone() });
    }
    let mut by_offset: Vec<_> =
        tensors.iter().filter_map(|tensor| Some((tensor.source.plain()?, tensor.name.as_str()))).collect();
    by_offset.sort_by_key(|(range, _)| range.offset);
    match by_offset.windows(2).find(|pair| pair[0].0.offset + pair[0].0.n_bytes > pair[1].0.offset) {
        None => Ok(()),
        Some(pair) => Err(GgufError::Overlap { first: pair[0].1.to_owned(), second: pair[1].1.to_owned() }),
    }
}
