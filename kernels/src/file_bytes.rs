//! File bytes: a matrix on its way into an engine, row-major in GGML's blocks, wherever it lies. Engines read it in pieces, so that what is
//! on a disk is never in memory twice; Vulkan packs what one buffer of the device holds at a time.

use std::io;

/// The bytes of a matrix, some at a time.
pub trait FileBytes {
    /// Of all rows.
    fn n_bytes(&self) -> usize;

    /// Fills `out` with the bytes from `at` on, which are there.
    ///
    /// # Errors
    /// What keeps them from being read.
    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()>;
}

/// Bytes that are read at a time: as many whole rows as they hold, one at least.
const PIECE: usize = 256 << 10;

// === impl FileBytes ===

impl FileBytes for &[u8] {
    fn n_bytes(&self) -> usize {
        self.len()
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(self.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl FileBytes for Vec<u8> {
    fn n_bytes(&self) -> usize {
        self.len()
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        FileBytes::read_at(&self.as_slice(), at, out)
    }
}

/// Rows that are given one after another.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub first: usize,
    pub n: usize,
    /// Of one row.
    pub n_bytes: usize,
}

// === impl Rows ===

impl Rows {
    /// Gives each row to `take`, counted from the first.
    ///
    /// # Errors
    /// What keeps the bytes from being read.
    pub fn each(self, ggml: &dyn FileBytes, mut take: impl FnMut(usize, &[u8])) -> io::Result<()> {
        let at_once = (PIECE / self.n_bytes.max(1)).max(1);
        let mut piece = vec![0; self.n_bytes * at_once.min(self.n)];
        for from in (0..self.n).step_by(at_once) {
            let rows = &mut piece[..self.n_bytes * at_once.min(self.n - from)];
            ggml.read_at((self.first + from) * self.n_bytes, rows)?;
            (from..).zip(rows.chunks_exact(self.n_bytes.max(1))).for_each(|(row, bytes)| take(row, bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_pieces_and_in_order() {
        // Rows of 100,000 bytes: two fill a piece, the last comes alone.
        let n_bytes = 100_000;
        let ggml: Vec<u8> = (0..5_u8).flat_map(|row| vec![row; n_bytes]).collect();
        for (first, n) in [(0, 5), (1, 3), (4, 1), (2, 0)] {
            let mut seen = Vec::new();
            let each =
                Rows { first, n, n_bytes }.each(&ggml, |row, bytes| seen.push((row, bytes[0], bytes[n_bytes - 1])));
            each.expect("all are there");
            let expected: Vec<_> = (0..n).map(|row| (row, (first + row) as u8, (first + row) as u8)).collect();
            assert_eq!(seen, expected);
        }
        let beyond = Rows { first: 4, n: 2, n_bytes }.each(&ggml, |_, _| ());
        assert_eq!(beyond.map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
