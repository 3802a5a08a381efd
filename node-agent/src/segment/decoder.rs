//! The layer of decoder-only families, recorded: norm, attention, residual, norm, feed-forward, residual. Runs nothing.

use polyphony_kernels::{
    ActivationRounding, Attention, BufferId, Engine, GateUp, KvLayout, KvWrite, Matmul, MatrixId, Recording, RmsNorm,
    Rope, RopeKvWrite, RopeStyle, RoundRows, SiluMul, Turn, VectorId,
};
use polyphony_model::{Hyperparameters, Role, RopeStyle as ModelRopeStyle};
use polyphony_protocol::ActivationType;

use super::loaded::Loaded;
use super::{Capacity, SegmentError};

/// One layer on the engine: its weights, and the keys and values of its sessions.
pub(super) struct Layer {
    attention_norm: VectorId,
    projection: Projection,
    attention_output: MatrixId,
    ffn_norm: VectorId,
    ffn: FeedForward,
    ffn_down: MatrixId,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
}

/// Queries, keys and values: one matrix of all rows, or three of different types.
#[derive(Clone, Copy)]
enum Projection {
    Joined(MatrixId),
    Apart { query: MatrixId, key: MatrixId, value: MatrixId },
}

/// Gate and up: one matrix of rows taking turns, or two of different types.
#[derive(Clone, Copy)]
enum FeedForward {
    Joined(MatrixId),
    Apart { gate: MatrixId, up: MatrixId },
}

/// Activations, each `max_rows` rows wide.
struct Activations {
    hidden: BufferId,
    normed: BufferId,
    /// Queries, keys and values of a row after one another.
    joined: BufferId,
    query: BufferId,
    key: BufferId,
    value: BufferId,
    attended: BufferId,
    gate: BufferId,
    up: BufferId,
    ffn: BufferId,
}

/// What all layers of a segment share: the family's numbers, and the buffers that a step goes through.
pub(super) struct Decoder {
    hyperparameters: Hyperparameters,
    activation_type: ActivationType,
    layout: KvLayout,
    frequency_factors: Option<VectorId>,
    activations: Activations,
}

// === impl Layer ===

impl Layer {
    /// The layer with this index in the model, whose tensors are loaded.
    pub fn build(engine: &mut dyn Engine, loaded: &Loaded, layer: u32, layout: KvLayout) -> Result<Self, SegmentError> {
        let matrix = |role| loaded.matrix(role, Some(layer));
        let vector = |role| loaded.vector(role, Some(layer));
        Ok(Layer {
            attention_norm: vector(Role::AttentionNorm)?,
            projection: match loaded.joined(Role::Query, layer) {
                Some(joined) => Projection::Joined(joined),
                None => Projection::Apart {
                    query: matrix(Role::Query)?,
                    key: matrix(Role::Key)?,
                    value: matrix(Role::Value)?,
                },
            },
            attention_output: matrix(Role::AttentionOutput)?,
            ffn_norm: vector(Role::FfnNorm)?,
            ffn: match loaded.joined(Role::FfnGate, layer) {
                Some(joined) => FeedForward::Joined(joined),
                None => FeedForward::Apart { gate: matrix(Role::FfnGate)?, up: matrix(Role::FfnUp)? },
            },
            ffn_down: matrix(Role::FfnDown)?,
            k_cache: engine.alloc(layout.len())?,
            v_cache: engine.alloc(layout.len())?,
        })
    }
}

// === impl Decoder ===

