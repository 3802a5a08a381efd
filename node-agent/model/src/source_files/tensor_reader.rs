//! Tensor readers: any bytes of a tensor, out of the files that it is made of. Reads by range and keeps nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::{bf16, f16};

use super::naming::folder_of;
use super::tensor_source::{TensorSource, row_in_file, rows_of};
use crate::manifest::{Manifest, TensorEntry};
use crate::model_file;
use crate::tensor_type::TensorType;

/// One tensor's bytes, as a phone gets them.
#[derive(Debug)]
pub struct TensorReader {
    files: BTreeMap<u32, File>,
    source: TensorSource,
    literal: Vec<u8>,
    n_bytes: u64,
    /// Rows of the tensor.
    n_rows: u64,
}

// === impl TensorReader ===

impl TensorReader {
    /// Opens the files that `entry` of `manifest` is made of. `model` is what the manifest was built from.
    ///
    /// # Errors
    /// What keeps one of the files from being opened.
    pub fn open(model: &Path, manifest: &Manifest, entry: &TensorEntry) -> io::Result<Self> {
        let folder = folder_of(model);
        let mut files = BTreeMap::new();
        for range in &entry.source.ranges {
            if !files.contains_key(&range.file) {
                let outside = || io::Error::new(io::ErrorKind::InvalidInput, "the manifest has no such file");
                let of = manifest.files.get(range.file as usize).ok_or_else(outside)?;
                files.insert(range.file, model_file::open(&folder.join(&of.name))?);
            }
        }
        let source = entry.source.clone();
        let literal = hex::decode(&source.literal).map_err(io::Error::other)?;
        Ok(Self { files, source, literal, n_bytes: entry.n_bytes, n_rows: rows_of(&entry.shape) })
    }

    /// Bytes of the tensor.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Fills `out` with the tensor's bytes from byte `from` on.
    ///
    /// # Errors
    /// A range beyond the tensor's end, and what keeps a file from being read.
    pub fn read_at(&self, from: u64, out: &mut [u8]) -> io::Result<()> {
        if from.checked_add(out.len() as u64).is_none_or(|to| to > self.n_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is beyond the tensor's end"));
        }
        match self.source.form.widened_from {
            None => self.read_turned(from, out)?,
            Some(half) => {
                // Whole values; those that are cut at either end are made, too.
                let (first, last) = (from / 4, (from + out.len() as u64).div_ceil(4));
                let mut halves = vec![0; 2 * (last - first) as usize];
                self.read_turned(2 * first, &mut halves)?;
                let wide = halves.as_chunks::<2>().0.iter().flat_map(|two| widened(*two, half).to_le_bytes());
                out.iter_mut().zip(wide.skip((from % 4) as usize)).for_each(|(out, byte)| *out = byte);
            }
        }
        if self.source.form.plus_one { self.add_one(from, out) } else { Ok(()) }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`TensorReader::read_at`].
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.n_bytes).map_err(io::Error::other)?];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The file's values, with rows in the tensor's order.
    fn read_turned(&self, mut from: u64, mut out: &mut [u8]) -> io::Result<()> {
        let Some(n_heads) = self.source.form.heads_taking_turns else { return self.read_ranges(from, out) };
        let row_bytes = self.source.form.n_file_bytes(self.n_bytes) / self.n_rows.max(1);
        let head_rows = self.n_rows / u64::from(n_heads.max(1));
        if row_bytes == 0 || head_rows == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has no rows of so many heads"));
        }
        while !out.is_empty() {
            let (row, within) = (from / row_bytes, from % row_bytes);
            let n = (row_bytes - within).min(out.len() as u64);
            let (part, rest) = out.split_at_mut(n as usize);
            self.read_ranges(row_in_file(row, head_rows) * row_bytes + within, part)?;
            (out, from) = (rest, from + n);
        }
        Ok(())
    }

    /// The bytes of all ranges one after another, from byte `from` of them on.
    fn read_ranges(&self, mut from: u64, mut out: &mut [u8]) -> io::Result<()> {
        if !self.literal.is_empty() {
            let from = from as usize;
            let bytes = self.literal.get(from..from + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            return Ok(());
        }
        for range in &self.source.ranges {
            if out.is_empty() {
                break;
            }
            if from >= range.n_bytes {
                from -= range.n_bytes;
                continue;
            }
            let n = (range.n_bytes - from).min(out.len() as u64);
            let (part, rest) = out.split_at_mut(n as usize);
            self.files[&range.file].read_exact_at(part, range.offset + from)?;
            (out, from) = (rest, 0);
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Adds 1 to each value of `out`, the tensor's bytes from `from` on, which may begin and end within a value.
    fn add_one(&self, from: u64, out: &mut [u8]) -> io::Result<()> {
        let before = (from % 4) as usize;
        if before == 0 && out.len().is_multiple_of(4) {
            for value in out.as_chunks_mut::<4>().0 {
                *value = (f32::from_le_bytes(*value) + 1.0).to_le_bytes();
            }
            return Ok(());
        }
        let first = from - before as u64;
        let mut whole = vec![0; (before + out.len()).next_multiple_of(4)];
        self.read_at(first, &mut whole)?;
        out.copy_from_slice(&whole[before..before + out.len()]);
        Ok(())
    }
}

/// A value of 16 bits as F32, which every one of them is exactly.
fn widened(bytes: [u8; 2], from: TensorType) -> f32 {
    match from {
        TensorType::Bf16 => bf16::from_le_bytes(bytes).to_f32(),
        _ => f16::from_le_bytes(bytes).to_f32(),
    }
}
