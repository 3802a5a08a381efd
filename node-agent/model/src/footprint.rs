//! Footprint: the memory that a segment takes. One account for the planner and for the phone.

mod engine_form;
mod step;

use crate::family::Positions;
use crate::holds::{Holds, LayerRange};
use crate::hyperparameters::Hyperparameters;
use crate::manifest::Manifest;
use crate::role::Role;

pub use engine_form::EngineForm;
pub use step::{StepWidths, Uses};

use engine_form::is_quantised;

/// Token rows of one step: the prefill chunk of every ring.
pub const STEP_ROWS: u32 = 32;
/// The most chunks of a session that may be on their way through a ring at a time.
pub const MAX_CHUNKS: u32 = 8;
/// Bytes of a piece of a KV cache on its way to another phone, and how many may wait at a segment each way.
pub const CACHE_PIECE_BYTES: u64 = 256 << 10;
pub const CACHE_PIECES: u32 = 2;
/// Bytes of a value in a KV cache or an activation: f32. On a wire they are no more.
pub const VALUE_BYTES: u32 = 4;

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
    /// What a segment takes on an engine of this form.
    pub fn footprint(&self, holds: &Holds, room: Room, form: EngineForm) -> Footprint {
        let of = &self.hyperparameters;
        let tensors = self.tensors_of(holds).into_iter();
        let weights = tensors.fold(0, |sum: u64, tensor| sum.saturating_add(form.tensor_bytes(tensor)));
        let caches =
            holds.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(of.cache_bytes(layer, room, form)));
        Footprint {
            weights: weights.saturating_add(of.position_bytes(holds.layers)),
            kv_cache: caches.saturating_add(of.encoder_cache_bytes(holds.layers, room, form)),
            step: self.step_bytes(holds, room, form),
            waiting: of.waiting_bytes(room),
        }
    }

    /// Bytes of each layer's weights and caches.
    pub fn layer_footprints(&self, room: Room, form: EngineForm) -> Vec<u64> {
        let of = &self.hyperparameters;
        let mut bytes: Vec<u64> = (0..of.n_layers).map(|layer| of.cache_bytes(layer, room, form)).collect();
        for tensor in &self.tensors {
            if let Some(bytes) = tensor.layer.and_then(|layer| bytes.get_mut(layer as usize)) {
                *bytes = bytes.saturating_add(form.tensor_bytes(tensor));
            }
        }
        bytes
    }

    /// Bytes of the buffers of a step, with those of the logits of one row a session on the tail, and of what a step takes while it runs.
    fn step_bytes(&self, holds: &Holds, room: Room, form: EngineForm) -> u64 {
        let of = &self.hyperparameters;
        let n_logits = if holds.head { room.n_sessions.min(STEP_ROWS) } else { 0 };
        let (encoding, decoding) = of.halves(holds.layers);
        let mut sum = 0_u64;
        let mut add = |bytes: u64| sum = sum.saturating_add(bytes);
        let mut passing = 0;
        for (layers, n_rows) in [(encoding, room.context_length), (decoding, STEP_ROWS)] {
            if layers.is_empty() {
                continue;
            }
            let way = Way { of, uses: Uses::of(self, layers), n_rows: u64::from(n_rows), form };
            add(way.buffers());
            passing = way.passing(holds, n_logits, layers.len()).max(passing);
        }
        add(passing);
        if n_logits > 0 {
            add(form.buffer_bytes(u64::from(n_logits).saturating_mul(u64::from(of.vocab_size))));
        }
        if of.encoder.is_some() && !decoding.is_empty() {
            let kv_width = u64::from(of.n_kv_heads) * u64::from(of.head_size);
            for width in [u64::from(of.hidden_size), kv_width, kv_width] {
                add(form.buffer_bytes(u64::from(room.context_length).saturating_mul(width)));
            }
        }
        if form.is_gpu() {
            add(self.made_bytes(holds, room, form));
        }
        sum
    }

    /// Bytes of what a GPU makes of activations before it multiplies them: of each buffer that matrices read, in each form that one asks for.
    fn made_bytes(&self, holds: &Holds, room: Room, form: EngineForm) -> u64 {
        use Role::*;
        let of = &self.hyperparameters;
        let reads_hidden = !AttentionNorm.is_in(of);
        let has_two = AttentionNorm2.is_in(of);
        // By the buffer: its half, and its place in the stream.
        let place = |role| match role {
            Output | TokenEmbedding | CrossQuery => Some(0),
            FfnGate | FfnUp if has_two => Some(2),
            Query | Key | Value | QueryKeyValue | FfnGate | FfnUp | ConvInput => Some(usize::from(reads_hidden)),
            AttentionOutput | CrossOutput => Some(3),
            FfnDown => Some(4),
            ConvOutput => Some(5),
            CrossKey | CrossValue => Some(6),
            _ => None,
        };
        let n_encoding = of.encoder.map_or(0, |encoder| encoder.n_layers);
        let mut made: Vec<(bool, usize, bool)> = Vec::new();
        let mut sum = 0_u64;
        for tensor in self.tensors_of(holds) {
            let is_table = tensor.role == TokenEmbedding && !(holds.head && of.tied_embedding);
            let (Some(place), Some(&width)) = (place(tensor.role).filter(|_| !is_table), tensor.shape.first()) else {
                continue;
            };
            let of_bytes = form.is_int8() && is_quantised(tensor.tensor_type);
            if !of_bytes && width.is_multiple_of(engine_form::GROUP) {
                continue;
            }
            let encodes = tensor.layer.is_some_and(|layer| layer < n_encoding);
            if !made.contains(&(encodes, place, of_bytes)) {
                made.push((encodes, place, of_bytes));
                let n_rows = if encodes || place == 6 { room.context_length } else { STEP_ROWS };
                sum = sum.saturating_add(form.made_bytes(u64::from(n_rows), width, of_bytes));
            }
        }
        sum
    }
}

