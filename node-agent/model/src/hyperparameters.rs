//! Hyperparameters: the numbers that shape a model, read from GGUF metadata. Knows no tensor data.

use serde::{Deserialize, Serialize};

use crate::gguf::{Gguf, GgufError, Metadata, Value};
use crate::role::Role;

/// The numbers of a model that its tensors and its arithmetic follow from.
///
/// [`Hyperparameters::check`] has passed on every value that this crate hands out: sizes are above 0 and small enough
/// that products of two of them fit 64 bits, and every number is finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hyperparameters {
    pub architecture: Architecture,
    pub n_layers: u32,
    /// Values of one hidden state.
    pub hidden_size: u32,
    pub n_heads: u32,
    /// Heads of keys and values; `n_heads` is a multiple of it.
    pub n_kv_heads: u32,
    /// Values of one head; not always `hidden_size / n_heads`. Attention scores are scaled by 1/√`head_size`.
    pub head_size: u32,
    /// Values between the feed-forward matrices.
    pub ffn_size: u32,
    pub vocab_size: u32,
    /// Tokens the model was trained to see at once.
    pub context_length: u32,
    /// Added to the mean square under the root of every norm.
    pub norm_epsilon: f32,
    /// `None` where positions are not rotary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<Rope>,
    /// Of an encoder–decoder model only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Encoder>,
    /// The embedding serves as output matrix as well.
    pub tied_embedding: bool,
}

/// The family of a model: which operations follow which, whatever the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "camelCase")]
pub enum Architecture {
    /// Norm, attention with rotary positions, norm, SwiGLU; no biases.
    Llama,
    /// As Llama, with biases on queries, keys and values; rotation by halves.
    Qwen2,
    /// As Llama, with a norm of each query and key head; rotation by halves.
    Qwen3,
    /// Layer norm with bias, attention with learned positions, layer norm, GELU; biases throughout (Radford et al. 2019).
    Gpt2,
    /// As GPT-2, with ALiBi for positions and a norm of the embedding (arXiv 2211.05100).
    Bloom,
    /// An encoder and a decoder with biases by distance, feed-forward by ReLU or GELU with a gate; no biases otherwise
    /// (arXiv 1910.10683).
    T5,
}

/// How a model tells positions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    Rotary(RopeStyle),
    /// A bias on attention scores that grows with distance (arXiv 2108.12409).
    Alibi,
    /// A vector for each, added to the embedding.
    Learned,
    /// A learned bias on attention scores for each bucket of distances.
    Buckets,
}

/// The half of a model that reads the prompt, all positions at once. The decoder attends to what it puts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encoder {
    /// The first so many of the model's layers; the others are the decoder's.
    pub n_layers: u32,
    /// Buckets of distances that have a bias each: even, at least 4.
    pub n_buckets: u32,
    /// The token that decoding starts from.
    pub start_token: u32,
    /// GELU with a gate; otherwise ReLU without.
    pub is_gated: bool,
}

/// Rotary position embedding (arXiv 2104.09864): the pair with index j at position p turns by
/// p · `position_scale` · `base`^(-2j / `n_rotated`) / factor\[j\].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rope {
    pub style: RopeStyle,
    pub base: f32,
    /// Values of each head that turn, from its start; even, at most the head size.
    pub n_rotated: u32,
    /// 1 ÷ `rope.scaling.factor`; 1 where there is no linear scaling.
    pub position_scale: f32,
    /// A tensor of `n_rotated / 2` divisors of the frequencies comes with the model (factor\[j\]; else 1).
    pub has_frequency_factors: bool,
}

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RopeStyle {
    /// (2j, 2j + 1)
    Pairs,
    /// (j, j + n/2)
    Halves,
}

/// Why hyperparameters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HyperparameterError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error("architecture `{found}` is not supported; supported are: {supported}")]
    Architecture { found: String, supported: String },
    #[error("`{key}` is {found}: {why}")]
    Unusable { key: String, found: String, why: String },
    #[error("tensor `{tensor}` is missing; the file is incomplete, fetch it again or convert the model anew")]
    MissingTensor { tensor: String },
}

/// Bounds that no known model comes near; they keep products within 64 bits and loops within reason.
const MAX_LAYERS: u32 = 1 << 12;
const MAX_SIZE: u32 = 1 << 20;
const MAX_VOCAB: u32 = 1 << 22;
const MAX_CONTEXT: u32 = 1 << 26;
/// Values of a head that kernels take. Held to the kernels' own by a test of who has both.
pub const MAX_HEAD_SIZE: u32 = 256;

// === impl Architecture ===

impl Architecture {
    /// Every architecture that a model file may have.
    pub const SUPPORTED: [Architecture; 6] = [
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Gpt2,
        Architecture::Bloom,
        Architecture::T5,
    ];

