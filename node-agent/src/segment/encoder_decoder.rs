//! Encoder–decoder segments (T5, arXiv 1910.10683): layers of the encoder, of the decoder, or of both. Knows no session and no network.
//!
//! A prompt goes once through the encoder's layers, all its positions at a time, from segment to segment. What the last of them puts out
//! goes straight to every segment that holds layers of the decoder, which keeps the keys and values that its layers make of it. From then
//! on tokens go through the decoder's layers, as through those of any other model, and end as logits.

mod halves;

use std::ops::Range;

use polyphony_kernels::{
    Activate, Activation, Attention, BufferId, EmbedRows, Engine, KvLayout, KvWrite, Matmul, MatrixId, PositionBias,
    Recording, RmsNorm, RoundRows, Row, VectorId,
};
use polyphony_model::{Holds, Hyperparameters, LayerRange, Manifest, Role, TensorEntry};
use polyphony_protocol::ActivationType;

use super::decoder::rounding;
use super::loaded::Loaded;
use super::{Capacity, Input, Output, SegmentError};
use halves::{Activations, AttentionWeights, Cache, DecoderHalf, EncoderHalf, FeedForward};

/// The layers that a phone holds of an encoder–decoder model, loaded.
pub struct EncoderDecoderSegment {
    engine: Box<dyn Engine>,
    hyperparameters: Hyperparameters,
    /// Layers of the encoder in the whole model.
    n_encoder_layers: u32,
    capacity: Capacity,
    /// All that is loaded; a step runs a part of it.
    holds: Holds,
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
        let has_embedding = holds.embedding || holds.layers.contains(shape.n_layers);
        let embedding = has_embedding.then(|| loaded.matrix(Role::TokenEmbedding, None)).transpose()?;
        let hyperparameters = of.clone();
        let n_encoder_layers = shape.n_layers;
        Ok(Self {
            engine,
            hyperparameters,
            n_encoder_layers,
            capacity,
            holds,
            activation_type,
            embedding,
            encoder,
            decoder,
        })
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// All that is loaded.
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Whether tokens and not hidden states come to what is loaded: prompts to the encoder's first layer, others to the decoder's.
    pub fn takes_tokens(&self) -> bool {
        let first = if self.decodes() { self.n_encoder_layers } else { 0 };
        self.holds.layers.contains(first)
    }

    /// Layers of `part` that a prompt is encoded by; rows of decoding go through the others.
    pub fn n_encoding_layers(&self, part: Holds) -> usize {
        let LayerRange { from, to } = part.layers;
        to.min(self.n_encoder_layers).saturating_sub(from) as usize
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
        self.encode_of(self.holds, n_tokens, input)
    }

    /// As [`encode`](Self::encode), by a part of what is loaded.
    ///
    /// # Errors
    /// The same, and when not all of the part is loaded.
    pub fn encode_of(&mut self, part: Holds, n_tokens: usize, input: Input) -> Result<Vec<f32>, SegmentError> {
        self.check_part(part)?;
        let layers = self.encoder.as_ref().map(|half| &half.layers[within(half.first, half.layers.len(), part)]);
        let (Some(half), Some(layers @ [_, ..])) = (&self.encoder, layers) else {
            return Err(SegmentError::InputKind { given: "a prompt", wanted: "the encoder's output" });
        };
        self.check_rows(n_tokens, self.capacity.n_positions)?;
        let rows = (0..n_tokens as u32).map(|position| Row { slot: 0, position }).collect();
        let mut recording = Recording::new(rows);
        let embedding = self.embedding.filter(|_| part.layers.contains(0));
        self.record_input(&mut recording, n_tokens, input, embedding, half.activations.hidden)?;
        let lengths = vec![n_tokens as u32; n_tokens];
        let it = &half.activations;
        for layer in layers {
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
        let ends = part.layers.contains(self.n_encoder_layers - 1);
        if let Some(weight) = half.output_norm.filter(|_| ends) {
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
        self.take_encoded_of(self.holds, slot, encoded)
    }

    /// As [`take_encoded`](Self::take_encoded), for a part of what is loaded.
    ///
    /// # Errors
    /// The same, and when not all of the part is loaded.
    pub fn take_encoded_of(&mut self, part: Holds, slot: u32, encoded: Vec<f32>) -> Result<(), SegmentError> {
        self.check_part(part)?;
        let layers = self.decoder.as_ref().map(|half| &half.layers[within(half.first, half.layers.len(), part)]);
        let (Some(half), Some(layers @ [_, ..])) = (&self.decoder, layers) else {
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
        for layer in layers {
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
        self.step_of(self.holds, rows, input, n_logits)
    }

    /// As [`step`](Self::step), by a part of what is loaded.
    ///
    /// # Errors
    /// The same, and when not all of the part is loaded.
    pub fn step_of(
        &mut self,
        part: Holds,
        rows: &[DecoderRow],
        input: Input,
        n_logits: usize,
    ) -> Result<Output, SegmentError> {
        self.check_part(part)?;
        let layers = self.decoder.as_ref().map(|half| &half.layers[within(half.first, half.layers.len(), part)]);
        let (Some(half), Some(layers @ [_, ..])) = (&self.decoder, layers) else {
            return Err(SegmentError::InputKind { given: "a decoding step", wanted: "a prompt" });
        };
        let n_rows = rows.len();
        self.check_rows(n_rows, self.capacity.max_rows)?;
        self.check_rows(n_logits, self.capacity.max_logits().min(n_rows))?;
        let lengths: Vec<u32> = rows.iter().map(|row| row.n_encoded).collect();
        let mut recording = Recording::new(rows.iter().map(|row| row.row).collect());
        let it = &half.activations;
        let embedding = self.embedding.filter(|_| part.layers.contains(self.n_encoder_layers));
        self.record_input(&mut recording, n_rows, input, embedding, it.hidden)?;
        for layer in layers {
            self.record_self_attention(&mut recording, &layer.attention, it, layer.cache, half.layout, half.bias, None);
            recording.push(self.norm(it.hidden, layer.cross.norm, n_rows, it.normed));
            recording.push(product(layer.cross.query, it.normed, n_rows, None, it.query));
            recording.push(self.attention(it, layer.cross_cache, half.layout, None, Some(&lengths)));
            recording.push(product(layer.cross.output, it.attended, n_rows, Some(it.hidden), it.hidden));
            self.record_feed_forward(&mut recording, &layer.ffn, it, n_rows);
        }
        let Some(head) = half.head.as_ref().filter(|_| part.head) else {
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

    fn check_part(&self, part: Holds) -> Result<(), SegmentError> {
        let LayerRange { from, to } = part.layers;
        if part.lies_within(&self.holds) { Ok(()) } else { Err(SegmentError::NotLoaded { from, to }) }
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

/// Where the layers of `part` are among `n_layers` from the model's layer `first` on.
fn within(first: u32, n_layers: usize, part: Holds) -> Range<usize> {
    let index = |layer: u32| (layer.saturating_sub(first) as usize).min(n_layers);
    index(part.layers.from)..index(part.layers.to)
}

fn product(weight: MatrixId, x: BufferId, n_rows: usize, residual: Option<BufferId>, out: BufferId) -> Matmul {
    Matmul { weight, x, first_row: 0, n_rows, bias: None, residual, out }
}
