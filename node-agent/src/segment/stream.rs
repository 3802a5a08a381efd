//! The stream of rows through layers of one kind: the buffers that they go through, and the ops that each part of a layer is. Runs nothing.

use polyphony_kernels::{
    Activate, Activation, ActivationRounding, AddRows, Attention, BufferId, ConvWrite, Engine, GateUp, KvLayout,
    KvWrite, LayerNorm, PositionBias, Recording, RmsNorm, Rope, RopeKvWrite, RoundRows, ShortConv, VectorId,
};
use polyphony_model::{Hyperparameters, StepWidths, Uses, family};
use polyphony_protocol::ActivationType;

use super::SegmentError;
use super::attention::{Cache, Projection, SelfAttention};
use super::convolution::Convolution;
use super::experts::{self, Way};
use super::feed_forward::{FeedForward, Input, Network, WayUp};
use super::linear::Linear;
use super::norm::Norm;

/// What all layers of a stream share: the model's numbers, and room for as many rows as a step has.
pub(super) struct Stream {
    of: Hyperparameters,
    activation_type: ActivationType,
    /// Of every layer's caches.
    layout: KvLayout,
    /// What raises scores of attention over a row's own past, where positions do.
    bias: Option<PositionBias>,
    pub buffers: Buffers,
}

/// Activations, so many rows of each; those that no layer uses are as narrow as can be.
pub(super) struct Buffers {
    pub hidden: BufferId,
    pub normed: BufferId,
    /// What the feed-forward network takes beside attention, by a norm of its own.
    beside: BufferId,
    /// Queries, keys and values of a row after one another.
    joined: BufferId,
    pub query: BufferId,
    key: BufferId,
    value: BufferId,
    /// Queries and keys after their norms.
    normed_query: BufferId,
    normed_key: BufferId,
    pub attended: BufferId,
    /// What a sub-layer gives, before it is normed or scaled.
    given: BufferId,
    gate: BufferId,
    up: BufferId,
    ffn: BufferId,
    experts: experts::Buffers,
    /// What goes into a convolution, in three parts, and what comes of it.
    conv_input: BufferId,
    convolved: BufferId,
}

/// Takes note of which buffers a layer's attention uses.
pub(super) fn attend(uses: &mut Uses, attention: &SelfAttention) {
    match attention.projection {
        Projection::Joined(_) => uses.joined = true,
        Projection::Apart { .. } => uses.apart = true,
    }
}

/// The same of its feed-forward network.
pub(super) fn feed(uses: &mut Uses, ffn: &FeedForward) {
    let Network::Dense { up, .. } = ffn.network else { return };
    uses.gate |= matches!(up, WayUp::Apart { .. });
    uses.up |= !matches!(up, WayUp::Joined(_));
    uses.ffn = true;
}

// === impl Buffers ===

impl Buffers {
    fn alloc(engine: &mut dyn Engine, of: &Hyperparameters, uses: Uses, n_rows: usize) -> Result<Self, SegmentError> {
        let widths = StepWidths::new(of, uses);
        let experts = experts::Buffers::alloc(engine, widths.experts, n_rows)?;
        let mut rows_of = |width: u32| engine.alloc(n_rows * width as usize);
        Ok(Self {
            hidden: rows_of(widths.hidden)?,
            normed: rows_of(widths.normed)?,
            beside: rows_of(widths.beside)?,
            joined: rows_of(widths.joined)?,
            query: rows_of(widths.query)?,
            key: rows_of(widths.key)?,
            value: rows_of(widths.value)?,
            normed_query: rows_of(widths.normed_query)?,
            normed_key: rows_of(widths.normed_key)?,
            attended: rows_of(widths.attended)?,
            given: rows_of(widths.given)?,
            gate: rows_of(widths.gate)?,
            up: rows_of(widths.up)?,
            ffn: rows_of(widths.ffn)?,
            experts,
            conv_input: rows_of(widths.conv_input)?,
            convolved: rows_of(widths.convolved)?,
        })
    }
}

// === impl Stream ===

impl Stream {
    /// Takes room for steps of `n_rows`.
    pub fn build(
        engine: &mut dyn Engine,
        of: &Hyperparameters,
        activation_type: ActivationType,
        layout: KvLayout,
        bias: Option<PositionBias>,
        uses: Uses,
        n_rows: usize,
    ) -> Result<Self, SegmentError> {
        let buffers = Buffers::alloc(engine, of, uses, n_rows)?;
        Ok(Self { of: of.clone(), activation_type, layout, bias, buffers })
    }

    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    pub fn hidden_size(&self) -> usize {
        self.of.hidden_size as usize
    }

    /// The numbers of the model.
    pub fn of(&self) -> &Hyperparameters {
        &self.of
    }

