//! Encoder–decoder segments (T5, arXiv 1910.10683): layers of the encoder, of the decoder, or of both. Knows no session and no network.
//!
//! A prompt goes once through the encoder's layers, all its positions at a time, from segment to segment. What the last of them puts out
//! goes straight to every segment that holds layers of the decoder, which keeps the keys and values that its layers make of it. From then
//! on tokens go through the decoder's layers, as through those of any other model, and end as logits.

use polyphony_kernels::{
    Activate, Activation, Attention, BufferId, EmbedRows, Engine, KvLayout, KvWrite, Matmul, MatrixId, PositionBias,
    Recording, RmsNorm, RoundRows, Row, VectorId,
};
use polyphony_model::{Encoder, Holds, Hyperparameters, Manifest, Role, TensorEntry};
use polyphony_protocol::ActivationType;

use super::buckets;
use super::decoder::rounding;
use super::loaded::Loaded;
use super::{Capacity, Input, Output, SegmentError};

/// The layers that a phone holds of an encoder–decoder model, loaded.
pub struct EncoderDecoderSegment {
    engine: Box<dyn Engine>,
    hyperparameters: Hyperparameters,
    capacity: Capacity,
    activation_type: ActivationType,
    /// Of the first segment of either half.
    embedding: Option<MatrixId>,
    encoder: Option<EncoderHalf>,
    decoder: Option<DecoderHalf>,
}

/// One row of a decoding step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderRow {
    pub row: Row,
    /// Tokens of the session's prompt: positions of the encoder's output.
    pub n_encoded: u32,
}

/// Attention over one set of keys and values: its norm and its four matrices.
struct AttentionWeights {
    norm: VectorId,
    query: MatrixId,
    key: MatrixId,
    value: MatrixId,
    output: MatrixId,
}

struct FeedForward {
    norm: VectorId,
    gate: Option<MatrixId>,
    up: MatrixId,
    down: MatrixId,
}

struct EncoderLayer {
    attention: AttentionWeights,
    ffn: FeedForward,
}

struct DecoderLayer {
    attention: AttentionWeights,
    cache: Cache,
    cross: AttentionWeights,
    /// Of the encoder's output.
    cross_cache: Cache,
    ffn: FeedForward,
}

#[derive(Clone, Copy)]
struct Cache {
    k: BufferId,
    v: BufferId,
}

/// The encoder's layers here. A prompt is encoded at one go, so its keys and values need no place of their own in each layer.
struct EncoderHalf {
    layers: Vec<EncoderLayer>,
    /// Whether the encoder's first layer is here, which tokens come to.
    begins: bool,
    bias: PositionBias,
    /// Of the last of them.
    output_norm: Option<VectorId>,
    cache: Cache,
    layout: KvLayout,
    activations: Activations,
}

/// The decoder's layers here.
struct DecoderHalf {
    layers: Vec<DecoderLayer>,
    /// Whether the decoder's first layer is here, which tokens come to.
    begins: bool,
    bias: PositionBias,
    layout: KvLayout,
    /// The encoder's output of one session, until keys and values are made of it.
    encoded: BufferId,
    encoded_key: BufferId,
    encoded_value: BufferId,
    head: Option<Head>,
    activations: Activations,
}

struct Head {
    norm: VectorId,
    output: MatrixId,
    logits: BufferId,
}

/// Activations of so many rows.
struct Activations {
    hidden: BufferId,
    normed: BufferId,
    query: BufferId,
    key: BufferId,
    value: BufferId,
    attended: BufferId,
    gate: BufferId,
    up: BufferId,
    ffn: BufferId,
}

// === impl EncoderDecoderSegment ===

