//! A segment: the layers that this phone holds of a model, on an engine. Knows no session and no network.
//!
//! A step takes token rows (tokens on the head, hidden states elsewhere) through the layers; what comes out is the hidden
//! states for the next stage, or on the tail the logits of the rows that ask for them.

use polyphony_kernels::{
    ActivationRounding, Attention, BufferId, EmbedRows, Engine, EngineError, GateUp, KvLayout, KvWrite, Matmul,
    MatrixId, Recording, RmsNorm, Rope, RopeKvWrite, RopeStyle, RoundRows, Row, SiluMul, Turn, VectorId,
};
use polyphony_model::{Holds, Hyperparameters, Manifest, Role, RopeStyle as ModelRopeStyle, TensorEntry, TensorType};
use polyphony_protocol::ActivationType;

mod kv_rows;
mod loaded;

use loaded::Loaded;

/// What a segment has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sessions whose KV cache is held at a time.
    pub n_slots: usize,
    /// Positions of each.
    pub n_positions: usize,
    /// Token rows of one step: the prefill chunk.
    pub max_rows: usize,
}

impl Capacity {
    /// Rows of one step that can give logits: one a session.
    fn max_logits(self) -> usize {
        self.n_slots.min(self.max_rows)
    }
}

/// What goes into a step: one entry a row, in the order of the rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// On the head: the tokens to embed.
    Tokens(Vec<u32>),
    /// Elsewhere: `rows × hidden_size` values.
    Hidden(Vec<f32>),
}

/// What comes out of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// `rows × hidden_size` values for the next stage.
    Hidden(Vec<f32>),
    /// On the tail: the logits of the last rows that were asked for, `n × vocab_size` values.
    Logits(Vec<f32>),
}

/// Why a segment cannot be loaded or a step not be run.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("tensor {name} is of type {found}, which no kernel reads yet; use a file in F32, F16, Q8_0, Q4_0 or Q4_1")]
    UnsupportedType { name: String, found: TensorType },
    #[error("tensor {name} has the shape {shape:?}, which is no matrix")]
    NotAMatrix { name: String, shape: Vec<u64> },
    #[error("tensor {name} holds {actual} bytes, {expected} expected")]
    Length { name: String, actual: usize, expected: usize },
    #[error("the manifest lacks the {0:?} tensor that this segment needs")]
    Missing(Role),
    #[error("step of {rows} rows, at most {limit} fit")]
    TooManyRows { rows: usize, limit: usize },
    #[error("step of {rows} rows got {values} input values, {expected} expected")]
    InputSize { rows: usize, values: usize, expected: usize },
    #[error("the {given} were given to a segment that takes {wanted}")]
    InputKind { given: &'static str, wanted: &'static str },
    #[error("layers {from} to {to}, or the ends that go with them, are not all loaded")]
    NotLoaded { from: u32, to: u32 },
    #[error("positions {from} to {to} of slot {slot} are not in the KV cache, which has {n_slots} of {n_positions}")]
    NotCached { slot: u32, from: u32, to: u32, n_slots: usize, n_positions: usize },
    #[error("{n_positions} positions of a KV cache came in {actual} values, {expected} expected")]
    KvSize { n_positions: u32, actual: usize, expected: usize },
}

