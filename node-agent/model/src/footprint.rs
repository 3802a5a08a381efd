//! Footprint: the memory that a segment takes. One account for the planner and for the phone.

mod engine_form;
mod joins;
mod on_cpu;
mod on_gpu;
mod step;
mod way;

use crate::family::Positions;
use crate::holds::{Holds, LayerRange};
use crate::hyperparameters::Hyperparameters;
use crate::kv_type::KvType;
use crate::manifest::Manifest;

pub use engine_form::EngineForm;
pub use step::{ExpertWidths, StepWidths, Uses};

use on_gpu::Growing;
use way::{Way, Work};

/// Token rows of one step: the prefill chunk of every ring.
pub const STEP_ROWS: u32 = 32;
/// The most chunks of a session that may be on their way through a ring at a time.
pub const MAX_CHUNKS: u32 = 8;
/// Bytes of a piece of a KV cache on its way to another phone, and how many may wait at a segment each way.
pub const CACHE_PIECE_BYTES: u64 = 256 << 10;
pub const CACHE_PIECES: u32 = 2;
/// Bytes on their way from one engine of a mixed one to the other at a time.
const BROUGHT_BYTES: u64 = 2 << 20;
/// Bytes of a value of an activation: f32. On a wire they are no more.
pub const VALUE_BYTES: u32 = 4;

/// Distances that have a bias each where biases are learned, in an encoder and in a decoder.
const DISTANCES: [u64; 2] = [257, 129];

/// What a segment takes of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Matrices and vectors as the engine keeps them, from when it is loaded.
    pub weights: u64,
    /// Keys and values of all sessions, from then too.
    pub kv_cache: u64,
    /// The buffers of a step, from then too, and what a step takes while it runs.
    pub step: u64,
    /// What may wait beside the engine: rows of chunks and prompts, and pieces of caches that move. Queues are bounded by it.
    pub waiting: u64,
}

/// What a segment has to have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Sessions held at a time.
    pub n_sessions: u32,
    /// Tokens of each.
    pub context_length: u32,
}

/// Rows of prompts, and of an encoder's output for them, that a stage of an encoder–decoder model may hold at a time. Its queues are bounded
/// by this, and it declares memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptRows {
    /// Of each session here: rows that come, or all of them while they wait for their step; and what comes out of the one that runs.
    pub held: u64,
    /// Rows that go out to other stages, or have come before their session: no stage has both.
    pub passing: u64,
}

// === impl Room ===

impl Room {
    /// What may be held of prompts where they are encoded.
    pub fn prompt_rows(self) -> PromptRows {
        let of_sessions = u64::from(self.n_sessions).saturating_mul(u64::from(self.context_length));
        PromptRows { held: of_sessions.saturating_add(u64::from(self.context_length)), passing: of_sessions }
    }

    /// Rows of [`MAX_CHUNKS`] chunks a session: what may wait at a stage, computed or not. A session has no more rows than positions.
    pub fn chunk_rows(self) -> u64 {
        u64::from(self.n_sessions).saturating_mul(u64::from((MAX_CHUNKS * STEP_ROWS).min(self.context_length)))
    }
}

impl PromptRows {
    /// Both kinds.
    pub fn all(self) -> u64 {
        self.held.saturating_add(self.passing)
    }
}

// === impl Footprint ===

impl Footprint {
    /// All of it: what a segment declares.
    pub fn total(&self) -> u64 {
        self.computing().saturating_add(self.waiting)
    }

    /// What the engine holds and a step takes.
    pub fn computing(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.step)
    }
}

// === impl Manifest ===

impl Manifest {
    /// What a segment takes on engines of this form, which keep keys and values in `kv_type`.
    pub fn footprint(&self, holds: &Holds, room: Room, form: EngineForm, kv_type: KvType) -> Footprint {
        let of = &self.hyperparameters;
        let mut footprint = Footprint { waiting: of.waiting_bytes(room), ..Footprint::default() };
        for &engine in form.engines() {
            let tensors = self.tensors_of(holds).into_iter();
            let weights = tensors.fold(0, |sum: u64, tensor| sum.saturating_add(engine.tensor_bytes(tensor)));
            let caches = holds.layers.iter().map(|layer| of.cache_bytes(layer, room, engine, kv_type));
            let caches = caches.fold(of.encoder_cache_on(holds.layers, room, engine, kv_type), u64::saturating_add);
            let add = |to: &mut u64, bytes: u64| *to = to.saturating_add(bytes);
            add(&mut footprint.weights, weights.saturating_add(of.position_bytes(holds.layers)));
            add(&mut footprint.kv_cache, caches);
            add(&mut footprint.step, self.step_bytes(holds, room, engine));
        }
        if form.engines().len() > 1 {
            let back =
                holds.layers.iter().map(|layer| of.brought_back(layer, room, kv_type)).fold(0, u64::saturating_add);
            footprint.kv_cache = footprint.kv_cache.saturating_add(back);
            footprint.step = footprint.step.saturating_add(BROUGHT_BYTES);
        }
        footprint
    }