impl EncoderDecoderSegment {
    /// As [`Segment::load`](super::Segment::load). `n_positions` of the capacity bounds prompts and answers alike.
    ///
    /// # Errors
    /// A model of another kind, whatever `bytes_of` answers, a tensor that no kernel reads, or a device that has no room.
    pub fn load<E: From<SegmentError>>(
        mut engine: Box<dyn Engine>,
        manifest: &Manifest,
        holds: Holds,
        capacity: Capacity,
        activation_type: ActivationType,
        mut bytes_of: impl FnMut(&TensorEntry) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let of = &manifest.hyperparameters;
        let Some(shape) = of.encoder else {
            return Err(SegmentError::NoEncoder { architecture: of.architecture }.into());
        };
        let mut loaded = Loaded::new(of.architecture);
        for tensor in manifest.tensors_of(&holds) {
            let bytes = bytes_of(tensor)?;
            loaded.take(engine.as_mut(), tensor, bytes)?;
        }
        loaded.take_rest(engine.as_mut())?;
        let encoder = EncoderHalf::build(engine.as_mut(), &loaded, of, shape, holds, capacity)?;
        let decoder = DecoderHalf::build(engine.as_mut(), &loaded, of, shape, holds, capacity)?;
        let has_embedding = holds.embedding || decoder.as_ref().is_some_and(|decoder| decoder.begins);
        let embedding = has_embedding.then(|| loaded.matrix(Role::TokenEmbedding, None)).transpose()?;
        let hyperparameters = of.clone();
        Ok(Self { engine, hyperparameters, capacity, activation_type, embedding, encoder, decoder })
    }

    pub fn hidden_size(&self) -> usize {
        self.hyperparameters.hidden_size as usize
    }

    pub fn vocab_size(&self) -> usize {
        self.hyperparameters.vocab_size as usize
    }

    /// Whether layers of the encoder are here.
    pub fn encodes(&self) -> bool {
        self.encoder.is_some()
    }

    /// Whether layers of the decoder are here, which the encoder's output has to come to.
    pub fn decodes(&self) -> bool {
        self.decoder.is_some()
    }

    /// Takes all `n_tokens` positions of a prompt through the encoder's layers that are here: `[n_tokens][hidden_size]`, for the next segment
    /// of the encoder, or where its last layer is here for every segment of the decoder.
    ///
    /// # Errors
    /// When input and rows do not fit, no layer of the encoder is here, or the device fails.
    pub fn encode(&mut self, n_tokens: usize, input: Input) -> Result<Vec<f32>, SegmentError> {
        let Some(half) = &self.encoder else {
            return Err(SegmentError::InputKind { given: "a prompt", wanted: "the encoder's output" });
        };
        self.check_rows(n_tokens, self.capacity.n_positions)?;
        let rows = (0..n_tokens as u32).map(|position| Row { slot: 0, position }).collect();
        let mut recording = Recording::new(rows);
        let embedding = self.embedding.filter(|_| half.begins);
        self.record_input(&mut recording, n_tokens, input, embedding, half.activations.hidden)?;
        let lengths = vec![n_tokens as u32; n_tokens];
        let it = &half.activations;
        for layer in &half.layers {
            self.record_self_attention(
                &mut recording,
                &layer.attention,
                it,
                half.cache,
                half.layout,
                half.bias,
                Some(&lengths),
            );
            self.record_feed_forward(&mut recording, &layer.ffn, it, n_tokens);
        }
        let mut out = it.hidden;
        if let Some(weight) = half.output_norm {
            recording.push(self.norm(it.hidden, weight, n_tokens, it.normed));
            // As any hidden state that travels, so that it is the same whether it does or not.
            self.record_rounding(&mut recording, it.normed, n_tokens);
            out = it.normed;
        }
        recording.readback(out, 0..n_tokens * self.hidden_size());
        Ok(self.engine.run(&recording)?)
    }