/// A stream of rows through layers of one kind.
struct Way<'a> {
    of: &'a Hyperparameters,
    uses: Uses,
    n_rows: u64,
    form: EngineForm,
}

// === impl Way ===

impl Way<'_> {
    fn buffers(&self) -> u64 {
        let widths = StepWidths::new(self.of, self.uses).all();
        let bytes = |width: u32| self.form.buffer_bytes(self.n_rows.saturating_mul(u64::from(width)));
        widths.into_iter().fold(0, |sum: u64, width| sum.saturating_add(bytes(width)))
    }

    /// While a step runs.
    fn passing(&self, holds: &Holds, n_logits: u32, n_layers: u32) -> u64 {
        let [hidden, vocab] = [self.of.hidden_size, self.of.vocab_size].map(u64::from);
        let values_out = if n_logits > 0 { u64::from(n_logits).saturating_mul(vocab) } else { self.n_rows * hidden };
        if self.form.is_gpu() {
            let params =
                u64::from(n_layers) * LAYER_DISPATCHES * PARAM_BYTES * self.n_rows.div_ceil(u64::from(STEP_ROWS));
            let growing = |bytes: u64| bytes.max(LEAST_GROWING).next_power_of_two();
            return growing(params) + growing(values_out.saturating_mul(4)) + 2 * LEAST_GROWING;
        }
        let values_in = if holds.embedding { 0 } else { self.n_rows.saturating_mul(hidden) };
        let n_turns = self.of.rope.map_or(0, |rope| 1 + u64::from(rope.windowed_base.is_some()));
        let angles = self.of.rope.map_or(0, |rope| n_turns * self.n_rows * u64::from(rope.n_rotated));
        let ops = u64::from(n_layers) * LAYER_OPS * OP_BYTES;
        let products = self.product_bytes(n_logits);
        let live = values_in.saturating_add(angles).saturating_mul(4).saturating_add(ops);
        live.saturating_add(products.max(values_out.saturating_mul(4)))
    }

    /// The most that one product takes on a processor: its sums before they are turned around, and its activations as it multiplies them.
    fn product_bytes(&self, n_logits: u32) -> u64 {
        let of = self.of;
        let [hidden, ffn, heads, kv_heads, head_size] =
            [of.hidden_size, of.ffn_size, of.n_heads, of.n_kv_heads, of.head_size].map(u64::from);
        let (query, kv) = (heads * head_size, kv_heads * head_size);
        let group_bytes = if self.form.is_int8() { 44 } else { 8 };
        let product = |n_rows: u64, n_in: u64, n_out: u64, values: u64| {
            let activations = n_rows.saturating_mul(n_in.div_ceil(engine_form::GROUP)).saturating_mul(group_bytes);
            activations.saturating_add(n_rows.saturating_mul(n_out).saturating_mul(4 * values))
        };
        let first = if self.uses.joined { query + 2 * kv } else { query };
        let has_joined_gate = of.is_gated() && !self.uses.gate;
        // What a joined gate and way up give lies there until they are multiplied.
        let up = if has_joined_gate {
            product(self.n_rows, hidden, 2 * ffn, 2)
        } else {
            product(self.n_rows, hidden, ffn, 1)
        };
        let mixer = if of.convolutions.is_some() { first.max(3 * hidden) } else { first };
        let of_rows = [
            product(self.n_rows, hidden, mixer, 1),
            up,
            product(self.n_rows, ffn, hidden, 1),
            product(self.n_rows, query, hidden, 1),
            product(u64::from(n_logits), hidden, u64::from(of.vocab_size), 1),
        ];
        of_rows.into_iter().max().unwrap_or(0)
    }
}