struct Layer {
    attention_norm: VectorId,
    projection: Projection,
    attention_output: MatrixId,
    ffn_norm: VectorId,
    ffn: FeedForward,
    ffn_down: MatrixId,
    k_cache: BufferId,
    v_cache: BufferId,
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

struct Head {
    norm: VectorId,
    output: MatrixId,
    logits: BufferId,
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

/// The layers that a phone holds, loaded.
pub struct Segment {
    engine: Box<dyn Engine>,
    hyperparameters: Hyperparameters,
    capacity: Capacity,
    activation_type: ActivationType,
    layout: KvLayout,
    /// All that is loaded; a step runs a part of it.
    holds: Holds,
    embedding: Option<MatrixId>,
    frequency_factors: Option<VectorId>,
    layers: Vec<Layer>,
    head: Option<Head>,
    activations: Activations,
}

// === impl Segment ===

impl Segment {
    /// Loads the tensors that `holds` names into `engine`. `bytes_of` gives the file bytes of one tensor; it is called once
    /// for each, in the manifest's order, so that no more than those of one joined matrix need be in memory at a time.
    ///
    /// # Errors
    /// Whatever `bytes_of` answers, a tensor that no kernel reads, or a device that has no room.
    pub fn load<E: From<SegmentError>>(
        mut engine: Box<dyn Engine>,
        manifest: &Manifest,
        holds: Holds,
        capacity: Capacity,
        activation_type: ActivationType,
        mut bytes_of: impl FnMut(&TensorEntry) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let hyperparameters = manifest.hyperparameters.clone();
        let mut loaded = Loaded::default();
        for tensor in manifest.tensors_of(&holds) {
            let bytes = bytes_of(tensor)?;
            loaded.take(engine.as_mut(), tensor, bytes)?;
        }
        loaded.take_rest(engine.as_mut())?;
        Ok(Self::build(engine, hyperparameters, &loaded, holds, capacity, activation_type)?)
    }