    /// Makes the keys and values that the decoder's layers here attend to of the encoder's output, `[n][hidden_size]`, for the session in
    /// `slot`.
    ///
    /// # Errors
    /// When the values are no rows or too many, no layer of the decoder is here, or the device fails.
    pub fn take_encoded(&mut self, slot: u32, encoded: Vec<f32>) -> Result<(), SegmentError> {
        let Some(half) = &self.decoder else {
            return Err(SegmentError::InputKind { given: "the encoder's output", wanted: "a prompt" });
        };
        let n_rows = encoded.len() / self.hidden_size();
        self.check_rows(n_rows, self.capacity.n_positions)?;
        if n_rows * self.hidden_size() != encoded.len() || n_rows == 0 {
            let expected = n_rows.max(1) * self.hidden_size();
            return Err(SegmentError::InputSize { rows: n_rows, values: encoded.len(), expected });
        }
        let rows = (0..n_rows as u32).map(|position| Row { slot, position }).collect();
        let mut recording = Recording::new(rows);
        recording.upload(half.encoded, 0, encoded);
        for layer in &half.layers {
            recording.push(product(layer.cross.key, half.encoded, n_rows, None, half.encoded_key));
            recording.push(product(layer.cross.value, half.encoded, n_rows, None, half.encoded_value));
            let (k, v, Cache { k: k_cache, v: v_cache }) = (half.encoded_key, half.encoded_value, layer.cross_cache);
            recording.push(KvWrite { k, v, k_cache, v_cache, layout: half.layout });
        }
        self.engine.run(&recording)?;
        Ok(())
    }

    /// Runs one decoding step over `rows`, whose sessions' encoder output was taken before; on the tail the last `n_logits` rows give logits.
    ///
    /// # Errors
    /// When input and rows do not fit, no layer of the decoder is here, or the device fails.
    pub fn step(&mut self, rows: &[DecoderRow], input: Input, n_logits: usize) -> Result<Output, SegmentError> {
        let Some(half) = &self.decoder else {
            return Err(SegmentError::InputKind { given: "a decoding step", wanted: "a prompt" });
        };
        let n_rows = rows.len();
        self.check_rows(n_rows, self.capacity.max_rows)?;
        self.check_rows(n_logits, self.capacity.max_logits().min(n_rows))?;
        let lengths: Vec<u32> = rows.iter().map(|row| row.n_encoded).collect();
        let mut recording = Recording::new(rows.iter().map(|row| row.row).collect());
        let it = &half.activations;
        let embedding = self.embedding.filter(|_| half.begins);
        self.record_input(&mut recording, n_rows, input, embedding, it.hidden)?;
        for layer in &half.layers {
            self.record_self_attention(&mut recording, &layer.attention, it, layer.cache, half.layout, half.bias, None);
            recording.push(self.norm(it.hidden, layer.cross.norm, n_rows, it.normed));
            recording.push(product(layer.cross.query, it.normed, n_rows, None, it.query));
            recording.push(self.attention(it, layer.cross_cache, half.layout, None, Some(&lengths)));
            recording.push(product(layer.cross.output, it.attended, n_rows, Some(it.hidden), it.hidden));
            self.record_feed_forward(&mut recording, &layer.ffn, it, n_rows);
        }
        let Some(head) = &half.head else {
            recording.readback(it.hidden, 0..n_rows * self.hidden_size());
            return Ok(Output::Hidden(self.engine.run(&recording)?));
        };
        if n_logits > 0 {
            let norm = self.norm(it.hidden, head.norm, n_logits, it.normed);
            recording.push(RmsNorm { first_row: n_rows - n_logits, ..norm });
            recording.push(product(head.output, it.normed, n_logits, None, head.logits));
            recording.readback(head.logits, 0..n_logits * self.vocab_size());
        }
        Ok(Output::Logits(self.engine.run(&recording)?))
    }

    fn check_rows(&self, rows: usize, limit: usize) -> Result<(), SegmentError> {
        if rows <= limit { Ok(()) } else { Err(SegmentError::TooManyRows { rows, limit }) }
    }

