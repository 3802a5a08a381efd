//! Parts of a GGUF file that was split by `gguf-split`: put together to the header of the whole, or refused by the part that does not fit.
//!
//! The first part has all metadata, each its own tensors and the keys `split.no` (from 0), `split.count` and `split.tensors.count`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::{FilesError, SourceFile, SourceFiles};
use crate::gguf::{Gguf, GgufError, Metadata};

/// Why files are not the parts of one.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("part {number} of {count} is missing: put it beside the others, under this name")]
    Missing { number: usize, count: usize },
    #[error(
        "`split.count` is {count}: this is part {number} of a file that was split, and its name does not say so; name it as `gguf-split` does, NAME-{number:05}-of-{count:05}.gguf, beside the others"
    )]
    Unnamed { number: u64, count: u64 },
    #[error("it is named as part {number} of {count} and has no `split.count`: it is no part; give it another name")]
    NoPart { number: usize, count: usize },
    #[error("`split.no` is {found}, but it is named as part {number}, whose `split.no` is {expected}: two parts overlap, or one was renamed; fetch them again")]
    Number { number: usize, found: u64, expected: u64 },
    #[error("`{key}` is {found}, but {expected} in {first}: it is a part of another model; fetch the parts of one model again")]
    Other { key: &'static str, found: String, expected: String, first: String },
    #[error("tensor `{tensor}` stands in it and in {first}: the parts overlap; fetch them again")]
    Overlap { tensor: String, first: String },
    #[error("`split.tensors.count` is {expected}, but all parts together have {found} tensors; fetch them again")]
    Count { found: usize, expected: u64 },
}

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
const ARCHITECTURE: &str = "general.architecture";

/// What a part says of the whole.
struct Whole {
    n_tensors: Option<u64>,
    architecture: Option<String>,
}

/// The header of all parts, which are in the order of their numbers.
///
/// # Errors
/// [`FilesError`] with the part that is missing, damaged or of another model.
pub(super) fn read(paths: Vec<PathBuf>) -> Result<SourceFiles, FilesError> {
    let count = paths.len();
    let mut whole: Option<(Gguf, Whole)> = None;
    let mut files: Vec<SourceFile> = Vec::new();
    let mut owners: HashMap<String, usize> = HashMap::new();
    for (idx, path) in paths.into_iter().enumerate() {
        let number = idx + 1;
        let (mut opened, file) = SourceFile::open(path).map_err(|error| missing(error, number, count))?;
        let mut part = Gguf::read(&mut opened).map_err(|source| file.damaged(source))?;
        let refused = |source| file.no_part(source);
        let of = Whole::of(&part.metadata, number, count).map_err(refused)?;
        if let Some((_, first)) = &whole {
            first.check(&of, &files[0]).map_err(refused)?;
        }
        for tensor in &mut part.tensors {
            tensor.source.ranges.iter_mut().for_each(|range| range.file = idx as u32);
            if let Some(owner) = owners.insert(tensor.name.clone(), idx) {
                return Err(refused(PartsError::Overlap { tensor: tensor.name.clone(), first: files[owner].name() }));
            }
        }
        match &mut whole {
            None => whole = Some((part, of)),
            Some((header, _)) => {
                header.tensors.append(&mut part.tensors);
                header.file_len = header.file_len.saturating_add(part.file_len);
            }
        }
        files.push(file);
    }
    let (header, of) = whole.expect("a name of a part gives at least one path");
    match of.n_tensors {
        Some(expected) if expected != header.tensors.len() as u64 => {
            let found = header.tensors.len();
            Err(files[0].no_part(PartsError::Count { found, expected }))
        }
        _ => Ok(SourceFiles { header, files, text: None }),
    }
}

/// Refuses a part whose name is not one.
///
/// # Errors
/// [`PartsError::Unnamed`], or keys that are no numbers.
pub(super) fn refuse_part(metadata: &Metadata) -> Result<(), PartsError> {
    match metadata.optional_u64(COUNT)? {
        Some(count) if count > 1 => {
            let number = metadata.optional_u64(NUMBER)?.unwrap_or(0).saturating_add(1);
            Err(PartsError::Unnamed { number, count })
        }
        _ => Ok(()),
    }
}

fn missing(error: FilesError, number: usize, count: usize) -> FilesError {
    match error {
        FilesError::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            FilesError::Parts { path, source: PartsError::Missing { number, count } }
        }
        error => error,
    }
}

// === impl Whole ===

impl Whole {
    fn of(metadata: &Metadata, number: usize, count: usize) -> Result<Self, PartsError> {
        let found = match metadata.optional_u64(COUNT)? {
            Some(found) => found,
            // A whole file may be called `-00001-of-00001`.
            None if count == 1 => 1,
            None => return Err(PartsError::NoPart { number, count }),
        };
        if found != count as u64 {
            let (found, expected, first) = (found.to_string(), count.to_string(), "its name".to_owned());
            return Err(PartsError::Other { key: COUNT, found, expected, first });
        }
        let (found, expected) = (metadata.optional_u64(NUMBER)?.unwrap_or(0), number as u64 - 1);
        if found != expected {
            return Err(PartsError::Number { number, found, expected });
        }
        Ok(Self {
            n_tensors: metadata.optional_u64(TENSORS)?,
            architecture: metadata.optional_string(ARCHITECTURE)?.map(str::to_owned),
        })
    }

    /// Whether `other` is said of the same model as this, by `first`.
    fn check(&self, other: &Self, first: &SourceFile) -> Result<(), PartsError> {
        let differs = |key, found: Option<String>, expected: Option<String>| match (found, expected) {
            (Some(found), expected) if Some(&found) != expected.as_ref() => {
                let expected = expected.unwrap_or_else(|| "not there".to_owned());
                Err(PartsError::Other { key, found, expected, first: first.name() })
            }
            _ => Ok(()),
        };
        let number = |n: u64| Some(n.to_string());
        differs(TENSORS, other.n_tensors.and_then(number), self.n_tensors.and_then(number))?;
        differs(ARCHITECTURE, other.architecture.clone(), self.architecture.clone())
    }
}
