//! Matrices in memory: what a kernel of this folder is given. Multiplies nothing.

use std::io;
use std::ops::Range;

use crate::canonical;
use crate::file_bytes::FileBytes;
use crate::packing::Layout;
use crate::shapes::MatrixShape;

/// The bytes of a matrix.
pub(super) struct Held {
    form: Form,
    pub bytes: Box<[u8]>,
}

/// What a matrix's rows are kept as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The file's own blocks, row-major, which the oracles look at.
    File,
    /// Canonical rows, one after another.
    Rows,
    /// Canonical rows in strips of [`STRIP`], whose words take turns.
    Strips,
}

/// Bytes of a word of canonical rows.
pub(super) const WORD: usize = 4;
/// Rows of a strip: a lane each of an AVX register, or of two of NEON.
pub(super) const STRIP: usize = 8;

/// A matrix as the kernels of this folder see it.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub shape: MatrixShape,
    pub(super) form: Form,
    /// Where the planes of a canonical row lie.
    pub(super) layout: Layout,
    pub(super) bytes: &'a [u8],
}

impl Matrix<'_> {
    /// These rows as a matrix, and how many are in it before the first: those of the same strip, where rows lie in strips.
    pub(super) fn rows(self, rows: Range<usize>) -> (Self, usize) {
        let strip = self.form.strip();
        let strip_bytes = self.bytes.len() / self.shape.n_rows.div_ceil(strip);
        let (first, end) = (rows.start / strip * strip, rows.end.next_multiple_of(strip).min(self.shape.n_rows));
        let bytes = &self.bytes[first / strip * strip_bytes..end.div_ceil(strip) * strip_bytes];
        (Self { shape: MatrixShape { n_rows: end - first, ..self.shape }, bytes, ..self }, rows.start - first)
    }

    /// The values of one row.
    pub(super) fn values(&self, row: usize, out: &mut [f32]) {
        let n_bytes = self.bytes.len() / self.shape.n_rows;
        let bytes = || &self.bytes[row * n_bytes..(row + 1) * n_bytes];
        let packing = self.shape.weight_type.packing();
        match self.form {
            Form::File => self.shape.weight_type.dequantise(bytes(), out),
            Form::Rows => canonical::values(packing, &self.layout, bytes(), out),
            Form::Strips => {
                let bytes = canonical::row_of_strips(&self.layout, self.bytes, WORD, STRIP, row);
                canonical::values(packing, &self.layout, &bytes, out);
            }
        }
    }
}

impl Held {
    /// # Errors
    /// What keeps the bytes from being read.
    pub fn new(form: Form, shape: MatrixShape, ggml: &dyn FileBytes) -> io::Result<Self> {
        let bytes = match form {
            Form::File => {
                let mut bytes = vec![0; ggml.n_bytes()];
                ggml.read_at(0, &mut bytes)?;
                bytes
            }
            Form::Rows => canonical::rows(shape, ggml, WORD)?,
            Form::Strips => canonical::strips(shape, canonical::all(shape, ggml), ggml, WORD, STRIP)?,
        };
        Ok(Self { form, bytes: bytes.into() })
    }

    pub fn matrix(&self, shape: MatrixShape) -> Matrix<'_> {
        Matrix { shape, form: self.form, layout: shape.layout(WORD), bytes: &self.bytes }
    }
}

impl Form {
    /// Rows whose bytes lie together.
    pub fn strip(self) -> usize {
        if self == Form::Strips { STRIP } else { 1 }
    }
}
