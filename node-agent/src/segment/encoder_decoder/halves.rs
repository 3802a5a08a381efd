//! The halves of an encoder–decoder segment as an engine holds them: weights, caches, activations. Computes nothing.

use polyphony_kernels::{BufferId, Engine, KvLayout, MatrixId, PositionBias, VectorId};
use polyphony_model::{Encoder, Holds, Hyperparameters, Role};

use crate::segment::loaded::Loaded;
use crate::segment::{Capacity, SegmentError, buckets};

/// Attention over one set of keys and values: its norm and its four matrices.
pub(super) struct AttentionWeights {
    pub(super) norm: VectorId,
    pub(super) query: MatrixId,
    pub(super) key: MatrixId,
    pub(super) value: MatrixId,
    pub(super) output: MatrixId,
}

pub(super) struct FeedForward {
    pub(super) norm: VectorId,
    pub(super) gate: Option<MatrixId>,
    pub(super) up: MatrixId,
    pub(super) down: MatrixId,
}

pub(super) struct EncoderLayer {
    pub(super) attention: AttentionWeights,
    pub(super) ffn: FeedForward,
}

pub(super) struct DecoderLayer {
    pub(super) attention: AttentionWeights,
    pub(super) cache: Cache,
    pub(super) cross: AttentionWeights,
    /// Of the encoder's output.
    pub(super) cross_cache: Cache,
    pub(super) ffn: FeedForward,
}

#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub(super) k: BufferId,
    pub(super) v: BufferId,
}

/// The encoder's layers here. A prompt is encoded at one go, so its keys and values need no place of their own in each layer.
pub(super) struct EncoderHalf {
    /// From the model's layer `first` on.
    pub(super) layers: Vec<EncoderLayer>,
    pub(super) first: u32,
    pub(super) bias: PositionBias,
    /// Of the last of them.
    pub(super) output_norm: Option<VectorId>,
    pub(super) cache: Cache,
    pub(super) layout: KvLayout,
    pub(super) activations: Activations,
}

/// The decoder's layers here.
pub(super) struct DecoderHalf {
    /// From the model's layer `first` on.
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) first: u32,
    pub(super) bias: PositionBias,
    pub(super) layout: KvLayout,
    /// The encoder's output of one session, until keys and values are made of it.
    pub(super) encoded: BufferId,
    pub(super) encoded_key: BufferId,
    pub(super) encoded_value: BufferId,
    pub(super) head: Option<Head>,
    pub(super) activations: Activations,
}

pub(super) struct Head {
    pub(super) norm: VectorId,
    pub(super) output: MatrixId,
    pub(super) logits: BufferId,
}

/// Activations of so many rows.
pub(super) struct Activations {
    pub(super) hidden: BufferId,
    pub(super) normed: BufferId,
    pub(super) query: BufferId,
    pub(super) key: BufferId,
    pub(super) value: BufferId,
    pub(super) attended: BufferId,
    pub(super) gate: BufferId,
    pub(super) up: BufferId,
    pub(super) ffn: BufferId,
}

// === impl EncoderHalf ===

