//! Encoder–decoder segments (T5, arXiv 1910.10683): layers of the encoder, of the decoder, or of both. Knows no session and no network.
//!
//! A prompt goes once through the encoder's layers, all its positions at a time, from segment to segment. What the last of them puts out
//! goes straight to every segment that holds layers of the decoder, which keeps the keys and values that its layers make of it. From then
//! on tokens go through the decoder's layers, as through those of any other model, and end as logits.

mod halves;

use std::ops::Range;

use polyphony_kernels::{Engine, FileBytes, KvWrite, Recording, Row};
use polyphony_model::{Holds, Hyperparameters, LayerRange, Manifest, TensorEntry};

use super::attention::Cache;
use super::embedding::Embedding;
use super::linear::Linear;
use super::loaded::Loaded;
use super::{Capacity, Input, Output, Rounding, SegmentError};
use halves::{DecoderHalf, DecoderLayer, EncoderHalf, Parts};

/// The layers that a phone holds of an encoder–decoder model, loaded.
pub struct EncoderDecoderSegment {
    engine: Box<dyn Engine>,
    hyperparameters: Hyperparameters,
    /// Layers of the encoder in the whole model.
    n_encoder_layers: u32,
    capacity: Capacity,
    /// All that is loaded; a step runs a part of it.
    holds: Holds,
    /// Of the first segment of either half.
    embedding: Option<Embedding>,
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
    pub fn load<E: From<SegmentError>, B: FileBytes + 'static>(
        mut engine: Box<dyn Engine>,
        manifest: &Manifest,
        holds: Holds,
        capacity: Capacity,
        rounding: impl Into<Rounding>,
        mut bytes_of: impl FnMut(&TensorEntry) -> Result<B, E>,
    ) -> Result<Self, E> {
        let of = &manifest.hyperparameters;
        let Some(shape) = of.encoder else {
            return Err(SegmentError::NoEncoder { architecture: of.architecture }.into());
        };
        let mut loaded = Loaded::new(of.architecture);
        for tensor in manifest.tensors_of(&holds) {
            let bytes = bytes_of(tensor)?;
            loaded.take(engine.as_mut(), tensor, Box::new(bytes))?;
        }
        loaded.take_rest(engine.as_mut())?;
        let parts = Parts { loaded: &loaded, of, shape, holds, capacity, rounding: rounding.into() };
        let encoder = EncoderHalf::build(engine.as_mut(), &parts)?;
        let decoder = DecoderHalf::build(engine.as_mut(), &parts)?;
        let has_embedding = holds.embedding || holds.layers.contains(shape.n_layers);
        let embedding = has_embedding.then(|| Embedding::build(&loaded, of)).transpose()?;
        let hyperparameters = of.clone();
        let n_encoder_layers = shape.n_layers;
        Ok(Self { engine, hyperparameters, n_encoder_layers, capacity, holds, embedding, encoder, decoder })
    }

    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// All that is loaded.
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Bytes that weights and buffers take on the engine.
    pub fn bytes_used(&self) -> u64 {
        self.engine.bytes_used()
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
        let (stream, it) = (&half.stream, &half.stream.buffers);
        let embedding = self.embedding.as_ref().filter(|_| part.layers.contains(0));
        stream.record_input(&mut recording, input, embedding)?;
        let lengths = vec![n_tokens as u32; n_tokens];
        for layer in layers {
            stream.record_self_attention(&mut recording, &layer.attention, &layer.ffn, half.cache, Some(&lengths));
            stream.record_feed_forward(&mut recording, &layer.ffn);
        }
        let mut out = it.hidden;
        let ends = part.layers.contains(self.n_encoder_layers - 1);
        if let Some(norm) = half.output_norm.filter(|_| ends) {
            out = stream.record_norm(&mut recording, norm, it.normed);
            stream.record_rounding(&mut recording, out);
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
            let product = |weight, out| Linear { weight, bias: None }.of(half.encoded, n_rows, None, out);
            recording.push(product(layer.cross.key, half.encoded_key));
            recording.push(product(layer.cross.value, half.encoded_value));
            let (k, v, Cache { k: k_cache, v: v_cache }) = (half.encoded_key, half.encoded_value, layer.cross_cache);
            recording.push(KvWrite { k, v, k_cache, v_cache, layout: half.stream.layout() });
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
        let stream = &half.stream;
        let embedding = self.embedding.as_ref().filter(|_| part.layers.contains(self.n_encoder_layers));
        stream.record_input(&mut recording, input, embedding)?;
        for layer in layers {
            half.record_layer(&mut recording, layer, &lengths);
        }
        let Some(head) = half.head.as_ref().filter(|_| part.head) else {
            recording.readback(stream.buffers.hidden, 0..n_rows * self.hidden_size());
            return Ok(Output::Hidden(self.engine.run(&recording)?));
        };
        stream.record_logits(&mut recording, head, n_logits);
        Ok(Output::Logits(self.engine.run(&recording)?))
    }

    fn check_part(&self, part: Holds) -> Result<(), SegmentError> {
        let LayerRange { from, to } = part.layers;
        if part.lies_within(&self.holds) { Ok(()) } else { Err(SegmentError::NotLoaded { from, to }) }
    }

    fn check_rows(&self, rows: usize, limit: usize) -> Result<(), SegmentError> {
        if rows <= limit { Ok(()) } else { Err(SegmentError::TooManyRows { rows, limit }) }
    }
}

// === impl DecoderHalf ===

impl DecoderHalf {
    /// Attention to the past, then to the first `lengths` positions of the encoder's output, then the feed-forward network.
    fn record_layer(&self, recording: &mut Recording, layer: &DecoderLayer, lengths: &[u32]) {
        let (stream, n_rows) = (&self.stream, recording.rows.len());
        let DecoderLayer { layer, cache, cross, cross_cache } = layer;
        stream.record_self_attention(recording, &layer.attention, &layer.ffn, *cache, None);
        let x = stream.record_norm(recording, cross.norm, stream.buffers.normed);
        recording.push(cross.query.of(x, n_rows, None, stream.buffers.query));
        stream.record_cross_attention(recording, cross.output, *cross_cache, lengths);
        stream.record_feed_forward(recording, &layer.ffn);
    }
}

/// Where the layers of `part` are among `n_layers` from the model's layer `first` on.
fn within(first: u32, n_layers: usize, part: Holds) -> Range<usize> {
    let index = |layer: u32| (layer.saturating_sub(first) as usize).min(n_layers);
    index(part.layers.from)..index(part.layers.to)
}
