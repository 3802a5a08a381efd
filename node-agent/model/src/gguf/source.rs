//! A bounded reader of little-endian values that knows how much of the file is left. Knows no key and no tensor.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::GgufError;

/// Reads a file from its start; every read is checked against the file's length first.
pub(super) struct Source<'a, R: Read> {
    reader: BufReader<&'a mut R>,
    position: u64,
    file_len: u64,
}

// === impl Source ===

impl<'a, R: Read + Seek> Source<'a, R> {
    pub(super) fn new(reader: &'a mut R) -> Result<Self, GgufError> {
        let file_len = reader.seek(SeekFrom::End(0)).map_err(|source| GgufError::Io { offset: 0, source })?;
        reader.seek(SeekFrom::Start(0)).map_err(|source| GgufError::Io { offset: 0, source })?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, reader), position: 0, file_len })
    }
}

impl<R: Read> Source<'_, R> {
    /// Of the next byte, counted from the start of the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Fails when fewer than `needed` bytes are left for `what`.
    pub(super) fn require(&self, what: &str, needed: u64) -> Result<(), GgufError> {
        if needed <= self.file_len - self.position {
            return Ok(());
        }
        Err(GgufError::Truncated { what: what.to_owned(), offset: self.position, needed, file_len: self.file_len })
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(what, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A 64-bit count that may not pass `limit`.
    pub(super) fn count(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let offset = self.position;
        match self.u64(what)? {
            count if count > limit => Err(GgufError::TooMany { what: what.to_owned(), offset, count, limit }),
            count => Ok(count),
        }
    }

    /// A string: its length in 64 bits, then as many bytes of UTF-8.
    pub(super) fn string(&mut self, what: &str, limit: u64) -> Result<String, GgufError> {
        let n_bytes = self.count(what, limit)?;
        let offset = self.position;
        let bytes = self.bytes(what, n_bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 { what: what.to_owned(), offset })
    }

    /// The next `n_bytes`; nothing is reserved for what is not in the file.
    pub(super) fn bytes(&mut self, what: &str, n_bytes: u64) -> Result<Vec<u8>, GgufError> {
        self.require(what, n_bytes)?;
        let too_many = |_| GgufError::TooMany {
            what: what.to_owned(),
            offset: self.position,
            count: n_bytes,
            limit: usize::MAX as u64,
        };
        let mut bytes = vec![0; usize::try_from(n_bytes).map_err(too_many)?];
        self.fill(what, &mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, what: &str, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.require(what, bytes.len() as u64)?;
        self.reader.read_exact(bytes).map_err(|source| GgufError::Io { offset: self.position, source })?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
