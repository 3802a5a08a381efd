//! What goes into a step: tokens to embed, or hidden states from the stage before. Runs nothing.

use polyphony_kernels::{EmbedRows, MatrixId, Recording};
use polyphony_model::{Hyperparameters, Role};

use super::loaded::Loaded;
use super::norm::Norm;
use super::stream::Stream;
use super::{Input, SegmentError};

/// What turns tokens into hidden states.
#[derive(Clone, Copy)]
pub(super) struct Embedding {
    table: MatrixId,
    /// One row for each position, added.
    positions: Option<MatrixId>,
    norm: Option<Norm>,
}

// === impl Embedding ===

impl Embedding {
    pub fn build(loaded: &Loaded, of: &Hyperparameters) -> Result<Self, SegmentError> {
        let has_positions = Role::PositionEmbedding.is_in(of);
        Ok(Self {
            table: loaded.matrix(Role::TokenEmbedding, None)?,
            positions: has_positions.then(|| loaded.matrix(Role::PositionEmbedding, None)).transpose()?,
            norm: Norm::if_any(loaded, of, Role::TokenEmbeddingNorm, None)?,
        })
    }
}

// === impl Stream ===

impl Stream {
    /// Puts a step's input to where its hidden states are: tokens with an `embedding`, hidden states without.
    ///
    /// # Errors
    /// Input of the other kind, or of other rows than the recording's.
    pub fn record_input(
        &self,
        recording: &mut Recording,
        input: Input,
        embedding: Option<&Embedding>,
    ) -> Result<(), SegmentError> {
        let n_rows = recording.rows.len();
        let (values, expected) = match &input {
            Input::Tokens(tokens) => (tokens.len(), n_rows),
            Input::Hidden(values) => (values.len(), n_rows * self.hidden_size()),
        };
        match (input, embedding) {
            (Input::Tokens(_), None) => Err(SegmentError::InputKind { given: "tokens", wanted: "hidden states" }),
            (Input::Hidden(_), Some(_)) => Err(SegmentError::InputKind { given: "hidden states", wanted: "tokens" }),
            _ if values != expected => Err(SegmentError::InputSize { rows: n_rows, values, expected }),
            (Input::Hidden(values), None) => {
                recording.upload(self.buffers.hidden, 0, values);
                Ok(())
            }
            (Input::Tokens(tokens), Some(embedding)) => {
                self.record_embedding(recording, embedding, tokens);
                Ok(())
            }
        }
    }

    fn record_embedding(&self, recording: &mut Recording, embedding: &Embedding, tokens: Vec<u32>) {
        let (table, n_rows) = (embedding.table, tokens.len());
        let out = if embedding.norm.is_some() { self.buffers.normed } else { self.buffers.hidden };
        recording.push(EmbedRows { table, tokens, scale: self.of().embedding_scale(), adds: false, out });
        if let Some(table) = embedding.positions {
            let tokens = recording.rows.iter().map(|row| row.position).collect();
            recording.push(EmbedRows { table, tokens, scale: 1.0, adds: true, out });
        }
        if let Some(norm) = embedding.norm {
            self.push_norm(recording, norm, out, 0, n_rows, self.buffers.hidden);
        }
    }
}
