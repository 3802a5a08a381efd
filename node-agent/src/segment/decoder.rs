//! The layer of decoder-only families, recorded: norm, attention, residual, norm, feed-forward, residual. Runs nothing.

use polyphony_kernels::{
    Activate, Activation, ActivationRounding, Attention, BufferId, EmbedRows, Engine, GateUp, KvLayout, KvWrite,
    LayerNorm, Matmul, MatrixId, PositionBias, Recording, RmsNorm, Rope, RopeKvWrite, RopeStyle, RoundRows, SiluMul,
    Turn, VectorId,
};
use polyphony_model::{Hyperparameters, Positions, Role, Rope as ModelRope, RopeStyle as ModelRopeStyle};
use polyphony_protocol::ActivationType;

use super::alibi;
use super::loaded::Loaded;
use super::{Capacity, SegmentError};

/// What turns tokens into hidden states.
#[derive(Clone, Copy)]
pub(super) struct Embedding {
    table: MatrixId,
    /// One row for each position, added.
    positions: Option<MatrixId>,
    norm: Option<Norm>,
}

/// A norm over whole rows.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    Rms(VectorId),
    Layer { weight: VectorId, bias: VectorId },
}

/// A matrix and what is added to its product.
#[derive(Clone, Copy)]
struct Linear {
    weight: MatrixId,
    bias: Option<VectorId>,
}

/// One layer on the engine: its weights, and the keys and values of its sessions.
pub(super) struct Layer {
    attention_norm: Norm,
    projection: Projection,
    attention_output: Linear,
    ffn_norm: Norm,
    ffn: FeedForward,
    ffn_down: Linear,
    pub k_cache: BufferId,
    pub v_cache: BufferId,
}

/// Queries, keys and values: one matrix of all rows, or three of different types.
#[derive(Clone, Copy)]
enum Projection {
    Joined(Linear),
    Apart { query: Linear, key: Linear, value: Linear, head_norms: Option<HeadNorms> },
}

/// Gains of the norms of each query and each key head.
#[derive(Clone, Copy)]
struct HeadNorms {
    query: VectorId,
    key: VectorId,
}

/// The way up: a gate and up in one matrix of rows taking turns, or in two of different types; or up alone.
#[derive(Clone, Copy)]
enum FeedForward {
    Joined(MatrixId),
    Apart { gate: MatrixId, up: MatrixId },
    Plain(Linear),
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
    /// Queries and keys after the norm of each head.
    normed_query: BufferId,
    normed_key: BufferId,
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
    /// How heads turn, where positions are rotary.
    turn: Option<Turn>,
    /// What raises attention scores, where positions do.
    bias: Option<PositionBias>,
    activations: Activations,
}

// === impl Embedding ===

impl Embedding {
    pub fn build(loaded: &Loaded, of: &Hyperparameters) -> Result<Self, SegmentError> {
        let has_norm = Role::TokenEmbeddingNorm.is_in(of);
        let has_positions = Role::PositionEmbedding.is_in(of);
        Ok(Self {
            table: loaded.matrix(Role::TokenEmbedding, None)?,
            positions: has_positions.then(|| loaded.matrix(Role::PositionEmbedding, None)).transpose()?,
            norm: has_norm
                .then(|| Norm::build(loaded, Role::TokenEmbeddingNorm, Role::TokenEmbeddingNormBias, None))
                .transpose()?,
        })
    }
}

// === impl Norm ===

impl Norm {
    /// With a bias where the model has one.
    pub fn build(loaded: &Loaded, weight: Role, bias: Role, layer: Option<u32>) -> Result<Self, SegmentError> {
        let weight = loaded.vector(weight, layer)?;
        Ok(match loaded.vector_if_any(bias, layer) {
            Some(bias) => Norm::Layer { weight, bias },
            None => Norm::Rms(weight),
        })
    }
}

// === impl Layer ===

