//! A segment: the layers that this phone holds of a model, on an engine. Knows no session and no network.
//!
//! A step takes token rows (tokens on the head, hidden states elsewhere) through the layers; what comes out is the hidden
//! states for the next stage, or on the tail the logits of the rows that ask for them.

use polyphony_kernels::{Engine, EngineError, FileBytes, KvType, Recording, Row};
use polyphony_model::family::Positions;
use polyphony_model::{Architecture, Holds, Hyperparameters, Manifest, Role, Room, TensorEntry, TensorType};
use polyphony_protocol::ActivationType;

mod alibi;
mod any;
mod attention;
mod buckets;
mod convolution;
mod decoder;
mod embedding;
mod encoder_decoder;
mod experts;
mod feed_forward;
mod head;
mod kv_rows;
mod linear;
mod loaded;
mod norm;
mod rows;
mod stream;
mod turns;

pub use any::AnySegment;
pub use encoder_decoder::{DecoderRow, EncoderDecoderSegment};

use decoder::Decoder;
use embedding::Embedding;
use head::Head;
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

/// What a segment rounds by, and so a part of its numerics class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// Of hidden states, after every layer.
    pub activation_type: ActivationType,
    /// Of keys and values, when they are kept.
    pub kv_type: KvType,
}

/// Keys and values as they are computed.
impl From<ActivationType> for Rounding {
    fn from(activation_type: ActivationType) -> Self {
        Self { activation_type, kv_type: KvType::F32 }
    }
}

impl Capacity {
    /// The same, as footprints count it.
    pub fn room(self) -> Room {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Room { n_sessions: count(self.n_slots), context_length: count(self.n_positions) }
    }

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
    #[error(
        "tensor {name} is of type {found}, which no kernel reads; use a file in another, such as Q4_K, Q8_0 or F16"
    )]
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
    #[error("a {architecture} model has an encoder besides its decoder, and is no decoder alone")]
    HasEncoder { architecture: Architecture },
    #[error("the KV cache of an encoder–decoder model is not handed over; its sessions are replayed")]
    CacheStays,
    #[error("the {role:?} tensor holds {found}, but a frequency is divided by it: convert the model anew")]
    Factor { role: Role, found: f32 },
    #[error("the model has learned {learned} positions, {wanted} are wanted; set contextLength to at most {learned}")]
    TooManyPositions { learned: usize, wanted: usize },
    #[error("a {architecture} model has no encoder")]
    NoEncoder { architecture: Architecture },
    #[error("the {given} were given to a segment that takes {wanted}")]
    InputKind { given: &'static str, wanted: &'static str },
    #[error("layers {from} to {to}, or the ends that go with them, are not all loaded")]
    NotLoaded { from: u32, to: u32 },
    #[error("positions {from} to {to} of slot {slot} are not in the KV cache, which has {n_slots} of {n_positions}")]
    NotCached { slot: u32, from: u32, to: u32, n_slots: usize, n_positions: usize },
    #[error("{n_positions} positions of a KV cache came in {actual} words of 4 bytes, {expected} expected")]
    KvSize { n_positions: u32, actual: usize, expected: usize },
}

/// The layers that a phone holds, loaded.
pub struct Segment {
    engine: Box<dyn Engine>,
    hyperparameters: Hyperparameters,
    capacity: Capacity,
    /// All that is loaded; a step runs a part of it.
    holds: Holds,
    embedding: Option<Embedding>,
    decoder: Decoder,
    head: Option<Head>,
}

// === impl Segment ===

impl Segment {
    /// Loads the tensors that `holds` names into `engine`. `bytes_of` gives the file bytes of one tensor; it is called once
    /// for each, in the manifest's order. They are read in pieces, so that no matrix is in memory twice.
    ///
    /// # Errors
    /// Whatever `bytes_of` answers, a tensor that no kernel reads, or a device that has no room.
    pub fn load<E: From<SegmentError>, B: FileBytes + 'static>(
        mut engine: Box<dyn Engine>,
        manifest: &Manifest,
        holds: Holds,
        capacity: Capacity,
        rounding: impl Into<Rounding>,
        mut bytes_of: impl FnMut(&TensorEntry) -> Result<B, E>,
    ) -> Result<Self, E> {
        let hyperparameters = manifest.hyperparameters.clone();
        if hyperparameters.encoder.is_some() {
            return Err(SegmentError::HasEncoder { architecture: hyperparameters.architecture }.into());
        }
        let learned = hyperparameters.context_length as usize;
        if hyperparameters.architecture.family().positions == Positions::Learned && capacity.n_positions > learned {
            return Err(SegmentError::TooManyPositions { learned, wanted: capacity.n_positions }.into());
        }
        let mut loaded = Loaded::new(hyperparameters.architecture);
        for tensor in manifest.tensors_of(&holds) {
            let bytes = bytes_of(tensor)?;
            loaded.take(engine.as_mut(), tensor, Box::new(bytes))?;
        }
        loaded.take_rest(engine.as_mut())?;
        Ok(Self::build(engine, hyperparameters, &loaded, holds, capacity, rounding.into())?)
    }

    fn build(
        mut engine: Box<dyn Engine>,
        hyperparameters: Hyperparameters,
        loaded: &Loaded,
        holds: Holds,
        capacity: Capacity,
        rounding: Rounding,
    ) -> Result<Self, SegmentError> {
        let of = &hyperparameters;
        let decoder = Decoder::build(engine.as_mut(), loaded, of, holds, capacity, rounding)?;
        let head = match holds.head {
            false => None,
            true => Some(Head::build(engine.as_mut(), loaded, of, capacity)?),
        };
        let embedding = holds.embedding.then(|| Embedding::build(loaded, of)).transpose()?;
        Ok(Self { engine, hyperparameters, capacity, holds, embedding, decoder, head })
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub fn hidden_size(&self) -> usize {
        self.hyperparameters.hidden_size as usize
    }

    pub fn architecture(&self) -> Architecture {
        self.hyperparameters.architecture
    }

    pub fn vocab_size(&self) -> usize {
        self.hyperparameters.vocab_size as usize
    }

    pub fn n_layers(&self) -> usize {
        self.decoder.layers.len()
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

    /// Bytes that weights and buffers take on the engine.
    pub fn bytes_used(&self) -> u64 {
        self.engine.bytes_used()
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
        let stream = &self.decoder.stream;
        let mut recording = Recording::new(rows.to_vec());
        stream.record_input(&mut recording, input, self.embedding.as_ref().filter(|_| part.embedding))?;
        let first = self.holds.layers.from;
        let layers = (part.layers.from - first) as usize..(part.layers.to - first) as usize;
        for layer in &self.decoder.layers[layers] {
            layer.record(&mut recording, stream);
        }
        let Some(head) = self.head.as_ref().filter(|_| part.head) else {
            recording.readback(stream.buffers.hidden, 0..n_rows * self.hidden_size());
            return Ok(Output::Hidden(self.engine.run(&recording)?));
        };
        stream.record_logits(&mut recording, head, n_logits);
        Ok(Output::Logits(self.engine.run(&recording)?))
    }
}
