//! Rows: matrices on their way into an engine, in file bytes wherever these lie. What one kernel multiplies at once becomes one matrix as it
//! is read, so that no more than a piece of it is in memory besides. Computes nothing.

use std::io;

use polyphony_kernels::{Engine, FileBytes, MatrixId, WeightType};

use super::SegmentError;

/// A matrix in file bytes.
pub(super) struct Rows {
    pub weight_type: WeightType,
    pub n_rows: usize,
    pub n_cols: usize,
    pub bytes: Box<dyn FileBytes>,
}

/// Bytes of a tensor, whose errors say so.
pub(super) struct Named {
    pub tensor: String,
    pub bytes: Box<dyn FileBytes>,
}

/// Rows of several matrices, or of parts of one, as those of one matrix.
pub(super) struct Joined<'a> {
    weight_type: WeightType,
    n_cols: usize,
    row_bytes: usize,
    parts: Vec<Part<'a>>,
    /// Rows of all taking turns, who have as many each; otherwise one part after another.
    takes_turns: bool,
}

/// Consecutive rows of a matrix.
struct Part<'a> {
    bytes: &'a dyn FileBytes,
    first_row: usize,
    n_rows: usize,
}

// === impl Named ===

impl FileBytes for Named {
    fn n_bytes(&self) -> usize {
        self.bytes.n_bytes()
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("tensor {}: {error}", self.tensor));
        self.bytes.read_at(at, out).map_err(named)
    }
}

// === impl Rows ===

impl Rows {
    pub fn load(&self, engine: &mut dyn Engine) -> Result<MatrixId, SegmentError> {
        Ok(engine.load_rows(self.weight_type, self.n_rows, self.n_cols, self.bytes.as_ref())?)
    }

    /// The rows of its first half and of its second taking turns; `None` when the bytes are not those of the shape, which the engine will say.
    pub fn halves_taking_turns(&self) -> Option<Joined<'_>> {
        let half = |first_row| Part { bytes: self.bytes.as_ref(), first_row, n_rows: self.n_rows / 2 };
        let parts = vec![half(0), half(self.n_rows / 2)];
        let row_bytes = self.row_bytes().filter(|_| self.n_rows.is_multiple_of(2))?;
        Some(Joined { weight_type: self.weight_type, n_cols: self.n_cols, row_bytes, parts, takes_turns: true })
    }

    /// Bytes of one row; `None` when the bytes are not those of the shape, which the engine will say.
    fn row_bytes(&self) -> Option<usize> {
        let expected = self.weight_type.matrix_bytes(self.n_rows, self.n_cols)?;
        let whole = self.n_rows > 0 && expected > 0 && expected == self.bytes.n_bytes();
        whole.then(|| expected / self.n_rows)
    }
}

// === impl Joined ===

impl<'a> Joined<'a> {
    /// One matrix of all, if they are alike.
    pub fn of(matrices: &[&'a Rows], takes_turns: bool) -> Option<Self> {
        let &&Rows { weight_type, n_rows, n_cols, .. } = matrices.first()?;
        let row_bytes = matrices.first()?.row_bytes()?;
        let are_alike = matrices.iter().all(|rows| {
            rows.weight_type == weight_type
                && rows.n_cols == n_cols
                && rows.row_bytes() == Some(row_bytes)
                && (rows.n_rows == n_rows || !takes_turns)
        });
        let part = |rows: &&'a Rows| Part { bytes: rows.bytes.as_ref(), first_row: 0, n_rows: rows.n_rows };
        are_alike.then(|| Self {
            weight_type,
            n_cols,
            row_bytes,
            parts: matrices.iter().map(part).collect(),
            takes_turns,
        })
    }

    pub fn n_rows(&self) -> usize {
        self.parts.iter().map(|part| part.n_rows).sum()
    }

    pub fn load(&self, engine: &mut dyn Engine) -> Result<MatrixId, SegmentError> {
        Ok(engine.load_rows(self.weight_type, self.n_rows(), self.n_cols, self)?)
    }

    /// Where a row lies: its part, its place there, and how many rows from it on lie together.
    fn place(&self, mut row: usize) -> Option<(&Part<'a>, usize, usize)> {
        if self.takes_turns {
            let part = self.parts.get(row % self.parts.len().max(1))?;
            return Some((part, row / self.parts.len(), 1));
        }
        for part in &self.parts {
            if row < part.n_rows {
                return Some((part, row, part.n_rows - row));
            }
            row -= part.n_rows;
        }
        None
    }
}

impl FileBytes for Joined<'_> {
    fn n_bytes(&self) -> usize {
        self.n_rows() * self.row_bytes
    }