    /// The name in `general.architecture`, which also begins the other keys.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// How positions are told apart; goes by architecture, no key of the file says it.
    pub fn positions(self) -> Positions {
        match self {
            Architecture::Llama => Positions::Rotary(RopeStyle::Pairs),
            Architecture::Qwen2 | Architecture::Qwen3 => Positions::Rotary(RopeStyle::Halves),
            Architecture::Gpt2 => Positions::Learned,
            Architecture::Bloom => Positions::Alibi,
            Architecture::T5 => Positions::Buckets,
        }
    }

    /// Which pairs turn; `None` where positions are not rotary.
    pub fn rope_style(self) -> Option<RopeStyle> {
        match self.positions() {
            Positions::Rotary(style) => Some(style),
            Positions::Alibi | Positions::Learned | Positions::Buckets => None,
        }
    }

    /// Whether norms subtract the mean and add a bias, and every matrix has a bias, too.
    pub fn has_layer_norms(self) -> bool {
        matches!(self, Architecture::Gpt2 | Architecture::Bloom)
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Architecture {
    type Err = HyperparameterError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::SUPPORTED.into_iter().find(|architecture| architecture.name() == name).ok_or_else(|| {
            let supported = Self::SUPPORTED.map(Architecture::name).join(", ");
            HyperparameterError::Architecture { found: name.to_owned(), supported }
        })
    }
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Reads and checks the hyperparameters of a file.
    ///
    /// What a file may leave out, as llama.cpp reads it: `attention.head_count_kv` (as many as heads),
    /// `attention.key_length` (hidden ÷ heads), `rope.dimension_count` (the head size), `rope.freq_base` (10000),
    /// `vocab_size` (the rows of the embedding), `output.weight` (tied).
    ///
    /// # Errors
    /// A missing or mistyped key, an architecture or a feature that is not supported, or numbers that do not fit
    /// together; each names the key.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, HyperparameterError> {
        let metadata = &gguf.metadata;
        let architecture: Architecture = metadata.string("general.architecture")?.parse()?;
        let keys = Keys { metadata, architecture };
        keys.refuse_unsupported()?;

        let hidden_size = metadata.u32(&keys.name("embedding_length"))?;
        let n_heads = metadata.u32(&keys.name("attention.head_count"))?;
        let context_length = metadata.u32(&keys.name("context_length"))?;
        let n_kv_heads = metadata.optional_u32(&keys.name("attention.head_count_kv"))?.unwrap_or(n_heads);
        let head_size = keys.head_size(hidden_size, n_heads)?;

        let encoder = (architecture == Architecture::T5).then(|| keys.encoder(gguf)).transpose()?;
        let n_decoder_layers = keys.n_decoder_layers(encoder)?;

        let found = Self {
            architecture,
            n_layers: encoder.map_or(0, |encoder| encoder.n_layers).saturating_add(n_decoder_layers),
            hidden_size,
            n_heads,
            n_kv_heads,
            head_size,
            ffn_size: metadata.u32(&keys.name("feed_forward_length"))?,
            vocab_size: vocab_size(gguf)?,
            context_length,
            norm_epsilon: metadata.f32(&keys.name(epsilon_key(architecture)))?,
            rope: architecture.rope_style().map(|style| keys.rope(style, head_size, gguf)).transpose()?,
            encoder,
            tied_embedding: gguf.tensor("output.weight").is_none(),
        };
        found.check()?;
        Ok(found)
    }