    /// Bytes of each layer's weights and caches.
    pub fn layer_footprints(&self, room: Room, form: EngineForm, kv_type: KvType) -> Vec<u64> {
        let of = &self.hyperparameters;
        let is_mixed = form.engines().len() > 1;
        let back = |layer| if is_mixed { of.brought_back(layer, room, kv_type) } else { 0 };
        let mut bytes: Vec<u64> = (0..of.n_layers).map(back).collect();
        for &engine in form.engines() {
            for (layer, bytes) in (0..).zip(&mut bytes) {
                *bytes = bytes.saturating_add(of.cache_bytes(layer, room, engine, kv_type));
            }
            for tensor in &self.tensors {
                if let Some(bytes) = tensor.layer.and_then(|layer| bytes.get_mut(layer as usize)) {
                    *bytes = bytes.saturating_add(engine.tensor_bytes(tensor));
                }
            }
        }
        bytes
    }

    /// Bytes of the buffers of a step, with those of the logits of one row a session on the tail, and of what a step takes while it runs.
    fn step_bytes(&self, holds: &Holds, room: Room, form: EngineForm) -> u64 {
        let of = &self.hyperparameters;
        let ways = Way::all(self, holds, room);
        let mut sum = 0_u64;
        let mut add = |bytes: u64| sum = sum.saturating_add(bytes);
        for way in &ways {
            let rows_of = |width: u64| form.buffer_bytes(way.n_rows.saturating_mul(width));
            if way.work == Work::TakeEncoded {
                // The output, and the keys and values of one layer that are made of it.
                let kv_width = u64::from(of.n_kv_heads) * u64::from(of.head_size);
                [u64::from(of.hidden_size), kv_width, kv_width].into_iter().for_each(|width| add(rows_of(width)));
                continue;
            }
            let uses = Uses::by(&way.joins, of.is_gated());
            StepWidths::new(of, uses).all().for_each(|width| add(rows_of(u64::from(width))));
            if way.n_logits > 0 {
                add(form.buffer_bytes(way.n_logits.saturating_mul(u64::from(of.vocab_size))));
            }
        }
        // One step at a time.
        if form.is_gpu() {
            add(ways.iter().map(|way| way.growing(form)).fold(Growing::default(), Growing::most).bytes());
            add(self.made_bytes(&ways, holds, room, form));
        } else {
            add(ways.iter().map(|way| way.bytes_on_cpu(form)).max().unwrap_or(0));
        }
        sum
    }
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Bytes of one layer's KV cache for all sessions; in an encoder–decoder model as much again for the encoder's output.
    pub fn kv_bytes_per_layer(&self, room: Room, kv_type: KvType) -> u64 {
        let n_caches = if self.encoder.is_some() { 2 } else { 1 };
        self.kv_bytes_per_token_per_layer(kv_type)
            .saturating_mul(n_caches)
            .saturating_mul(u64::from(room.n_sessions))
            .saturating_mul(u64::from(room.context_length))
    }

    /// What may wait at a stage: hidden states of [`Room::chunk_rows`], in an encoder–decoder model of [`Room::prompt_rows`], and pieces of
    /// KV caches that move.
    pub fn waiting_bytes(&self, room: Room) -> u64 {
        let prompts = if self.encoder.is_some() { room.prompt_rows().all() } else { 0 };
        let rows = room.chunk_rows().saturating_add(prompts);
        let values = u64::from(self.hidden_size).saturating_mul(rows);
        values.saturating_mul(u64::from(VALUE_BYTES)).saturating_add(2 * u64::from(CACHE_PIECES) * CACHE_PIECE_BYTES)
    }

    /// Layers of the encoder, and those that decode.
    fn halves(&self, layers: LayerRange) -> (LayerRange, LayerRange) {
        let n_encoding = self.encoder.map_or(0, |encoder| encoder.n_layers);
        let LayerRange { from, to } = layers;
        (LayerRange { from, to: to.min(n_encoding) }, LayerRange { from: from.max(n_encoding), to })
    }

