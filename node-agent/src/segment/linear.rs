//! A matrix and what is added to its product, as an engine holds them. Computes nothing.

use polyphony_kernels::{BufferId, Matmul, MatrixId, VectorId};
use polyphony_model::Role;

use super::SegmentError;
use super::loaded::Loaded;

#[derive(Clone, Copy)]
pub(super) struct Linear {
    pub weight: MatrixId,
    pub bias: Option<VectorId>,
}

// === impl Linear ===

impl Linear {
    /// The matrix of this role, with its bias where the model has one.
    pub fn build(loaded: &Loaded, role: Role, layer: u32) -> Result<Self, SegmentError> {
        let bias = role.bias().and_then(|bias| loaded.vector_if_any(bias, Some(layer)));
        Ok(Self { weight: loaded.matrix(role, Some(layer))?, bias })
    }

    /// Its product with `n_rows` rows of `x`, added to those of `residual`.
    pub fn of(self, x: BufferId, n_rows: usize, residual: Option<BufferId>, out: BufferId) -> Matmul {
        Matmul { weight: self.weight, x, first_row: 0, n_rows, bias: self.bias, residual, out }
    }
}
