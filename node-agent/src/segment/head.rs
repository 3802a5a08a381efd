//! What comes out of the last stage: a norm, the output matrix, and what the family does to logits. Runs nothing.

use polyphony_kernels::{BufferId, Engine, Matmul, MatrixId, Recording, ScaleRows};
use polyphony_model::{Hyperparameters, Role};

use super::loaded::Loaded;
use super::norm::Norm;
use super::stream::Stream;
use super::{Capacity, SegmentError};

pub(super) struct Head {
    norm: Norm,
    output: MatrixId,
    logits: BufferId,
}

// === impl Head ===

impl Head {
    pub fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        capacity: Capacity,
    ) -> Result<Self, SegmentError> {
        let output = if of.tied_embedding { Role::TokenEmbedding } else { Role::Output };
        Ok(Self {
            norm: Norm::build(loaded, of, Role::OutputNorm, None)?,
            output: loaded.matrix(output, None)?,
            logits: engine.alloc(capacity.max_logits() * of.vocab_size as usize)?,
        })
    }
}

// === impl Stream ===

impl Stream {
    /// The logits of the last `n_rows` rows, read back.
    pub fn record_logits(&self, recording: &mut Recording, head: &Head, n_rows: usize) {
        if n_rows == 0 {
            return;
        }
        let (x, out, width) = (self.buffers.normed, head.logits, self.of().vocab_size as usize);
        let first_row = recording.rows.len().saturating_sub(n_rows);
        self.push_norm(recording, head.norm, self.buffers.hidden, first_row, n_rows, x);
        recording.push(Matmul { weight: head.output, x, first_row: 0, n_rows, bias: None, residual: None, out });
        let (scale, (_, cap)) = (self.of().logit_scale(), self.of().caps());
        if scale != 1.0 || cap.is_some() {
            recording.push(ScaleRows { x: out, scale, cap, width, n_rows });
        }
        recording.readback(out, 0..n_rows * width);
    }
}