    /// Bytes of what a layer keeps of the past of all sessions: keys and values, of an encoder's output too, or what a convolution goes over.
    fn cache_bytes(&self, layer: u32, room: Room, form: EngineForm, kv_type: KvType) -> u64 {
        let n_positions = u64::from(room.n_sessions).saturating_mul(u64::from(room.context_length));
        if self.is_convolution(layer) {
            // As it is computed, whatever keys and values are kept in.
            return form.buffer_bytes(n_positions.saturating_mul(u64::from(self.hidden_size)));
        }
        // An encoder's layers share a cache, of one prompt.
        let n_caches = match self.encoder {
            Some(encoder) if layer < encoder.n_layers => 0,
            Some(_) => 2,
            None => 1,
        };
        self.key_and_value_bytes(n_positions, form, kv_type).saturating_mul(n_caches)
    }

    /// Bytes of the cache that an encoder's layers share, where any of these is one.
    pub fn encoder_cache_bytes(&self, layers: LayerRange, room: Room, form: EngineForm, kv_type: KvType) -> u64 {
        let on = |&engine: &EngineForm| self.encoder_cache_on(layers, room, engine, kv_type);
        form.engines().iter().map(on).fold(0, u64::saturating_add)
    }

    fn encoder_cache_on(&self, layers: LayerRange, room: Room, form: EngineForm, kv_type: KvType) -> u64 {
        let encodes = !self.halves(layers).0.is_empty();
        if encodes { self.key_and_value_bytes(u64::from(room.context_length), form, kv_type) } else { 0 }
    }

    /// Of a layer on a mixed engine: what a prompt keeps comes back with its results. It lies in a buffer that is up to twice as large as what has to
    /// fit, in the results, and apart from those before it is where it belongs.
    fn brought_back(&self, layer: u32, room: Room, kv_type: KvType) -> u64 {
        // An encoder takes a prompt at once.
        let n_rows = if self.encoder.is_some() { room.context_length } else { STEP_ROWS.min(room.context_length) };
        let kept = match self.is_convolution(layer) {
            true => u64::from(n_rows).saturating_mul(u64::from(self.hidden_size) * u64::from(VALUE_BYTES)),
            false => self.kv_bytes_per_layer(Room { n_sessions: 1, context_length: n_rows }, kv_type),
        };
        kept.saturating_mul(4)
    }

    fn key_and_value_bytes(&self, n_positions: u64, form: EngineForm, kv_type: KvType) -> u64 {
        let row_words = kv_type.row_bytes(u64::from(self.n_kv_heads) * u64::from(self.head_size)) / 4;
        form.buffer_bytes(n_positions.saturating_mul(row_words)).saturating_mul(2)
    }

    /// Bytes of what positions add to scores: slopes of heads, or the biases of buckets by distance.
    fn position_bytes(&self, layers: LayerRange) -> u64 {
        let n_heads = u64::from(self.n_heads);
        let (encoding, decoding) = self.halves(layers);
        let of_half = |n: u64, layers: LayerRange| if layers.is_empty() { 0 } else { 4 * n_heads * n };
        match self.architecture.family().positions {
            Positions::Alibi => of_half(1, decoding),
            Positions::Buckets => of_half(DISTANCES[0], encoding) + of_half(DISTANCES[1], decoding),
            Positions::Rotary(_) | Positions::Learned => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each engine of a mixed one holds all; what waits beside them waits once.
    #[test]
    fn a_mixed_engine_takes_what_both_of_its_engines_do() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/golden/tiny/llama_q4_0.gguf");
        let manifest = Manifest::build(&path).expect("a golden file");
        let holds = Holds::all(manifest.hyperparameters.n_layers);
        let room = Room { n_sessions: 2, context_length: 64 };
        let of = |form| manifest.footprint(&holds, room, form, KvType::F16);
        for (mixed, engines) in [
            (EngineForm::MixedF32, [EngineForm::CpuF32, EngineForm::VulkanF32]),
            (EngineForm::MixedInt8, [EngineForm::CpuInt8, EngineForm::VulkanInt8]),
        ] {
            let (mixed, [cpu, gpu]) = (of(mixed), engines.map(of));
            assert_eq!(mixed.weights, cpu.weights + gpu.weights);
            let on_its_way: u64 = (0..manifest.hyperparameters.n_layers)
                .map(|layer| manifest.hyperparameters.brought_back(layer, room, KvType::F16))
                .sum();
            assert_eq!(mixed.kv_cache, cpu.kv_cache + gpu.kv_cache + on_its_way);
            assert_eq!(mixed.step, cpu.step + gpu.step + BROUGHT_BYTES);
            assert_eq!(mixed.waiting, cpu.waiting);
        }
    }
}