    fn read_at(&self, mut at: usize, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (row, within) = (at / self.row_bytes, at % self.row_bytes);
            let (part, its_row, n_rows) = self.place(row).ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = (n_rows * self.row_bytes - within).min(out.len());
            let (piece, rest) = out.split_at_mut(n);
            part.bytes.read_at((part.first_row + its_row) * self.row_bytes + within, piece)?;
            (out, at) = (rest, at + n);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n_rows: usize, first: u8) -> Rows {
        // f32 rows of 32 columns: 128 equal bytes each, the row's number.
        let bytes: Vec<u8> = (0..n_rows).flat_map(|row| [first + row as u8; 128]).collect();
        Rows { weight_type: WeightType::F32, n_rows, n_cols: 32, bytes: Box::new(bytes) }
    }

    /// Read in pieces of so many bytes, which must not matter.
    fn first_bytes(whole: &Joined<'_>, piece: usize) -> Vec<u8> {
        let mut bytes = vec![0; whole.n_bytes()];
        let pieces = bytes.chunks_mut(piece).enumerate();
        for (idx, out) in pieces {
            whole.read_at(idx * piece, out).expect("all is in memory");
        }
        bytes.chunks(128).map(|row| row[0]).collect()
    }

    #[test]
    fn rows_take_turns_or_follow_one_another() {
        for piece in [100, 128, 384, 10_000] {
            let (one, other) = (rows(3, 0), rows(3, 10));
            let turns = Joined::of(&[&one, &other], true).expect("both are alike");
            assert_eq!(first_bytes(&turns, piece), [0, 10, 1, 11, 2, 12]);
            let (one, other, third) = (rows(2, 0), rows(1, 5), rows(1, 7));
            let after = Joined::of(&[&one, &other, &third], false).expect("widths may differ");
            assert_eq!(first_bytes(&after, piece), [0, 1, 5, 7]);
            assert_eq!(after.n_rows(), 4);
            let fused = rows(6, 0);
            let halves = fused.halves_taking_turns().expect("they are even");
            assert_eq!(first_bytes(&halves, piece), [0, 3, 1, 4, 2, 5]);
        }
        assert!(rows(3, 0).halves_taking_turns().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let bytes = Box::new(vec![0_u8; 100]);
        let named = Named { tensor: "blk.0.ffn_up.weight".into(), bytes };
        assert_eq!(named.read_at(90, &mut [0; 10]).map_err(|error| error.to_string()), Ok(()));
        let error = named.read_at(90, &mut [0; 11]).map_err(|error| error.to_string());
        assert!(error.is_err_and(|words| words.starts_with("tensor blk.0.ffn_up.weight: ")));
    }

    #[test]
    fn matrices_that_differ_stay_apart() {
        let one = rows(3, 0);
        let mut other = rows(3, 0);
        other.weight_type = WeightType::F16;
        assert!(Joined::of(&[&one, &other], true).is_none());
        assert!(Joined::of(&[&one, &rows(2, 0)], true).is_none());
        let short = Rows { bytes: Box::new(vec![0_u8; 383]), ..rows(3, 0) };
        assert!(Joined::of(&[&one, &short], false).is_none());
    }
}
