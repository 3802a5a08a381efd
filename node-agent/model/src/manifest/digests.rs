//! Digests: one pass over a model's files, in which those of all files and of most tensors are taken and every value is looked at.
//!
//! A tensor that is not a range of a file as it is has its digest taken in a reading of its own.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::finite::FiniteCheck;
use super::{Manifest, ModelError, TensorEntry, TensorReader};
use crate::source_files::{SourceFile, SourceFiles};
use crate::tensor_type::TensorType;

/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// The pass.
pub(super) struct Digests<'a> {
    files: &'a SourceFiles,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    /// Bytes read so far.
    n_read: u64,
    chunk: Vec<u8>,
}

/// The digest of one tensor, as its bytes come.
struct Running {
    digest: Sha256,
    finite: FiniteCheck,
}

// === impl Digests ===

impl<'a> Digests<'a> {
    pub(super) fn new(files: &'a SourceFiles, progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>) -> Self {
        Self { files, progress, n_read: 0, chunk: vec![0; CHUNK] }
    }

    /// Fills in every digest.
    ///
    /// # Errors
    /// A file that cannot be read, is not what it was, or holds a value that is no number; a reading that was called off.
    pub(super) fn take(mut self, manifest: &mut Manifest) -> Result<(), ModelError> {
        let files = self.files;
        for (idx, file) in files.files.iter().enumerate() {
            let is_here = |entry: &&mut TensorEntry| entry.source.plain().is_some_and(|it| it.file as usize == idx);
            let mut tensors: Vec<&mut TensorEntry> = manifest.tensors.iter_mut().filter(is_here).collect();
            manifest.files[idx].sha256 = self.take_file(file, &mut tensors)?;
        }
        for idx in 0..manifest.tensors.len() {
            if manifest.tensors[idx].source.plain().is_none() {
                manifest.tensors[idx].sha256 = self.take_tensor(manifest, &manifest.tensors[idx])?;
            }
        }
        Ok(())
    }

    /// Reads a file once; gives its digest and fills in those of the tensors that lie in it, which are in the order of their places.
    fn take_file(&mut self, file: &SourceFile, tensors: &mut [&mut TensorEntry]) -> Result<String, ModelError> {
        let changed = || ModelError::Changed { path: file.path.clone() };
        let io = |source| ModelError::Io { path: file.path.clone(), source };
        let mut opened = file.reopen().map_err(io)?.ok_or_else(changed)?;
        let mut whole = Sha256::new();
        let mut tensors = tensors.iter_mut().peekable();
        let mut running = Running::of(tensors.peek().map(|entry| &***entry));
        let mut position = 0_u64;
        loop {
            let n_read = read_some(&mut opened, &mut self.chunk).map_err(io)?;
            if n_read == 0 {
                break;
            }
            let bytes = &self.chunk[..n_read];
            whole.update(bytes);
            let chunk_end = position + n_read as u64;
            // Tensors lie in ascending order and apart (checked), so at most the last one goes on past this chunk.
            while let Some(entry) = tensors.peek_mut() {
                let place = entry.source.plain().expect("only such tensors are taken here");
                let entry_end = place.offset + place.n_bytes;
                let from = place.offset.max(position).min(chunk_end) - position;
                let to = entry_end.min(chunk_end) - position;
                if !running.take(&bytes[from as usize..to.max(from) as usize]) {
                    return Err(unsound(file, entry));
                }
                if entry_end > chunk_end {
                    break;
                }
                entry.sha256 = hex::encode(running.digest.finalize());
                tensors.next();
                running = Running::of(tensors.peek().map(|entry| &***entry));
            }
            position = chunk_end;
            self.tell(n_read, file)?;
        }
        if position != file.len || !file.is_still(&opened).map_err(io)? {
            return Err(changed());
        }
        Ok(hex::encode(whole.finalize()))
    }

    fn take_tensor(&mut self, manifest: &Manifest, entry: &TensorEntry) -> Result<String, ModelError> {
        let first = entry.source.ranges.first().map_or(0, |range| range.file as usize);
        let files = self.files;
        let file = &files.files[first];
        let io = |source| ModelError::Io { path: file.path.clone(), source };
        let reader = TensorReader::open(&file.path, manifest, entry).map_err(io)?;
        let mut running = Running::of(Some(entry));
        let mut from = 0;
        while from < entry.n_bytes {
            let n = (entry.n_bytes - from).min(CHUNK as u64) as usize;
            reader.read_at(from, &mut self.chunk[..n]).map_err(io)?;
            if !running.take(&self.chunk[..n]) {
                return Err(unsound(file, entry));
            }
            from += n as u64;
            self.tell(n, file)?;
        }
        Ok(hex::encode(running.digest.finalize()))
    }

    fn tell(&mut self, n_read: usize, file: &SourceFile) -> Result<(), ModelError> {
        self.n_read += n_read as u64;
        match (self.progress)(self.n_read) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ModelError::CalledOff { path: file.path.clone() }),
        }
    }
}

// === impl Running ===

impl Running {
    /// Nothing yet of a tensor; of none where there is none.
    fn of(entry: Option<&TensorEntry>) -> Self {
        let finite = match entry {
            Some(entry) if entry.role.is_of_divisors() => FiniteCheck::of_divisors(),
            _ => FiniteCheck::new(entry.map_or(TensorType::F32, |entry| entry.tensor_type)),
        };
        Self { digest: Sha256::new(), finite }
    }

    /// Takes the next bytes; says whether all values so far are numbers that can be computed with.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.digest.update(bytes);
        self.finite.take(bytes)
    }
}

fn unsound(file: &SourceFile, entry: &TensorEntry) -> ModelError {
    let (path, tensor) = (file.path.clone(), entry.name.clone());
    if entry.role.is_of_divisors() {
        ModelError::Divisor { path, tensor }
    } else {
        ModelError::NotFinite { path, tensor }
    }
}

fn read_some(file: &mut File, chunk: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            end => return end,
        }
    }
}
