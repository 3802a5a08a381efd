//! Shapes of all that an engine holds, and the checks that both engines make before anything runs.

use std::collections::HashSet;
use std::ops::Range;

use crate::engine::EngineError;
use crate::packing::Layout;
use crate::recording::{BufferId, MatrixId, Recording, Row, VectorId};
use crate::weight_type::WeightType;

/// Rows of one op: what Vulkan takes as workgroups in one direction.
pub const MAX_ROWS: usize = 65_535;

/// What was expected of an argument, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub struct ShapeError {
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

/// The type and size of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixShape {
    pub weight_type: WeightType,
    /// Outputs.
    pub n_rows: usize,
    /// Inputs.
    pub n_cols: usize,
}

impl MatrixShape {
    /// Where the planes of a row lie, each filled up to words of so many bytes.
    pub(crate) fn layout(self, word: usize) -> Layout {
        Layout::new(self.weight_type.packing(), self.n_cols, word)
    }
}

/// The shapes of all that an engine holds; ids are places in these lists.
#[derive(Debug, Default)]
pub struct Shapes {
    matrices: Vec<MatrixShape>,
    vectors: Vec<usize>,
    buffers: Vec<usize>,
}

/// Requires `held`; otherwise says what was expected and found.
pub(crate) fn require(
    held: bool,
    what: &'static str,
    expected: impl ToString,
    found: impl ToString,
) -> Result<(), ShapeError> {
    if held {
        return Ok(());
    }
    Err(ShapeError { what, expected: expected.to_string(), found: found.to_string() })
}

/// Requires that an output is none of its inputs.
pub(crate) fn require_apart(out: BufferId, inputs: &[BufferId]) -> Result<(), ShapeError> {
    require(!inputs.contains(&out), "out", "a buffer that is no input of the op", format_args!("{out:?}"))
}

impl Shapes {
    /// Takes up a matrix after checking its size against the file's bytes.
    pub(crate) fn add_matrix(&mut self, shape: MatrixShape, n_bytes: usize) -> Result<MatrixId, EngineError> {
        let MatrixShape { weight_type, n_rows, n_cols } = shape;
        let call = |source| EngineError::Call { call: "load_matrix", source };
        require(n_rows > 0, "n_rows", "at least 1", n_rows).map_err(call)?;
        let (values, _) = weight_type.block();
        require(n_cols > 0 && n_cols.is_multiple_of(values), "n_cols", format_args!("a multiple of {values}"), n_cols)
            .map_err(call)?;
        let expected = weight_type.matrix_bytes(n_rows, n_cols).unwrap_or(usize::MAX);
        require(n_bytes == expected, "bytes", format_args!("{expected} for {shape:?}"), n_bytes).map_err(call)?;
        self.matrices.push(shape);
        Ok(MatrixId(id(self.matrices.len())))
    }

    /// Forgets the matrix added last: the device refused it.
    pub(crate) fn remove_last_matrix(&mut self) {
        self.matrices.pop();
    }

    pub(crate) fn add_vector(&mut self, len: usize) -> Result<VectorId, EngineError> {
        require(len > 0, "values", "at least 1", len)
            .map_err(|source| EngineError::Call { call: "load_vector", source })?;
        self.vectors.push(len);
        Ok(VectorId(id(self.vectors.len())))
    }

    pub(crate) fn add_buffer(&mut self, len: usize) -> Result<BufferId, EngineError> {
        // 2^30 values are 4 GiB: over that a u32 of byte offsets no longer reaches.
        require(len > 0 && len < 1 << 30, "len", "1 to 2^30 - 1 values", len)
            .map_err(|source| EngineError::Call { call: "alloc", source })?;
        self.buffers.push(len);
        Ok(BufferId(id(self.buffers.len())))
    }

    pub(crate) fn matrix(&self, what: &'static str, id: MatrixId) -> Result<MatrixShape, ShapeError> {
        self.matrices.get(id.0 as usize).copied().ok_or_else(|| unknown(what, &id))
    }

    pub(crate) fn vector(&self, what: &'static str, id: VectorId) -> Result<usize, ShapeError> {
        self.vectors.get(id.0 as usize).copied().ok_or_else(|| unknown(what, &id))
    }

    pub(crate) fn buffer(&self, what: &'static str, id: BufferId) -> Result<usize, ShapeError> {
        self.buffers.get(id.0 as usize).copied().ok_or_else(|| unknown(what, &id))
    }

    /// Requires a vector of exactly `len` values.
    pub(crate) fn require_vector(&self, what: &'static str, id: VectorId, len: usize) -> Result<(), ShapeError> {
        let found = self.vector(what, id)?;
        require(found == len, what, format_args!("{len} values"), found)
    }

    /// Requires a buffer of at least `n_rows` × `width` values.
    pub(crate) fn require_rows(
        &self,
        what: &'static str,
        id: BufferId,
        n_rows: usize,
        width: usize,
    ) -> Result<(), ShapeError> {
        let found = self.buffer(what, id)?;
        require(n_rows <= MAX_ROWS, what, format_args!("at most {MAX_ROWS} rows"), n_rows)?;
        require(
            n_rows > 0 && width > 0 && n_rows.saturating_mul(width) <= found,
            what,
            format_args!("at least {n_rows} × {width} values, neither 0"),
            found,
        )
    }

    /// Requires that `range` lies in the buffer.
    pub(crate) fn require_range(
        &self,
        what: &'static str,
        id: BufferId,
        range: &Range<usize>,
    ) -> Result<(), ShapeError> {
        let len = self.buffer(what, id)?;
        require(
            range.start <= range.end && range.end <= len,
            what,
            format_args!("a range within {len} values"),
            format_args!("{range:?}"),
        )
    }

    /// Checks a whole recording: every id, every size, every token, slot and position.
    pub fn check(&self, recording: &Recording) -> Result<(), EngineError> {
        for upload in &recording.uploads {
            let range = upload.offset..upload.offset.saturating_add(upload.values.len());
            self.require_range("upload", upload.buffer, &range).map_err(EngineError::Recording)?;
        }
        for readback in &recording.readbacks {
            self.require_range("readback", readback.buffer, &readback.range).map_err(EngineError::Recording)?;
        }
        distinct(&recording.rows).map_err(EngineError::Recording)?;
        for (index, op) in recording.ops.iter().enumerate() {
            let checked = op.operation().check(self, &recording.rows);
            checked.map_err(|source| EngineError::Op { index, op: op.name(), source })?;
        }
        Ok(())
    }
}

/// Two rows at one place would race for it.
fn distinct(rows: &[Row]) -> Result<(), ShapeError> {
    let mut seen = HashSet::with_capacity(rows.len());
    for row in rows {
        require(seen.insert(row), "rows", "each slot and position once", format_args!("{row:?} twice"))?;
    }
    Ok(())
}

fn unknown(what: &'static str, id: &impl std::fmt::Debug) -> ShapeError {
    ShapeError { what, expected: "something that this engine holds".to_string(), found: format!("{id:?}") }
}

/// The id of the last of `len` things.
fn id(len: usize) -> u32 {
    u32::try_from(len - 1).expect("an engine runs out of memory before it runs out of ids")
}