impl Layer {
    /// The layer with this index in the model, whose tensors are loaded.
    pub fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        layer: u32,
        layout: KvLayout,
    ) -> Result<Self, SegmentError> {
        let matrix = |role| loaded.matrix(role, Some(layer));
        let linear = |role, bias| -> Result<Linear, SegmentError> {
            Ok(Linear { weight: matrix(role)?, bias: loaded.vector_if_any(bias, Some(layer)) })
        };
        let projection = match loaded.joined(Role::Query, layer) {
            _ if Role::QueryKeyValue.is_in(of) => {
                Projection::Joined(linear(Role::QueryKeyValue, Role::QueryKeyValueBias)?)
            }
            Some(weight) => Projection::Joined(Linear { weight, bias: loaded.joined_bias(layer) }),
            None => Projection::Apart {
                query: linear(Role::Query, Role::QueryBias)?,
                key: linear(Role::Key, Role::KeyBias)?,
                value: linear(Role::Value, Role::ValueBias)?,
                head_norms: match loaded.vector_if_any(Role::QueryNorm, Some(layer)) {
                    Some(query) => Some(HeadNorms { query, key: loaded.vector(Role::KeyNorm, Some(layer))? }),
                    None => None,
                },
            },
        };
        let ffn = match loaded.joined(Role::FfnGate, layer) {
            _ if !of.is_gated() => FeedForward::Plain(linear(Role::FfnUp, Role::FfnUpBias)?),
            Some(joined) => FeedForward::Joined(joined),
            None => FeedForward::Apart { gate: matrix(Role::FfnGate)?, up: matrix(Role::FfnUp)? },
        };
        Ok(Layer {
            attention_norm: Norm::build(loaded, Role::AttentionNorm, Role::AttentionNormBias, Some(layer))?,
            projection,
            attention_output: linear(Role::AttentionOutput, Role::AttentionOutputBias)?,
            ffn_norm: Norm::build(loaded, Role::FfnNorm, Role::FfnNormBias, Some(layer))?,
            ffn,
            ffn_down: linear(Role::FfnDown, Role::FfnDownBias)?,
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
        let has_gate = layers.iter().any(|it| matches!(it.ffn, FeedForward::Apart { .. }));
        let has_up = layers.iter().any(|it| !matches!(it.ffn, FeedForward::Joined(_)));
        let norms_heads = Role::QueryNorm.is_in(&hyperparameters);
        let query_width = hyperparameters.n_heads * hyperparameters.head_size;
        let kv_width = layout.kv_width as u32;
        let activations = Activations {
            hidden: rows_of(hyperparameters.hidden_size)?,
            normed: rows_of(hyperparameters.hidden_size)?,
            joined: rows_of(used(has_joined, query_width + 2 * kv_width))?,
            query: rows_of(query_width)?,
            key: rows_of(used(has_apart, kv_width))?,
            value: rows_of(used(has_apart, kv_width))?,
            normed_query: rows_of(used(norms_heads, query_width))?,
            normed_key: rows_of(used(norms_heads, kv_width))?,
            attended: rows_of(query_width)?,
            gate: rows_of(used(has_gate, hyperparameters.ffn_size))?,
            up: rows_of(used(has_up, hyperparameters.ffn_size))?,
            ffn: rows_of(hyperparameters.ffn_size)?,
        };
        let turn = hyperparameters.rope.map(|rope| turn(loaded, rope)).transpose()?;
        let bias = match hyperparameters.architecture.positions() {
            Positions::Rotary(_) | Positions::Learned | Positions::Buckets => None,
            Positions::Alibi => {
                Some(PositionBias::Slopes(engine.load_vector(&alibi::slopes(hyperparameters.n_heads))?))
            }
        };
        Ok(Self { hyperparameters, activation_type, layout, turn, bias, activations })
    }

    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Where a step's hidden states come in, and where they are after each layer.
    pub fn hidden(&self) -> BufferId {
        self.activations.hidden
    }

    /// Tokens into hidden states.
    pub fn record_embedding(&self, recording: &mut Recording, embedding: &Embedding, tokens: Vec<u32>) {
        let Activations { hidden, normed, .. } = self.activations;
        let (table, n_rows) = (embedding.table, tokens.len());
        let out = if embedding.norm.is_some() { normed } else { hidden };
        recording.push(EmbedRows { table, tokens, adds: false, out });
        if let Some(table) = embedding.positions {
            let tokens = recording.rows.iter().map(|row| row.position).collect();
            recording.push(EmbedRows { table, tokens, adds: true, out });
        }
        if let Some(norm) = embedding.norm {
            self.record_norm(recording, norm, normed, 0, n_rows, hidden);
        }
    }

    /// The last norm of `n_rows` hidden states from `first_row` on; where the result lies.
    pub fn record_output_norm(
        &self,
        recording: &mut Recording,
        norm: Norm,
        first_row: usize,
        n_rows: usize,
    ) -> BufferId {
        let Activations { hidden, normed, .. } = self.activations;
        self.record_norm(recording, norm, hidden, first_row, n_rows, normed);
        normed
    }

    /// One layer: norm, attention, residual, norm, feed-forward, residual (arXiv 2302.13971 for Llama, 2211.05100 for BLOOM).
    pub fn record_layer(&self, recording: &mut Recording, layer: &Layer, n_rows: usize) {
        let it = &self.activations;
        let shape = &self.hyperparameters;
        let head_size = shape.head_size as usize;
        self.record_norm(recording, layer.attention_norm, it.hidden, 0, n_rows, it.normed);
        let query = self.record_projection(recording, layer, n_rows);
        recording.push(Attention {
            q: query,
            k_cache: layer.k_cache,
            v_cache: layer.v_cache,
            layout: self.layout,
            n_heads: shape.n_heads as usize,
            n_kv_heads: shape.n_kv_heads as usize,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            window: None,
            lengths: None,
            bias: self.bias,
            out: it.attended,
        });
        recording.push(layer.attention_output.of(it.attended, n_rows, Some(it.hidden), it.hidden));
        self.record_norm(recording, layer.ffn_norm, it.hidden, 0, n_rows, it.normed);
        let width = shape.ffn_size as usize;
        match layer.ffn {
            FeedForward::Joined(weight) => recording.push(GateUp { weight, x: it.normed, n_rows, out: it.ffn }),
            FeedForward::Apart { gate, up } => {
                recording.push(matmul(gate, it.normed, n_rows, it.gate));
                recording.push(matmul(up, it.normed, n_rows, it.up));
                recording.push(SiluMul { gate: it.gate, up: it.up, width, n_rows, out: it.ffn });
            }
            FeedForward::Plain(up) => {
                recording.push(up.of(it.normed, n_rows, None, it.up));
                let function = Activation::Gelu;
                recording.push(Activate { function, x: it.up, factor: None, width, n_rows, out: it.ffn });
            }
        }
        recording.push(layer.ffn_down.of(it.ffn, n_rows, Some(it.hidden), it.hidden));
        if let Some(to) = rounding(self.activation_type) {
            recording.push(RoundRows { x: it.hidden, width: shape.hidden_size as usize, n_rows, to });
        }
    }

    fn record_norm(
        &self,
        recording: &mut Recording,
        norm: Norm,
        x: BufferId,
        first_row: usize,
        n_rows: usize,
        out: BufferId,
    ) {
        let eps = self.hyperparameters.norm_epsilon;
        let width = self.hyperparameters.hidden_size as usize;
        match norm {
            Norm::Rms(weight) => recording.push(RmsNorm { x, first_row, weight, eps, width, n_rows, out }),
            Norm::Layer { weight, bias } => {
                recording.push(LayerNorm { x, first_row, weight, bias, eps, width, n_rows, out });
            }
        }
    }

    /// The norm of each head of `n_heads` heads in all rows.
    fn head_norm(&self, x: BufferId, weight: VectorId, n_heads: usize, out: BufferId) -> RmsNorm {
        let width = self.hyperparameters.head_size as usize;
        RmsNorm { x, first_row: 0, weight, eps: self.hyperparameters.norm_epsilon, width, n_rows: n_heads, out }
    }

    /// Keys and values into the layer's caches, keys and queries turned where positions are rotary; where the queries lie.
    fn record_projection(&self, recording: &mut Recording, layer: &Layer, n_rows: usize) -> BufferId {
        let it = &self.activations;
        let n_heads = self.hyperparameters.n_heads as usize;
        let n_kv_heads = self.hyperparameters.n_kv_heads as usize;
        let head_size = self.hyperparameters.head_size as usize;
        let (turn, layout) = (self.turn, self.layout);
        let (k_cache, v_cache) = (layer.k_cache, layer.v_cache);
        match layer.projection {
            Projection::Joined(linear) => {
                recording.push(linear.of(it.normed, n_rows, None, it.joined));
                let (qkv, q) = (it.joined, it.query);
                recording.push(RopeKvWrite { qkv, n_heads, n_kv_heads, head_size, turn, q, k_cache, v_cache, layout });
            }
            Projection::Apart { query, key, value, head_norms } => {
                recording.push(query.of(it.normed, n_rows, None, it.query));
                recording.push(key.of(it.normed, n_rows, None, it.key));
                recording.push(value.of(it.normed, n_rows, None, it.value));
                let (q, k) = match head_norms {
                    None => (it.query, it.key),
                    Some(norms) => {
                        let (q, k) = (it.normed_query, it.normed_key);
                        recording.push(self.head_norm(it.query, norms.query, n_rows * n_heads, q));
                        recording.push(self.head_norm(it.key, norms.key, n_rows * n_kv_heads, k));
                        (q, k)
                    }
                };
                if let Some(turn) = turn {
                    recording.push(Rope { x: q, n_heads, head_size, turn });
                    recording.push(Rope { x: k, n_heads: n_kv_heads, head_size, turn });
                }
                recording.push(KvWrite { k, v: it.value, k_cache, v_cache, layout });
                return q;
            }
        }
        it.query
    }
}

/// What the residual stream is rounded to after every layer.
pub(super) fn rounding(activation_type: ActivationType) -> Option<ActivationRounding> {
    match activation_type {
        ActivationType::F32 => None,
        ActivationType::F16 => Some(ActivationRounding::F16),
        ActivationType::Q8 => Some(ActivationRounding::Q8),
    }
}

/// How the heads of a model turn.
fn turn(loaded: &Loaded, rope: ModelRope) -> Result<Turn, SegmentError> {
    let has_factors = rope.has_frequency_factors;
    Ok(Turn {
        n_rotated: rope.n_rotated as usize,
        style: match rope.style {
            ModelRopeStyle::Pairs => RopeStyle::Pairs,
            ModelRopeStyle::Halves => RopeStyle::Halves,
        },
        base: rope.base,
        position_scale: rope.position_scale,
        frequency_factors: has_factors.then(|| loaded.vector(Role::RopeFrequencies, None)).transpose()?,
    })
}

// === impl Linear ===

impl Linear {
    /// Its product with `n_rows` rows of `x`.
    fn of(self, x: BufferId, n_rows: usize, residual: Option<BufferId>, out: BufferId) -> Matmul {
        Matmul { weight: self.weight, x, first_row: 0, n_rows, bias: self.bias, residual, out }
    }
}

fn matmul(weight: MatrixId, x: BufferId, n_rows: usize, out: BufferId) -> Matmul {
    Linear { weight, bias: None }.of(x, n_rows, None, out)
}
