//! Any segment: of a model with an encoder or without, as the thread sees it that owns one. Computes nothing itself.

use polyphony_kernels::{Engine, FileBytes, Row};
use polyphony_model::{Holds, Manifest, TensorEntry};

use super::{Capacity, DecoderRow, EncoderDecoderSegment, Input, Output, Rounding, Segment, SegmentError};

/// The layers that a phone holds, loaded, of whatever kind the model is.
pub enum AnySegment {
    DecoderOnly(Box<Segment>),
    EncoderDecoder(Box<EncoderDecoderSegment>),
}

// === impl AnySegment ===

impl AnySegment {
    /// As [`Segment::load`].
    ///
    /// # Errors
    /// As [`Segment::load`].
    pub fn load<E: From<SegmentError>, B: FileBytes + 'static>(
        engine: Box<dyn Engine>,
        manifest: &Manifest,
        holds: Holds,
        capacity: Capacity,
        rounding: impl Into<Rounding>,
        bytes_of: impl FnMut(&TensorEntry) -> Result<B, E>,
    ) -> Result<Self, E> {
        Ok(match manifest.hyperparameters.encoder {
            None => Self::DecoderOnly(Box::new(Segment::load(engine, manifest, holds, capacity, rounding, bytes_of)?)),
            Some(_) => Self::EncoderDecoder(Box::new(EncoderDecoderSegment::load(
                engine, manifest, holds, capacity, rounding, bytes_of,
            )?)),
        })
    }

    pub fn capacity(&self) -> Capacity {
        match self {
            Self::DecoderOnly(segment) => segment.capacity(),
            Self::EncoderDecoder(segment) => segment.capacity(),
        }
    }

    pub fn hidden_size(&self) -> usize {
        match self {
            Self::DecoderOnly(segment) => segment.hidden_size(),
            Self::EncoderDecoder(segment) => segment.hidden_size(),
        }
    }

    /// Bytes that weights and buffers take on the engine.
    pub fn bytes_used(&self) -> u64 {
        match self {
            Self::DecoderOnly(segment) => segment.bytes_used(),
            Self::EncoderDecoder(segment) => segment.bytes_used(),
        }
    }

    /// All that is loaded.
    pub fn holds(&self) -> Holds {
        match self {
            Self::DecoderOnly(segment) => segment.holds(),
            Self::EncoderDecoder(segment) => segment.holds(),
        }
    }

    /// Layers of `part` that rows of decoding go through.
    pub fn n_decoding_layers(&self, part: Holds) -> usize {
        part.layers.len() as usize - self.n_encoding_layers(part)
    }

    /// Layers of `part` that a prompt is encoded by.
    pub fn n_encoding_layers(&self, part: Holds) -> usize {
        match self {
            Self::DecoderOnly(_) => 0,
            Self::EncoderDecoder(segment) => segment.n_encoding_layers(part),
        }
    }

    /// Runs one decoding step of a part of what is loaded. `n_encoded` says by row how many positions of an encoder's output there are; it is
    /// not looked at in a model without one.
    ///
    /// # Errors
    /// As [`Segment::step_of`] and [`EncoderDecoderSegment::step_of`].
    pub fn step_of(
        &mut self,
        part: Holds,
        rows: &[Row],
        n_encoded: &[u32],
        input: Input,
        n_logits: usize,
    ) -> Result<Output, SegmentError> {
        match self {
            Self::DecoderOnly(segment) => segment.step_of(part, rows, input, n_logits),
            Self::EncoderDecoder(segment) => {
                let with_length = |(row, n_encoded): (&Row, &u32)| DecoderRow { row: *row, n_encoded: *n_encoded };
                let rows: Vec<_> = rows.iter().zip(n_encoded).map(with_length).collect();
                segment.step_of(part, &rows, input, n_logits)
            }
        }
    }

    /// The segment of a model with an encoder.
    ///
    /// # Errors
    /// When the model has none.
    pub fn with_encoder(&mut self) -> Result<&mut EncoderDecoderSegment, SegmentError> {
        match self {
            Self::DecoderOnly(segment) => Err(SegmentError::NoEncoder { architecture: segment.architecture() }),
            Self::EncoderDecoder(segment) => Ok(segment),
        }
    }

    /// The segment of a model without an encoder, whose KV caches can be handed over.
    ///
    /// # Errors
    /// When the model has one.
    pub fn with_movable_cache(&mut self) -> Result<&mut Segment, SegmentError> {
        match self {
            Self::DecoderOnly(segment) => Ok(segment),
            Self::EncoderDecoder(_) => Err(SegmentError::CacheStays),
        }
    }
}