impl EncoderHalf {
    pub(super) fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        shape: Encoder,
        holds: Holds,
        capacity: Capacity,
    ) -> Result<Option<Self>, SegmentError> {
        let here: Vec<u32> = holds.layers.iter().filter(|layer| *layer < shape.n_layers).collect();
        if here.is_empty() {
            return Ok(None);
        }
        let layers = here.iter().map(|&layer| {
            Ok(EncoderLayer {
                attention: AttentionWeights::of_self(loaded, layer)?,
                ffn: FeedForward::build(loaded, layer)?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, SegmentError>>()?;
        let layout = KvLayout { n_slots: 1, ..layout(of, capacity) };
        let is_last = here.last() == Some(&(shape.n_layers - 1));
        Ok(Some(Self {
            layers,
            first: holds.layers.from,
            bias: buckets::of_encoder(engine, loaded, of, shape)?,
            output_norm: is_last.then(|| loaded.vector(Role::EncoderOutputNorm, None)).transpose()?,
            cache: Cache::alloc(engine, layout)?,
            layout,
            activations: Activations::alloc(engine, of, capacity.n_positions)?,
        }))
    }
}

// === impl DecoderHalf ===

impl DecoderHalf {
    pub(super) fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        shape: Encoder,
        holds: Holds,
        capacity: Capacity,
    ) -> Result<Option<Self>, SegmentError> {
        let here: Vec<u32> = holds.layers.iter().filter(|layer| *layer >= shape.n_layers).collect();
        if here.is_empty() {
            return Ok(None);
        }
        let layout = layout(of, capacity);
        let layers = here.iter().map(|&layer| {
            Ok(DecoderLayer {
                attention: AttentionWeights::of_self(loaded, layer)?,
                cache: Cache::alloc(engine, layout)?,
                cross: AttentionWeights::of_cross(loaded, layer)?,
                cross_cache: Cache::alloc(engine, layout)?,
                ffn: FeedForward::build(loaded, layer)?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, SegmentError>>()?;
        let output = if of.tied_embedding { Role::TokenEmbedding } else { Role::Output };
        let head = match holds.head {
            false => None,
            true => Some(Head {
                norm: loaded.vector(Role::OutputNorm, None)?,
                output: loaded.matrix(output, None)?,
                logits: engine.alloc(capacity.max_logits() * of.vocab_size as usize)?,
            }),
        };
        Ok(Some(Self {
            layers,
            first: holds.layers.from.max(shape.n_layers),
            bias: buckets::of_decoder(engine, loaded, of, shape)?,
            layout,
            encoded: engine.alloc(capacity.n_positions * of.hidden_size as usize)?,
            encoded_key: engine.alloc(capacity.n_positions * layout.kv_width)?,
            encoded_value: engine.alloc(capacity.n_positions * layout.kv_width)?,
            head,
            activations: Activations::alloc(engine, of, capacity.max_rows)?,
        }))
    }
}

fn layout(of: &Hyperparameters, capacity: Capacity) -> KvLayout {
    let kv_width = (of.n_kv_heads * of.head_size) as usize;
    KvLayout { n_slots: capacity.n_slots, n_positions: capacity.n_positions, kv_width }
}

// === impl AttentionWeights ===

impl AttentionWeights {
    fn of_self(loaded: &Loaded, layer: u32) -> Result<Self, SegmentError> {
        let matrix = |role| loaded.matrix(role, Some(layer));
        Ok(Self {
            norm: loaded.vector(Role::AttentionNorm, Some(layer))?,
            query: matrix(Role::Query)?,
            key: matrix(Role::Key)?,
            value: matrix(Role::Value)?,
            output: matrix(Role::AttentionOutput)?,
        })
    }

    fn of_cross(loaded: &Loaded, layer: u32) -> Result<Self, SegmentError> {
        let matrix = |role| loaded.matrix(role, Some(layer));
        Ok(Self {
            norm: loaded.vector(Role::CrossNorm, Some(layer))?,
            query: matrix(Role::CrossQuery)?,
            key: matrix(Role::CrossKey)?,
            value: matrix(Role::CrossValue)?,
            output: matrix(Role::CrossOutput)?,
        })
    }
}

// === impl FeedForward ===

impl FeedForward {
    fn build(loaded: &Loaded, layer: u32) -> Result<Self, SegmentError> {
        Ok(Self {
            norm: loaded.vector(Role::FfnNorm, Some(layer))?,
            gate: loaded.matrix(Role::FfnGate, Some(layer)).ok(),
            up: loaded.matrix(Role::FfnUp, Some(layer))?,
            down: loaded.matrix(Role::FfnDown, Some(layer))?,
        })
    }
}

// === impl Cache ===

impl Cache {
    fn alloc(engine: &mut dyn Engine, layout: KvLayout) -> Result<Self, SegmentError> {
        Ok(Self { k: engine.alloc(layout.len())?, v: engine.alloc(layout.len())? })
    }
}

// === impl Activations ===

impl Activations {
    fn alloc(engine: &mut dyn Engine, of: &Hyperparameters, n_rows: usize) -> Result<Self, SegmentError> {
        let mut rows_of = |width: u32| engine.alloc(n_rows * width as usize);
        let (query, kv) = (of.n_heads * of.head_size, of.n_kv_heads * of.head_size);
        Ok(Self {
            hidden: rows_of(of.hidden_size)?,
            normed: rows_of(of.hidden_size)?,
            query: rows_of(query)?,
            key: rows_of(kv)?,
            value: rows_of(kv)?,
            attended: rows_of(query)?,
            gate: rows_of(of.ffn_size)?,
            up: rows_of(of.ffn_size)?,
            ffn: rows_of(of.ffn_size)?,
        })
    }
}