    /// Whether the numbers fit together; a phone asks this of what it was sent.
    ///
    /// # Errors
    /// [`HyperparameterError::Unusable`] with the key as a GGUF file names it.
    pub fn check(&self) -> Result<(), HyperparameterError> {
        let sizes = [
            ("block_count", self.n_layers, MAX_LAYERS),
            ("embedding_length", self.hidden_size, MAX_SIZE),
            ("attention.head_count", self.n_heads, MAX_SIZE),
            ("attention.head_count_kv", self.n_kv_heads, MAX_SIZE),
            ("attention.key_length", self.head_size, MAX_SIZE),
            ("feed_forward_length", self.ffn_size, MAX_SIZE),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("context_length", self.context_length, MAX_CONTEXT),
        ];
        for (key, found, limit) in sizes {
            if found == 0 || found > limit {
                return Err(self.unusable(key, found, format!("it has to be from 1 to {limit}")));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let why = format!("the {} heads cannot share it evenly", self.n_heads);
            return Err(self.unusable("attention.head_count_kv", self.n_kv_heads, why));
        }
        if !self.head_size.is_multiple_of(4) || self.head_size > MAX_HEAD_SIZE {
            let why = format!("kernels take a multiple of 4, at most {MAX_HEAD_SIZE}; use a model of other sizes");
            return Err(self.unusable("attention.key_length", self.head_size, why));
        }
        self.check_real(epsilon_key(self.architecture), self.norm_epsilon)?;
        if self.rope.map(|rope| rope.style) != self.architecture.rope_style() {
            let why = format!("{} has {:?}", self.architecture, self.architecture.rope_style());
            return Err(self.unusable("rope.style", format!("{:?}", self.rope.map(|rope| rope.style)), why));
        }
        self.check_encoder()?;
        let Some(rope) = self.rope else { return Ok(()) };
        let n_rotated = rope.n_rotated;
        if n_rotated == 0 || n_rotated > self.head_size || !n_rotated.is_multiple_of(2) {
            let why = format!("it has to be even, above 0 and at most the head size {}", self.head_size);
            return Err(self.unusable("rope.dimension_count", n_rotated, why));
        }
        self.check_real("rope.freq_base", rope.base)?;
        self.check_real("rope.scaling.factor", rope.position_scale)
    }

    fn check_encoder(&self) -> Result<(), HyperparameterError> {
        let Some(encoder) = self.encoder else {
            if self.architecture == Architecture::T5 {
                return Err(self.unusable("block_count", 0, "it has an encoder".to_owned()));
            }
            return Ok(());
        };
        if self.architecture != Architecture::T5 {
            return Err(self.unusable("block_count", encoder.n_layers, "it has no encoder".to_owned()));
        }
        if encoder.n_layers == 0 || encoder.n_layers >= self.n_layers {
            let why = format!("it has to be from 1 to less than the {} layers of both halves", self.n_layers);
            return Err(self.unusable("block_count", encoder.n_layers, why));
        }
        if !(4..=128).contains(&encoder.n_buckets) || !encoder.n_buckets.is_multiple_of(2) {
            let why = "it has to be even, from 4 to 128".to_owned();
            return Err(self.unusable("attention.relative_buckets_count", encoder.n_buckets, why));
        }
        if encoder.start_token >= self.vocab_size {
            let why = format!("the vocabulary has {} tokens", self.vocab_size);
            return Err(self.unusable("decoder_start_token_id", encoder.start_token, why));
        }
        Ok(())
    }

    /// Whether the feed-forward network has a gate beside its way up.
    pub fn is_gated(&self) -> bool {
        self.encoder.map_or(!self.architecture.has_layer_norms(), |encoder| encoder.is_gated)
    }

    /// Whether `layer` is one of the decoder's that attend to an encoder's output.
    pub fn attends_to_encoder(&self, layer: u32) -> bool {
        self.encoder.is_some_and(|encoder| layer >= encoder.n_layers)
    }

    fn check_real(&self, key: &str, found: f32) -> Result<(), HyperparameterError> {
        if found.is_finite() && found > 0.0 {
            return Ok(());
        }
        Err(self.unusable(key, found, "it has to be a finite number above 0".to_owned()))
    }

    /// Bytes that one layer's KV cache takes for one token, at `value_bytes` a value (2 for f16, 4 for f32).
    pub fn kv_bytes_per_token_per_layer(&self, value_bytes: u32) -> u64 {
        2 * u64::from(self.n_kv_heads) * u64::from(self.head_size) * u64::from(value_bytes)
    }

    /// Multiply-adds of one layer's matrices for one token, without attention over the cache; where layers differ, of the largest.
    pub fn multiply_adds_per_layer(&self) -> u64 {
        // Decoder layers, which come last, have all that encoder layers have.
        self.multiply_adds(Role::of_layer(self, self.n_layers - 1).filter(|role| !role.is_vector()))
    }

    /// Multiply-adds of the output matrix for one token.
    pub fn multiply_adds_of_head(&self) -> u64 {
        self.multiply_adds([Role::Output].into_iter())
    }

    fn multiply_adds(&self, roles: impl Iterator<Item = Role>) -> u64 {
        roles.map(|role| role.shape(self).iter().product::<u64>()).sum()
    }

    fn unusable(&self, key: &str, found: impl ToString, why: String) -> HyperparameterError {
        HyperparameterError::Unusable { key: format!("{}.{key}", self.architecture), found: found.to_string(), why }
    }
}

/// The key of the number that norms add under the root.
fn epsilon_key(architecture: Architecture) -> &'static str {
    if architecture.has_layer_norms() { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" }
}

fn vocab_size(gguf: &Gguf) -> Result<u32, HyperparameterError> {
    let name = "token_embd.weight".to_owned();
    // The embedding decides, not `vocab_size`: a file may pad its rows past the tokens that its key counts.
    let rows = gguf.tensor(&name).and_then(|tensor| tensor.shape.get(1).copied());
    rows.and_then(|rows| u32::try_from(rows).ok()).ok_or(HyperparameterError::MissingTensor { tensor: name })
}

/// The keys of one architecture: they all begin with its name.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: Architecture,
}