    /// Attention over the past of the rows, or with `lengths` over so many positions of each; what it gives is added to the hidden state.
    pub fn record_self_attention(
        &self,
        recording: &mut Recording,
        layer: &SelfAttention,
        ffn: &FeedForward,
        cache: Cache,
        lengths: Option<&[u32]>,
    ) {
        let it = &self.buffers;
        if let Input::Beside(norm) = ffn.input {
            // While the hidden state is still what attention takes.
            self.record_norm(recording, norm, it.beside);
        }
        let x = self.record_norm_if_any(recording, layer.norm);
        let q = self.record_projection(recording, layer, x, cache);
        let op = self.attention(q, cache, lengths);
        recording.push(Attention { window: layer.window, bias: self.bias, sinks: layer.sinks, ..op });
        self.record_product(recording, layer.output, it.attended, layer.post_norm);
    }

    /// A short convolution over the past of the rows; what it gives is added to the hidden state.
    pub fn record_convolution(&self, recording: &mut Recording, layer: &Convolution) {
        let it = &self.buffers;
        let n_rows = recording.rows.len();
        let layout = Convolution::layout(&self.of, self.layout);
        let (x, cache, out) = (it.conv_input, layer.cache, it.convolved);
        let taken = self.record_norm_if_any(recording, layer.norm);
        recording.push(layer.input.of(taken, n_rows, None, x));
        recording.push(ConvWrite { x, cache, layout });
        recording.push(ShortConv { x, taps: layer.taps, n_taps: layer.n_taps, cache, layout, out });
        self.record_product(recording, layer.output, out, None);
    }

    /// Attention over the first `lengths` positions of a cache that is not the rows' own; the queries are there.
    pub fn record_cross_attention(&self, recording: &mut Recording, output: Linear, cache: Cache, lengths: &[u32]) {
        recording.push(self.attention(self.buffers.query, cache, Some(lengths)));
        self.record_product(recording, output, self.buffers.attended, None);
    }

    fn attention(&self, q: BufferId, cache: Cache, lengths: Option<&[u32]>) -> Attention {
        let (cap, _) = self.of.caps();
        Attention {
            q,
            k_cache: cache.k,
            v_cache: cache.v,
            layout: self.layout,
            n_heads: self.of.n_heads as usize,
            n_kv_heads: self.of.n_kv_heads as usize,
            head_size: self.of.head_size as usize,
            scale: self.of.score_scale(),
            cap,
            window: None,
            lengths: lengths.map(<[u32]>::to_vec),
            bias: None,
            sinks: None,
            out: self.buffers.attended,
        }
    }

    /// The feed-forward network, whose layer's attention has been recorded; what it gives is added to the hidden state, which is then rounded.
    pub fn record_feed_forward(&self, recording: &mut Recording, layer: &FeedForward) {
        let it = &self.buffers;
        let (width, n_rows) = (self.of.ffn_size as usize, recording.rows.len());
        let x = match layer.input {
            Input::After(norm) => self.record_norm_if_any(recording, norm),
            Input::Beside(_) => it.beside,
            // Attention has left it as it took it.
            Input::Shared => it.normed,
        };
        let function = match self.of.activation() {
            family::Activation::Silu => Activation::Silu,
            family::Activation::SiluClamped => Activation::SiluClamped,
            family::Activation::Gelu => Activation::Gelu,
            family::Activation::Relu => Activation::Relu,
        };
        match &layer.network {
            Network::Experts(experts) => {
                let way = Way { of: &self.of, function, buffers: &it.experts, x };
                self.record_gift(recording, layer.post_norm, |recording, residual, out| {
                    experts.record(recording, &way, residual, out);
                });
            }
            Network::Dense { up, down } => {
                match *up {
                    WayUp::Joined(weight) => recording.push(GateUp { function, weight, x, n_rows, out: it.ffn }),
                    WayUp::Apart { gate, up } => {
                        recording.push(gate.of(x, n_rows, None, it.gate));
                        recording.push(up.of(x, n_rows, None, it.up));
                        let factor = Some(it.up);
                        recording.push(Activate { function, x: it.gate, factor, width, n_rows, out: it.ffn });
                    }
                    WayUp::Plain(up) => {
                        recording.push(up.of(x, n_rows, None, it.up));
                        recording.push(Activate { function, x: it.up, factor: None, width, n_rows, out: it.ffn });
                    }
                }
                self.record_product(recording, *down, it.ffn, layer.post_norm);
            }
        }
        self.record_rounding(recording, it.hidden);
    }

    /// What a sub-layer gives to the hidden state as a product of `x`.
    fn record_product(&self, recording: &mut Recording, product: Linear, x: BufferId, post_norm: Option<Norm>) {
        let n_rows = recording.rows.len();
        self.record_gift(recording, post_norm, |recording, residual, out| {
            recording.push(product.of(x, n_rows, residual, out));
        });
    }