/// Ops of a layer, and bytes of one, as a recording holds them.
const LAYER_OPS: u64 = 14;
const OP_BYTES: u64 = 160;
/// Dispatches of a layer, and bytes of what one is told.
const LAYER_DISPATCHES: u64 = 64;
const PARAM_BYTES: u64 = 64;
/// Bytes of a buffer that grows, before it does.
const LEAST_GROWING: u64 = 64 << 10;

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Bytes of one layer's KV cache for all sessions; in an encoder–decoder model as much again for the encoder's output.
    pub fn kv_bytes_per_layer(&self, room: Room) -> u64 {
        let n_caches = if self.encoder.is_some() { 2 } else { 1 };
        self.kv_bytes_per_token_per_layer(VALUE_BYTES)
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
    fn cache_bytes(&self, layer: u32, room: Room, form: EngineForm) -> u64 {
        let n_positions = u64::from(room.n_sessions).saturating_mul(u64::from(room.context_length));
        if self.is_convolution(layer) {
            return form.buffer_bytes(n_positions.saturating_mul(u64::from(self.hidden_size)));
        }
        // An encoder's layers share a cache, of one prompt.
        let n_caches = match self.encoder {
            Some(encoder) if layer < encoder.n_layers => 0,
            Some(_) => 2,
            None => 1,
        };
        n_caches * self.key_and_value_bytes(n_positions, form)
    }

    fn encoder_cache_bytes(&self, layers: LayerRange, room: Room, form: EngineForm) -> u64 {
        let encodes = !self.halves(layers).0.is_empty();
        if encodes { self.key_and_value_bytes(u64::from(room.context_length), form) } else { 0 }
    }

    fn key_and_value_bytes(&self, n_positions: u64, form: EngineForm) -> u64 {
        let width = u64::from(self.n_kv_heads) * u64::from(self.head_size);
        form.buffer_bytes(n_positions.saturating_mul(width)).saturating_mul(2)
    }

    /// Bytes of what positions add to scores: slopes of heads, or the biases of buckets by distance.
    fn position_bytes(&self, layers: LayerRange) -> u64 {
        let n_heads = u64::from(self.n_heads);
        let (encoding, decoding) = self.halves(layers);
        match self.architecture.family().positions {
            Positions::Alibi => 4 * n_heads,
            Positions::Buckets => {
                let distances = |n: u64, layers: LayerRange| if layers.is_empty() { 0 } else { n };
                4 * n_heads * (distances(257, encoding) + distances(129, decoding))
            }
            Positions::Rotary(_) | Positions::Learned => 0,
        }
    }
}
