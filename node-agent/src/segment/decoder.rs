//! The layers of decoder-only families, as an engine holds them. Computes nothing.

use polyphony_kernels::{Engine, KvLayout, PositionBias, Recording};
use polyphony_model::family::Positions;
use polyphony_model::{Holds, Hyperparameters, Uses};

use super::attention::{Cache, SelfAttention};
use super::convolution::Convolution;
use super::feed_forward::FeedForward;
use super::loaded::Loaded;
use super::stream::{self, Stream};
use super::turns::Turns;
use super::{Capacity, Rounding, SegmentError, alibi};

pub(super) struct Layer {
    pub mixer: Mixer,
    ffn: FeedForward,
}

/// What brings a session's rows together: its weights, and what it keeps of their past.
pub(super) enum Mixer {
    Attention(SelfAttention, Cache),
    Convolution(Convolution),
}

/// The layers here, and the stream through them.
pub(super) struct Decoder {
    pub layers: Vec<Layer>,
    pub stream: Stream,
}

// === impl Layer ===

impl Layer {
    /// The ops of one step.
    pub fn record(&self, recording: &mut Recording, stream: &Stream) {
        match &self.mixer {
            Mixer::Attention(attention, cache) => {
                stream.record_self_attention(recording, attention, &self.ffn, *cache, None);
            }
            Mixer::Convolution(convolution) => stream.record_convolution(recording, convolution),
        }
        stream.record_feed_forward(recording, &self.ffn);
    }
}

// === impl Decoder ===

impl Decoder {
    /// The layers of `holds`, whose tensors are loaded.
    pub fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        holds: Holds,
        capacity: Capacity,
        rounding: Rounding,
    ) -> Result<Self, SegmentError> {
        let kv_width = (of.n_kv_heads * of.head_size) as usize;
        let layout = KvLayout {
            n_slots: capacity.n_slots,
            n_positions: capacity.n_positions,
            kv_width,
            kv_type: rounding.kv_type,
        };
        let turns = Turns::build(loaded, of, capacity.n_positions)?;
        let mut uses = Uses::default();
        let layers = holds.layers.iter().map(|layer| {
            let ffn = FeedForward::build(loaded, of, layer)?;
            stream::feed(&mut uses, &ffn);
            let mixer = if of.is_convolution(layer) {
                let layout = Convolution::layout(of, layout);
                Mixer::Convolution(Convolution::build(engine, loaded, of, layer, layout)?)
            } else {
                let attention = SelfAttention::build(loaded, of, &turns, layer)?;
                stream::attend(&mut uses, &attention);
                Mixer::Attention(attention, Cache::alloc(engine, layout)?)
            };
            Ok(Layer { mixer, ffn })
        });
        let layers = layers.collect::<Result<Vec<_>, SegmentError>>()?;
        let bias = match of.architecture.family().positions {
            Positions::Rotary(_) | Positions::Learned | Positions::Buckets => None,
            Positions::Alibi => Some(PositionBias::Slopes(engine.load_vector(&alibi::slopes(of.n_heads))?)),
        };
        let stream = Stream::build(engine, of, rounding.activation_type, layout, bias, uses, capacity.max_rows)?;
        Ok(Self { layers, stream })
    }
}