    /// What a sub-layer gives to the hidden state: what `give` puts into its last argument, added to its second where there is one, normed
    /// and scaled where the family does so.
    fn record_gift(
        &self,
        recording: &mut Recording,
        post_norm: Option<Norm>,
        give: impl FnOnce(&mut Recording, Option<BufferId>, BufferId),
    ) {
        let it = &self.buffers;
        let n_rows = recording.rows.len();
        if !self.of.adds_apart() {
            give(recording, Some(it.hidden), it.hidden);
            return;
        }
        give(recording, None, it.given);
        let x = match post_norm {
            None => it.given,
            Some(norm) => {
                self.push_norm(recording, norm, it.given, 0, n_rows, it.normed);
                it.normed
            }
        };
        let scale = self.of.residual_scale();
        recording.push(AddRows { x, scale, width: self.hidden_size(), n_rows, out: it.hidden });
    }

    /// As hidden states travel, so that they are the same whether they do or not.
    pub fn record_rounding(&self, recording: &mut Recording, x: BufferId) {
        let to = match self.activation_type {
            ActivationType::F32 => return,
            ActivationType::F16 => ActivationRounding::F16,
            ActivationType::Q8 => ActivationRounding::Q8,
        };
        recording.push(RoundRows { x, width: self.hidden_size(), n_rows: recording.rows.len(), to });
    }

    /// The norm of the hidden states, where there is one; where what follows lies.
    fn record_norm_if_any(&self, recording: &mut Recording, norm: Option<Norm>) -> BufferId {
        match norm {
            None => self.buffers.hidden,
            Some(norm) => self.record_norm(recording, norm, self.buffers.normed),
        }
    }

    /// The norm of the hidden states of all rows, into `out`.
    pub fn record_norm(&self, recording: &mut Recording, norm: Norm, out: BufferId) -> BufferId {
        let n_rows = recording.rows.len();
        self.push_norm(recording, norm, self.buffers.hidden, 0, n_rows, out);
        out
    }

    /// The norm of `n_rows` rows of `x` from `first_row` on.
    pub fn push_norm(
        &self,
        recording: &mut Recording,
        norm: Norm,
        x: BufferId,
        first_row: usize,
        n_rows: usize,
        out: BufferId,
    ) {
        let (eps, width) = (self.of.norm_epsilon, self.hidden_size());
        match norm {
            Norm::Rms(weight) => recording.push(RmsNorm { x, first_row, weight, eps, width, n_rows, out }),
            Norm::Layer { weight, bias } => {
                recording.push(LayerNorm { x, first_row, weight, bias, eps, width, n_rows, out });
            }
        }
    }

    /// Keys and values into the layer's cache, keys and queries turned where they turn; where the queries lie.
    fn record_projection(
        &self,
        recording: &mut Recording,
        layer: &SelfAttention,
        x: BufferId,
        cache: Cache,
    ) -> BufferId {
        let it = &self.buffers;
        let n_rows = recording.rows.len();
        let [n_heads, n_kv_heads, head_size] =
            [self.of.n_heads, self.of.n_kv_heads, self.of.head_size].map(|n| n as usize);
        let (turn, layout, Cache { k: k_cache, v: v_cache }) = (layer.turn.clone(), self.layout, cache);
        let (query, key, value, head_norms) = match layer.projection {
            Projection::Joined(linear) => {
                recording.push(linear.of(x, n_rows, None, it.joined));
                let (qkv, q) = (it.joined, it.query);
                recording.push(RopeKvWrite { qkv, n_heads, n_kv_heads, head_size, turn, q, k_cache, v_cache, layout });
                return q;
            }
            Projection::Apart { query, key, value, head_norms } => (query, key, value, head_norms),
        };
        recording.push(query.of(x, n_rows, None, it.query));
        recording.push(key.of(x, n_rows, None, it.key));
        recording.push(value.of(x, n_rows, None, it.value));
        let (mut q, mut k) = (it.query, it.key);
        if let Some(norms) = head_norms {
            recording.push(self.head_norm(q, norms.query, n_rows, n_heads, it.normed_query));
            recording.push(self.head_norm(k, norms.key, n_rows, n_kv_heads, it.normed_key));
            (q, k) = (it.normed_query, it.normed_key);
        }
        if let Some(turn) = turn {
            recording.push(Rope { x: q, n_heads, head_size, turn: turn.clone() });
            recording.push(Rope { x: k, n_heads: n_kv_heads, head_size, turn });
        }
        recording.push(KvWrite { k, v: it.value, k_cache, v_cache, layout });
        q
    }

    /// The norm of each of `n_heads` heads in all rows, or of all of a row's together.
    fn head_norm(&self, x: BufferId, weight: VectorId, n_rows: usize, n_heads: usize, out: BufferId) -> RmsNorm {
        let head_size = self.of.head_size as usize;
        let (width, n_rows) = match self.of.architecture.family().head_norms {
            family::HeadNorms::All => (n_heads * head_size, n_rows),
            family::HeadNorms::Each | family::HeadNorms::None => (head_size, n_rows * n_heads),
        };
        RmsNorm { x, first_row: 0, weight, eps: self.of.norm_epsilon, width, n_rows, out }
    }
}
