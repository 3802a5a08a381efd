//! The halves of an encoder–decoder segment as an engine holds them: layers, caches, streams. Computes nothing.

use polyphony_kernels::{BufferId, Engine, KvLayout, MatrixId};
use polyphony_model::{Encoder, Holds, Hyperparameters, Role, Uses};

use crate::segment::attention::{Cache, SelfAttention};
use crate::segment::feed_forward::FeedForward;
use crate::segment::head::Head;
use crate::segment::linear::Linear;
use crate::segment::loaded::Loaded;
use crate::segment::norm::Norm;
use crate::segment::stream::{self, Stream};
use crate::segment::turns::Turns;
use crate::segment::{Capacity, Rounding, SegmentError, buckets};

/// What every layer of either half has.
pub(super) struct Layer {
    pub(super) attention: SelfAttention,
    pub(super) ffn: FeedForward,
}

pub(super) struct DecoderLayer {
    pub(super) layer: Layer,
    pub(super) cache: Cache,
    pub(super) cross: CrossAttention,
    /// Of the encoder's output.
    pub(super) cross_cache: Cache,
}

/// Attention to the encoder's output.
pub(super) struct CrossAttention {
    pub(super) norm: Norm,
    pub(super) query: Linear,
    pub(super) key: MatrixId,
    pub(super) value: MatrixId,
    pub(super) output: Linear,
}

/// The encoder's layers here. A prompt is encoded at one go, so its keys and values need no place of their own in each layer.
pub(super) struct EncoderHalf {
    /// From the model's layer `first` on.
    pub(super) layers: Vec<Layer>,
    pub(super) first: u32,
    /// Of the last of them.
    pub(super) output_norm: Option<Norm>,
    pub(super) cache: Cache,
    pub(super) stream: Stream,
}

/// The decoder's layers here.
pub(super) struct DecoderHalf {
    /// From the model's layer `first` on.
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) first: u32,
    /// The encoder's output of one session, until keys and values are made of it.
    pub(super) encoded: BufferId,
    pub(super) encoded_key: BufferId,
    pub(super) encoded_value: BufferId,
    pub(super) head: Option<Head>,
    pub(super) stream: Stream,
}

/// What both halves are built of.
pub(super) struct Parts<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) of: &'a Hyperparameters,
    pub(super) shape: Encoder,
    pub(super) holds: Holds,
    pub(super) capacity: Capacity,
    pub(super) rounding: Rounding,
}

// === impl Parts ===

impl Parts<'_> {
    fn layer(&self, turns: &Turns, layer: u32) -> Result<Layer, SegmentError> {
        Ok(Layer {
            attention: SelfAttention::build(self.loaded, self.of, turns, layer)?,
            ffn: FeedForward::build(self.loaded, self.of, layer)?,
        })
    }

    fn turns(&self) -> Result<Turns, SegmentError> {
        Turns::build(self.loaded, self.of, self.capacity.n_positions)
    }

    fn layout(&self) -> KvLayout {
        let kv_width = (self.of.n_kv_heads * self.of.head_size) as usize;
        let Capacity { n_slots, n_positions, .. } = self.capacity;
        KvLayout { n_slots, n_positions, kv_width, kv_type: self.rounding.kv_type }
    }
}

// === impl Layer ===

impl Layer {
    fn take_part(&self, uses: &mut Uses) {
        stream::attend(uses, &self.attention);
        stream::feed(uses, &self.ffn);
    }
}

// === impl EncoderHalf ===

impl EncoderHalf {
    pub(super) fn build(engine: &mut dyn Engine, parts: &Parts<'_>) -> Result<Option<Self>, SegmentError> {
        let Parts { loaded, of, shape, holds, capacity, rounding } = *parts;
        let here: Vec<u32> = holds.layers.iter().filter(|layer| *layer < shape.n_layers).collect();
        if here.is_empty() {
            return Ok(None);
        }
        let turns = parts.turns()?;
        let layers = here.iter().map(|&layer| parts.layer(&turns, layer)).collect::<Result<Vec<_>, _>>()?;
        let mut uses = Uses::default();
        layers.iter().for_each(|layer| layer.take_part(&mut uses));
        let layout = KvLayout { n_slots: 1, ..parts.layout() };
        let is_last = here.last() == Some(&(shape.n_layers - 1));
        let output_norm = match is_last {
            false => None,
            true => Some(Norm::build(loaded, of, Role::EncoderOutputNorm, None)?),
        };
        let bias = Some(buckets::of_encoder(engine, loaded, of, shape)?);
        Ok(Some(Self {
            layers,
            first: holds.layers.from,
            output_norm,
            cache: Cache::alloc(engine, layout)?,
            stream: Stream::build(engine, of, rounding.activation_type, layout, bias, uses, capacity.n_positions)?,
        }))
    }
}

// === impl DecoderHalf ===

impl DecoderHalf {
    pub(super) fn build(engine: &mut dyn Engine, parts: &Parts<'_>) -> Result<Option<Self>, SegmentError> {
        let Parts { loaded, of, shape, holds, capacity, rounding } = *parts;
        let here: Vec<u32> = holds.layers.iter().filter(|layer| *layer >= shape.n_layers).collect();
        if here.is_empty() {
            return Ok(None);
        }
        let layout = parts.layout();
        let turns = parts.turns()?;
        let layers = here.iter().map(|&layer| {
            Ok(DecoderLayer {
                layer: parts.layer(&turns, layer)?,
                cache: Cache::alloc(engine, layout)?,
                cross: CrossAttention::build(loaded, of, layer)?,
                cross_cache: Cache::alloc(engine, layout)?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>, SegmentError>>()?;
        let mut uses = Uses::default();
        layers.iter().for_each(|it| it.layer.take_part(&mut uses));
        let head = match holds.head {
            false => None,
            true => Some(Head::build(engine, loaded, of, capacity)?),
        };
        let bias = Some(buckets::of_decoder(engine, loaded, of, shape)?);
        Ok(Some(Self {
            layers,
            first: holds.layers.from.max(shape.n_layers),
            encoded: engine.alloc(capacity.n_positions * of.hidden_size as usize)?,
            encoded_key: engine.alloc(capacity.n_positions * layout.kv_width)?,
            encoded_value: engine.alloc(capacity.n_positions * layout.kv_width)?,
            head,
            stream: Stream::build(engine, of, rounding.activation_type, layout, bias, uses, capacity.max_rows)?,
        }))
    }
}

// === impl CrossAttention ===

impl CrossAttention {
    fn build(loaded: &Loaded, of: &Hyperparameters, layer: u32) -> Result<Self, SegmentError> {
        Ok(Self {
            norm: Norm::build(loaded, of, Role::CrossNorm, Some(layer))?,
            query: Linear::build(loaded, Role::CrossQuery, layer)?,
            key: loaded.matrix(Role::CrossKey, Some(layer))?,
            value: loaded.matrix(Role::CrossValue, Some(layer))?,
            output: Linear::build(loaded, Role::CrossOutput, layer)?,
        })
    }
}