    fn build(
        mut engine: Box<dyn Engine>,
        hyperparameters: Hyperparameters,
        loaded: &Loaded,
        holds: Holds,
        capacity: Capacity,
        activation_type: ActivationType,
    ) -> Result<Self, SegmentError> {
        let kv_width = (hyperparameters.n_kv_heads * hyperparameters.head_size) as usize;
        let layout = KvLayout { n_slots: capacity.n_slots, n_positions: capacity.n_positions, kv_width };
        let layers = holds
            .layers
            .iter()
            .map(|layer| {
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
            })
            .collect::<Result<Vec<_>, SegmentError>>()?;
        let mut rows_of = |width: u32| engine.alloc(capacity.max_rows * width as usize);
        // What no layer of this segment uses is as narrow as can be.
        let used = |held: bool, width: u32| if held { width } else { 1 };
        let projects = |joined: bool| layers.iter().any(|it| matches!(it.projection, Projection::Joined(_)) == joined);
        let (has_joined, has_apart) = (projects(true), projects(false));
        let gates_apart = layers.iter().any(|it| matches!(it.ffn, FeedForward::Apart { .. }));
        let query_width = hyperparameters.n_heads * hyperparameters.head_size;
        let activations = Activations {
            hidden: rows_of(hyperparameters.hidden_size)?,
            normed: rows_of(hyperparameters.hidden_size)?,
            joined: rows_of(used(has_joined, query_width + 2 * kv_width as u32))?,
            query: rows_of(query_width)?,
            key: rows_of(used(has_apart, kv_width as u32))?,
            value: rows_of(used(has_apart, kv_width as u32))?,
            attended: rows_of(query_width)?,
            gate: rows_of(used(gates_apart, hyperparameters.ffn_size))?,
            up: rows_of(used(gates_apart, hyperparameters.ffn_size))?,
            ffn: rows_of(hyperparameters.ffn_size)?,
        };
        let head = if holds.head {
            let output = if hyperparameters.tied_embedding { Role::TokenEmbedding } else { Role::Output };
            Some(Head {
                norm: loaded.vector(Role::OutputNorm, None)?,
                output: loaded.matrix(output, None)?,
                logits: engine.alloc(capacity.max_logits() * hyperparameters.vocab_size as usize)?,
            })
        } else {
            None
        };
        let embedding = holds.embedding.then(|| loaded.matrix(Role::TokenEmbedding, None)).transpose()?;
        let frequency_factors = hyperparameters
            .rope
            .has_frequency_factors
            .then(|| loaded.vector(Role::RopeFrequencies, None))
            .transpose()?;
        Ok(Self {
            engine,
            hyperparameters,
            capacity,
            activation_type,
            layout,
            holds,
            embedding,
            frequency_factors,
            layers,
            head,
            activations,
        })
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub fn hidden_size(&self) -> usize {
        self.hyperparameters.hidden_size as usize
    }

    pub fn vocab_size(&self) -> usize {
        self.hyperparameters.vocab_size as usize
    }

    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    pub fn holds_head(&self) -> bool {
        self.head.is_some()
    }

    pub fn holds_embedding(&self) -> bool {
        self.embedding.is_some()
    }

    /// All that is loaded.
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Runs one step of all that is loaded over `rows`; on the tail the last `n_logits` rows give logits.
    ///
    /// # Errors
    /// When input and rows do not fit, or the device fails.
    pub fn step(&mut self, rows: &[Row], input: Input, n_logits: usize) -> Result<Output, SegmentError> {
        self.step_of(self.holds, rows, input, n_logits)
    }

    /// Runs one step of a part of what is loaded: its layers, with embedding and head where `part` has them.
    ///
    /// # Errors
    /// As [`Segment::step`], and when not all of the part is loaded.
    pub fn step_of(
        &mut self,
        part: Holds,
        rows: &[Row],
        input: Input,
        n_logits: usize,
    ) -> Result<Output, SegmentError> {
        if !part.lies_within(&self.holds) {
            return Err(SegmentError::NotLoaded { from: part.layers.from, to: part.layers.to });
        }
        let n_rows = rows.len();
        if n_rows > self.capacity.max_rows {
            return Err(SegmentError::TooManyRows { rows: n_rows, limit: self.capacity.max_rows });
        }
        if n_logits > self.capacity.max_logits() {
            return Err(SegmentError::TooManyRows { rows: n_logits, limit: self.capacity.max_logits() });
        }
        let mut recording = Recording::new(rows.to_vec());
        self.record_input(&mut recording, n_rows, input, self.embedding.filter(|_| part.embedding))?;
        let first = self.holds.layers.from;
        let layers = (part.layers.from - first) as usize..(part.layers.to - first) as usize;
        for layer in &self.layers[layers] {
            self.record_layer(&mut recording, layer, n_rows);
        }
        let hidden_size = self.hidden_size();
        let Some(head) = self.head.as_ref().filter(|_| part.head) else {
            recording.readback(self.activations.hidden, 0..n_rows * hidden_size);
            return Ok(Output::Hidden(self.engine.run(&recording)?));
        };
        if n_logits > 0 {
            recording.push(RmsNorm {
                x: self.activations.hidden,
                first_row: n_rows.saturating_sub(n_logits),
                weight: head.norm,
                eps: self.hyperparameters.rms_epsilon,
                width: hidden_size,
                n_rows: n_logits,
                out: self.activations.normed,
            });
            recording.push(matmul(head.output, self.activations.normed, n_logits, None, head.logits));
            recording.readback(head.logits, 0..n_logits * self.vocab_size());
        }
        Ok(Output::Logits(self.engine.run(&recording)?))
    }

    fn record_input(
        &self,
        recording: &mut Recording,
        n_rows: usize,
        input: Input,
        embedding: Option<MatrixId>,
    ) -> Result<(), SegmentError> {
        let size = |values: usize, expected: usize| {
            if values == expected { Ok(()) } else { Err(SegmentError::InputSize { rows: n_rows, values, expected }) }
        };
        match (input, embedding) {
            (Input::Tokens(tokens), Some(table)) => {
                size(tokens.len(), n_rows)?;
                recording.push(EmbedRows { table, tokens, out: self.activations.hidden });
            }
            (Input::Hidden(values), None) => {
                size(values.len(), n_rows * self.hidden_size())?;
                recording.upload(self.activations.hidden, 0, values);
            }
            (Input::Tokens(_), None) => {
                return Err(SegmentError::InputKind { given: "tokens", wanted: "hidden states" });
            }
            (Input::Hidden(_), Some(_)) => {
                return Err(SegmentError::InputKind { given: "hidden states", wanted: "tokens" });
            }
        }
        Ok(())
    }

    /// The Llama layer: norm, attention with rotary positions, residual, norm, SwiGLU, residual (arXiv 2302.13971).
    fn record_layer(&self, recording: &mut Recording, layer: &Layer, n_rows: usize) {
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
            let width = self.hidden_size();
            recording.push(RoundRows { x: it.hidden, width, n_rows, to: ActivationRounding::F16 });
        }
    }

    fn norm(&self, weight: VectorId, n_rows: usize) -> RmsNorm {
        RmsNorm {
            x: self.activations.hidden,
            first_row: 0,
            weight,
            eps: self.hyperparameters.rms_epsilon,
            width: self.hidden_size(),
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