impl Decoder {
    /// Takes room for the activations that these layers use.
    pub fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        hyperparameters: Hyperparameters,
        layers: &[Layer],
        layout: KvLayout,
        capacity: Capacity,
        activation_type: ActivationType,
    ) -> Result<Self, SegmentError> {
        let mut rows_of = |width: u32| engine.alloc(capacity.max_rows * width as usize);
        // What no layer of this segment uses is as narrow as can be.
        let used = |held: bool, width: u32| if held { width } else { 1 };
        let projects = |joined: bool| layers.iter().any(|it| matches!(it.projection, Projection::Joined(_)) == joined);
        let (has_joined, has_apart) = (projects(true), projects(false));
        let gates_apart = layers.iter().any(|it| matches!(it.ffn, FeedForward::Apart { .. }));
        let query_width = hyperparameters.n_heads * hyperparameters.head_size;
        let kv_width = layout.kv_width as u32;
        let activations = Activations {
            hidden: rows_of(hyperparameters.hidden_size)?,
            normed: rows_of(hyperparameters.hidden_size)?,
            joined: rows_of(used(has_joined, query_width + 2 * kv_width))?,
            query: rows_of(query_width)?,
            key: rows_of(used(has_apart, kv_width))?,
            value: rows_of(used(has_apart, kv_width))?,
            attended: rows_of(query_width)?,
            gate: rows_of(used(gates_apart, hyperparameters.ffn_size))?,
            up: rows_of(used(gates_apart, hyperparameters.ffn_size))?,
            ffn: rows_of(hyperparameters.ffn_size)?,
        };
        let frequency_factors = hyperparameters
            .rope
            .has_frequency_factors
            .then(|| loaded.vector(Role::RopeFrequencies, None))
            .transpose()?;
        Ok(Self { hyperparameters, activation_type, layout, frequency_factors, activations })
    }

    /// Where a step's hidden states come in, and where they are after each layer.
    pub fn hidden(&self) -> BufferId {
        self.activations.hidden
    }

    /// The last norm of `n_rows` hidden states from `first_row` on; where the result lies.
    pub fn record_output_norm(
        &self,
        recording: &mut Recording,
        weight: VectorId,
        first_row: usize,
        n_rows: usize,
    ) -> BufferId {
        recording.push(RmsNorm { first_row, ..self.norm(weight, n_rows) });
        self.activations.normed
    }

    /// The Llama layer: norm, attention with rotary positions, residual, norm, SwiGLU, residual (arXiv 2302.13971).
    pub fn record_layer(&self, recording: &mut Recording, layer: &Layer, n_rows: usize) {
        let it = &self.activations;
        let shape = &self.hyperparameters;
        let (n_heads, n_kv_heads) = (shape.n_heads as usize, shape.n_kv_heads as usize);
        let head_size = shape.head_size as usize;
        recording.push(self.norm(layer.attention_norm, n_rows));
        self.record_projection(recording, layer, n_rows);
        recording.push(Attention {
            q: it.query,
            k_cache: layer.k_cache,
            v_cache: layer.v_cache,
            layout: self.layout,
            n_heads,
            n_kv_heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            window: None,
            out: it.attended,
        });
        recording.push(matmul(layer.attention_output, it.attended, n_rows, Some(it.hidden), it.hidden));
        recording.push(self.norm(layer.ffn_norm, n_rows));
        match layer.ffn {
            FeedForward::Joined(weight) => recording.push(GateUp { weight, x: it.normed, n_rows, out: it.ffn }),
            FeedForward::Apart { gate, up } => {
                recording.push(matmul(gate, it.normed, n_rows, None, it.gate));
                recording.push(matmul(up, it.normed, n_rows, None, it.up));
                let width = shape.ffn_size as usize;
                recording.push(SiluMul { gate: it.gate, up: it.up, width, n_rows, out: it.ffn });
            }
        }
        recording.push(matmul(layer.ffn_down, it.ffn, n_rows, Some(it.hidden), it.hidden));
        if self.activation_type == ActivationType::F16 {
            let width = shape.hidden_size as usize;
            recording.push(RoundRows { x: it.hidden, width, n_rows, to: ActivationRounding::F16 });
        }
    }

    fn norm(&self, weight: VectorId, n_rows: usize) -> RmsNorm {
        RmsNorm {
            x: self.activations.hidden,
            first_row: 0,
            weight,
            eps: self.hyperparameters.rms_epsilon,
            width: self.hyperparameters.hidden_size as usize,
            n_rows,
            out: self.activations.normed,
        }
    }

    /// Queries into `query`, keys and values into the layer's caches, both turned by their positions.
    fn record_projection(&self, recording: &mut Recording, layer: &Layer, n_rows: usize) {
        let it = &self.activations;
        let n_heads = self.hyperparameters.n_heads as usize;
        let n_kv_heads = self.hyperparameters.n_kv_heads as usize;
        let head_size = self.hyperparameters.head_size as usize;
        let (turn, layout) = (self.turn(), self.layout);
        let (k_cache, v_cache) = (layer.k_cache, layer.v_cache);
        match layer.projection {
            Projection::Joined(weight) => {
                recording.push(matmul(weight, it.normed, n_rows, None, it.joined));
                let (qkv, q) = (it.joined, it.query);
                recording.push(RopeKvWrite { qkv, n_heads, n_kv_heads, head_size, turn, q, k_cache, v_cache, layout });
            }
            Projection::Apart { query, key, value } => {
                recording.push(matmul(query, it.normed, n_rows, None, it.query));
                recording.push(matmul(key, it.normed, n_rows, None, it.key));
                recording.push(matmul(value, it.normed, n_rows, None, it.value));
                recording.push(Rope { x: it.query, n_heads, head_size, turn });
                recording.push(Rope { x: it.key, n_heads: n_kv_heads, head_size, turn });
                recording.push(KvWrite { k: it.key, v: it.value, k_cache, v_cache, layout });
            }
        }
    }

    fn turn(&self) -> Turn {
        let rope = &self.hyperparameters.rope;
        Turn {
            n_rotated: rope.n_rotated as usize,
            style: match rope.style {
                ModelRopeStyle::Pairs => RopeStyle::Pairs,
                ModelRopeStyle::Halves => RopeStyle::Halves,
            },
            base: rope.base,
            position_scale: rope.position_scale,
            frequency_factors: self.frequency_factors,
        }
    }
}

fn matmul(weight: MatrixId, x: BufferId, n_rows: usize, residual: Option<BufferId>, out: BufferId) -> Matmul {
    Matmul { weight, x, first_row: 0, n_rows, bias: None, residual, out }
}