// === impl Keys ===

impl Keys<'_> {
    fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    fn head_size(&self, hidden_size: u32, n_heads: u32) -> Result<u32, HyperparameterError> {
        let key = self.name("attention.key_length");
        let head_size = match self.metadata.optional_u32(&key)? {
            Some(head_size) => head_size,
            None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
            None => {
                let why = format!("the hidden size {hidden_size} is no multiple of it, and `{key}` is missing");
                return Err(unusable(self.name("attention.head_count"), n_heads, why));
            }
        };
        let value_key = self.name("attention.value_length");
        match self.metadata.optional_u32(&value_key)? {
            Some(value_size) if value_size != head_size => {
                Err(unusable(value_key, value_size, format!("values as long as keys ({head_size}) are supported only")))
            }
            _ => Ok(head_size),
        }
    }

    fn encoder(&self, gguf: &Gguf) -> Result<Encoder, HyperparameterError> {
        let start_key = self.name("decoder_start_token_id");
        Ok(Encoder {
            n_layers: self.metadata.u32(&self.name("block_count"))?,
            n_buckets: self.metadata.u32(&self.name("attention.relative_buckets_count"))?,
            start_token: self.metadata.u32(&start_key)?,
            is_gated: gguf.tensor("enc.blk.0.ffn_gate.weight").is_some(),
        })
    }

    /// As many as the encoder's, where the file does not say.
    fn n_decoder_layers(&self, encoder: Option<Encoder>) -> Result<u32, HyperparameterError> {
        Ok(match encoder {
            None => self.metadata.u32(&self.name("block_count"))?,
            Some(encoder) => self.metadata.optional_u32(&self.name("decoder_block_count"))?.unwrap_or(encoder.n_layers),
        })
    }

    fn rope(&self, style: RopeStyle, head_size: u32, gguf: &Gguf) -> Result<Rope, HyperparameterError> {
        let n_rotated = self.metadata.optional_u32(&self.name("rope.dimension_count"))?.unwrap_or(head_size);
        Ok(Rope {
            style,
            base: self.metadata.optional_f32(&self.name("rope.freq_base"))?.unwrap_or(10_000.0),
            n_rotated,
            position_scale: self.position_scale()?,
            has_frequency_factors: gguf.tensor("rope_freqs.weight").is_some(),
        })
    }

    /// 1 ÷ the factor of linear scaling; a factor without a type means linear, as in llama.cpp.
    fn position_scale(&self) -> Result<f32, HyperparameterError> {
        let key = self.name("rope.scaling.type");
        let scaling = self.metadata.optional_string(&key)?.unwrap_or("linear");
        if scaling == "none" {
            return Ok(1.0);
        }
        if scaling != "linear" {
            return Err(unusable(key, scaling, "supported are `none` and `linear`".to_owned()));
        }
        let factor = match self.metadata.optional_f32(&self.name("rope.scaling.factor"))? {
            Some(factor) => Some(factor),
            None => self.metadata.optional_f32(&self.name("rope.scale_linear"))?,
        };
        // llama.cpp takes 0 for "no scaling".
        Ok(factor.filter(|&factor| factor != 0.0).map_or(1.0, |factor| 1.0 / factor))
    }

    /// Keys that change the arithmetic in a way that is not built: a wrong answer is worse than none.
    fn refuse_unsupported(&self) -> Result<(), HyperparameterError> {
        let features = [
            ("expert_count", "mixtures of experts are not supported"),
            ("attention.sliding_window", "attention over a sliding window is not supported"),
            ("attention.scale", "an attention scale of its own is not supported"),
            ("logit_scale", "scaled logits are not supported"),
            ("residual_scale", "scaled residuals are not supported"),
            ("embedding_scale", "a scaled embedding is not supported"),
        ];
        for (rest, why) in features {
            let key = self.name(rest);
            let found = match self.metadata.get(&key) {
                None | Some(Value::Unsigned(0)) | Some(Value::Signed(0)) => continue,
                Some(Value::F32(number)) if *number == 0.0 => continue,
                Some(Value::Unsigned(number)) => number.to_string(),
                Some(Value::F32(number)) => number.to_string(),
                Some(_) => "set".to_owned(),
            };
            return Err(unusable(key, found, why.to_owned()));
        }
        Ok(())
    }
}

fn unusable(key: String, found: impl ToString, why: String) -> HyperparameterError {
    HyperparameterError::Unusable { key, found: found.to_string(), why }
}