    fn record_input(
        &self,
        recording: &mut Recording,
        n_rows: usize,
        input: Input,
        embedding: Option<MatrixId>,
        hidden: BufferId,
    ) -> Result<(), SegmentError> {
        let (values, expected) = match &input {
            Input::Tokens(tokens) => (tokens.len(), n_rows),
            Input::Hidden(values) => (values.len(), n_rows * self.hidden_size()),
        };
        if values != expected {
            return Err(SegmentError::InputSize { rows: n_rows, values, expected });
        }
        match (input, embedding) {
            (Input::Tokens(tokens), Some(table)) => {
                recording.push(EmbedRows { table, tokens, adds: false, out: hidden });
            }
            (Input::Hidden(values), None) => recording.upload(hidden, 0, values),
            (Input::Tokens(_), None) => {
                return Err(SegmentError::InputKind { given: "tokens", wanted: "hidden states" });
            }
            (Input::Hidden(_), Some(_)) => {
                return Err(SegmentError::InputKind { given: "hidden states", wanted: "tokens" });
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "what both halves share, spelled out")]
    fn record_self_attention(
        &self,
        recording: &mut Recording,
        layer: &AttentionWeights,
        it: &Activations,
        cache: Cache,
        layout: KvLayout,
        bias: PositionBias,
        lengths: Option<&[u32]>,
    ) {
        let n_rows = recording.rows.len();
        recording.push(self.norm(it.hidden, layer.norm, n_rows, it.normed));
        recording.push(product(layer.query, it.normed, n_rows, None, it.query));
        recording.push(product(layer.key, it.normed, n_rows, None, it.key));
        recording.push(product(layer.value, it.normed, n_rows, None, it.value));
        recording.push(KvWrite { k: it.key, v: it.value, k_cache: cache.k, v_cache: cache.v, layout });
        recording.push(self.attention(it, cache, layout, Some(bias), lengths));
        recording.push(product(layer.output, it.attended, n_rows, Some(it.hidden), it.hidden));
    }

    /// Scores are not scaled: the weights of queries were made for that.
    fn attention(
        &self,
        it: &Activations,
        cache: Cache,
        layout: KvLayout,
        bias: Option<PositionBias>,
        lengths: Option<&[u32]>,
    ) -> Attention {
        let of = &self.hyperparameters;
        Attention {
            q: it.query,
            k_cache: cache.k,
            v_cache: cache.v,
            layout,
            n_heads: of.n_heads as usize,
            n_kv_heads: of.n_kv_heads as usize,
            head_size: of.head_size as usize,
            scale: 1.0,
            window: None,
            lengths: lengths.map(<[u32]>::to_vec),
            bias,
            out: it.attended,
        }
    }

    fn record_feed_forward(&self, recording: &mut Recording, layer: &FeedForward, it: &Activations, n_rows: usize) {
        let width = self.hyperparameters.ffn_size as usize;
        recording.push(self.norm(it.hidden, layer.norm, n_rows, it.normed));
        recording.push(product(layer.up, it.normed, n_rows, None, it.up));
        let (function, x, factor) = match layer.gate {
            Some(gate) => {
                recording.push(product(gate, it.normed, n_rows, None, it.gate));
                (Activation::Gelu, it.gate, Some(it.up))
            }
            None => (Activation::Relu, it.up, None),
        };
        recording.push(Activate { function, x, factor, width, n_rows, out: it.ffn });
        recording.push(product(layer.down, it.ffn, n_rows, Some(it.hidden), it.hidden));
        self.record_rounding(recording, it.hidden, n_rows);
    }

    fn record_rounding(&self, recording: &mut Recording, x: BufferId, n_rows: usize) {
        if let Some(to) = rounding(self.activation_type) {
            recording.push(RoundRows { x, width: self.hidden_size(), n_rows, to });
        }
    }

    fn norm(&self, x: BufferId, weight: VectorId, n_rows: usize, out: BufferId) -> RmsNorm {
        let (eps, width) = (self.hyperparameters.norm_epsilon, self.hidden_size());
        RmsNorm { x, first_row: 0, weight, eps, width, n_rows, out }
    }
}

fn product(weight: MatrixId, x: BufferId, n_rows: usize, residual: Option<BufferId>, out: BufferId) -> Matmul {
    Matmul { weight, x, first_row: 0, n_rows, bias: None, residual, out }
}

// === impl EncoderHalf ===

impl EncoderHalf {
    fn build(
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
            begins: here.first() == Some(&0),
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
    fn build(
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
            begins: here.first() == Some(&shape.n_layers),
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
