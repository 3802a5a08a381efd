//! Reading hyperparameters: the keys of a file, as its family's row says which are looked at.

use std::collections::BTreeSet;

use super::{
    Architecture, Convolutions, Encoder, HyperparameterError, Hyperparameters, Rope, Scales, Window, WindowedLayers,
    Yarn,
};
use crate::family::{
    AbsentWindow, EmbeddingScale, Experts, Family, LogitScale, Positions, RopeStyle, ScoreScale, WindowedTurn, Windows,
};
use crate::gguf::{Gguf, Metadata, Value};
use crate::role::Role;

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Reads and checks the hyperparameters of a file.
    ///
    /// What a file may leave out, as llama.cpp reads it: `attention.head_count_kv` (as many as heads),
    /// `attention.key_length` (hidden ÷ heads), `rope.dimension_count` (the head size), `rope.freq_base` (10000),
    /// `vocab_size` (the rows of the embedding), `output.weight` (tied), scales (1) and whatever the family's row has a usual value of.
    ///
    /// # Errors
    /// A missing or mistyped key, an architecture or a feature that is not supported, or numbers that do not fit
    /// together; each names the key.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, HyperparameterError> {
        let metadata = &gguf.metadata;
        let architecture: Architecture = metadata.string("general.architecture")?.parse()?;
        let family = architecture.family();
        let keys = Keys { metadata, family };
        keys.refuse_unsupported()?;

        let hidden_size = metadata.u32(&keys.name("embedding_length"))?;
        let n_heads = metadata.u32(&keys.name("attention.head_count"))?;
        let context_length = metadata.u32(&keys.name("context_length"))?;
        let (n_kv_heads, convolutions) = keys.kv_heads(n_heads)?;
        let head_size = keys.head_size(hidden_size, n_heads)?;

        let encoder = (family.positions == Positions::Buckets).then(|| keys.encoder(gguf)).transpose()?;
        let n_decoder_layers = keys.n_decoder_layers(encoder)?;
        let window = keys.window()?;
        let experts = keys.experts(gguf)?;
        let rope = match family.rope_style() {
            Some(style) => Some(keys.rope(style, head_size, context_length, window.is_some(), gguf)?),
            None => None,
        };
        let found = Self {
            architecture,
            n_layers: encoder.map_or(0, |encoder| encoder.n_layers).saturating_add(n_decoder_layers),
            hidden_size,
            n_heads,
            n_kv_heads,
            head_size,
            ffn_size: keys.ffn_size(experts.is_some())?,
            experts,
            vocab_size: vocab_size(gguf)?,
            context_length,
            norm_epsilon: metadata.f32(&keys.name(family.epsilon_key()))?,
            rope,
            window,
            scales: keys.scales()?,
            convolutions,
            encoder,
            tied_embedding: gguf.tensor("output.weight").is_none(),
            options: options(family, gguf),
        };
        found.check()?;
        Ok(found)
    }
}

fn vocab_size(gguf: &Gguf) -> Result<u32, HyperparameterError> {
    let name = "token_embd.weight".to_owned();
    // The embedding decides, not `vocab_size`: a file may pad its rows past the tokens that its key counts.
    let rows = gguf.tensor(&name).and_then(|tensor| tensor.shape.get(1).copied());
    rows.and_then(|rows| u32::try_from(rows).ok()).ok_or(HyperparameterError::MissingTensor { tensor: name })
}

/// Those of the family's optional roles that the file has, in its first layer where they are of one.
fn options(family: &Family, gguf: &Gguf) -> BTreeSet<Role> {
    let is_here = |role: &Role| gguf.tensor(&role.plain_name(family, Some(0))).is_some();
    family.optional.iter().copied().filter(is_here).collect()
}

/// The keys of one family: they all begin with its name.
pub(super) struct Keys<'a> {
    pub metadata: &'a Metadata,
    pub family: &'static Family,
}

// === impl Keys ===

impl Keys<'_> {
    pub fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.family.name)
    }

    pub fn u32(&self, rest: &str) -> Result<Option<u32>, HyperparameterError> {
        Ok(self.metadata.optional_u32(&self.name(rest))?)
    }

    pub fn f32(&self, rest: &str) -> Result<Option<f32>, HyperparameterError> {
        Ok(self.metadata.optional_f32(&self.name(rest))?)
    }

    /// Heads of keys and values, as many as of queries where the file does not say; in families with convolutions it may say it of each layer,
    /// 0 being one.
    fn kv_heads(&self, n_heads: u32) -> Result<(u32, Option<Convolutions>), HyperparameterError> {
        let key = self.name("attention.head_count_kv");
        let listed = match self.metadata.get(&key) {
            Some(Value::Array(_)) if self.family.has_convolutions => self.metadata.optional_integers(&key)?,
            _ => None,
        };
        let Some(listed) = listed else { return Ok((self.metadata.optional_u32(&key)?.unwrap_or(n_heads), None)) };
        let mut with_attention = listed.iter().copied().filter(|count| *count != 0);
        let n_kv_heads = with_attention.next().unwrap_or(0);
        match (u32::try_from(n_kv_heads), with_attention.find(|other| *other != n_kv_heads)) {
            (Ok(n_kv_heads), None) => {
                let n_taps = self.metadata.u32(&self.name("shortconv.l_cache"))?;
                let layers = listed.iter().map(|count| *count == 0).collect();
                Ok((n_kv_heads, Some(Convolutions { n_taps, layers })))
            }
            (_, other) => {
                let found = other.unwrap_or(n_kv_heads);
                let why = "it has to be 0 or the same in all layers".to_owned();
                Err(unusable(key, format!("a list with {n_kv_heads} and {found}"), why))
            }
        }
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
            Some(encoder) => self.u32("decoder_block_count")?.unwrap_or(encoder.n_layers),
        })
    }

    fn window(&self) -> Result<Option<Window>, HyperparameterError> {
        let Windows::Some { period, absent, .. } = self.family.windows else { return Ok(None) };
        let n_positions = match (self.u32("attention.sliding_window")?, absent) {
            (Some(found), _) => found,
            (None, AbsentWindow::Usual(usual)) => usual,
            (None, AbsentWindow::NoWindow) => return Ok(None),
            (None, AbsentWindow::Refused) => self.metadata.u32(&self.name("attention.sliding_window"))?,
        };
        Ok(Some(Window { n_positions, layers: self.windowed_layers(period)? }))
    }

    /// A list with one answer a layer, or a period; the family's own where the file says neither.
    fn windowed_layers(&self, usual: u32) -> Result<WindowedLayers, HyperparameterError> {
        let key = self.name("attention.sliding_window_pattern");
        if let Some(Value::Array(_)) = self.metadata.get(&key) {
            return Ok(WindowedLayers::Listed(self.metadata.optional_bools(&key)?.unwrap_or_default()));
        }
        Ok(WindowedLayers::AllButEvery(self.metadata.optional_u32(&key)?.unwrap_or(usual)))
    }

    fn scales(&self) -> Result<Scales, HyperparameterError> {
        let read = |is_read: bool, rest: &str| if is_read { self.f32(rest) } else { Ok(None) };
        let of = self.family;
        Ok(Scales {
            embedding: read(of.embedding_scale == EmbeddingScale::Key, "embedding_scale")?,
            residual: read(of.scales_residuals, "residual_scale")?,
            scores: read(of.score_scale == ScoreScale::Key, "attention.scale")?,
            logits: read(of.logit_scale != LogitScale::None, "logit_scale")?,
            score_cap: read(of.caps.is_some(), "attn_logit_softcapping")?,
            logit_cap: read(of.caps.is_some(), "final_logit_softcapping")?,
        })
    }

    fn rope(
        &self,
        style: RopeStyle,
        head_size: u32,
        context_length: u32,
        has_window: bool,
        gguf: &Gguf,
    ) -> Result<Rope, HyperparameterError> {
        let base = self.f32("rope.freq_base")?.unwrap_or(10_000.0);
        let original = self.u32("rope.scaling.original_context_length")?.unwrap_or(context_length);
        let (position_scale, yarn) = self.rope_scaling(original)?;
        let windowed_base = match self.family.windows {
            Windows::Some { turn: WindowedTurn::Unscaled, .. } if has_window => Some(base),
            Windows::Some { turn: WindowedTurn::Based(usual), .. } if has_window => {
                Some(self.f32("rope.freq_base_swa")?.unwrap_or(usual))
            }
            _ => None,
        };
        let has_lengths = gguf.tensor("rope_factors_long.weight").is_some();
        Ok(Rope {
            style,
            base,
            n_rotated: self.u32("rope.dimension_count")?.unwrap_or(head_size),
            position_scale,
            has_frequency_factors: gguf.tensor("rope_freqs.weight").is_some(),
            factors_by_length: has_lengths.then_some(original),
            yarn,
            magnitude: self.f32("rope.scaling.attn_factor")?.unwrap_or(1.0),
            windowed_base,
        })
    }

    /// 1 ÷ the factor of linear scaling, or YaRN; a factor without a type means linear, as in llama.cpp.
    fn rope_scaling(&self, original_context_length: u32) -> Result<(f32, Option<Yarn>), HyperparameterError> {
        let key = self.name("rope.scaling.type");
        let factor = match self.f32("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.f32("rope.scale_linear")?,
        };
        // llama.cpp takes 0 for "no scaling".
        let factor = factor.filter(|&factor| factor != 0.0);
        match self.metadata.optional_string(&key)?.unwrap_or("linear") {
            // What is scaled by the factors of two tensors is by nothing else.
            "none" | "longrope" => Ok((1.0, None)),
            "linear" => Ok((factor.map_or(1.0, |factor| 1.0 / factor), None)),
            "yarn" => Ok((1.0, Some(Yarn { factor: factor.unwrap_or(1.0), original_context_length }))),
            found => Err(unusable(key, found, "supported are `none`, `linear`, `yarn` and `longrope`".to_owned())),
        }
    }

    /// Keys that change the arithmetic in a way that is not built, or not in this family: a wrong answer is worse than none.
    fn refuse_unsupported(&self) -> Result<(), HyperparameterError> {
        let of = self.family;
        let features = [
            ("expert_count", of.experts != Experts::None, "a mixture of experts"),
            ("expert_shared_count", false, "an expert that all tokens take"),
            ("leading_dense_block_count", false, "a layer without experts before those with some"),
            ("attention.sliding_window", of.windows != Windows::None, "attention over a sliding window"),
            ("attention.scale", of.score_scale == ScoreScale::Key, "an attention scale of its own"),
            ("logit_scale", of.logit_scale != LogitScale::None, "scaled logits"),
            ("residual_scale", of.scales_residuals, "scaled residuals"),
            ("embedding_scale", of.embedding_scale == EmbeddingScale::Key, "a scaled embedding"),
            ("attn_logit_softcapping", of.caps.is_some(), "capped attention scores"),
            ("final_logit_softcapping", of.caps.is_some(), "capped logits"),
        ];
        for (rest, is_honoured, what) in features {
            let key = self.name(rest);
            let found = match self.metadata.get(&key) {
                _ if is_honoured => continue,
                None | Some(Value::Unsigned(0)) | Some(Value::Signed(0)) => continue,
                Some(Value::F32(number)) if *number == 0.0 => continue,
                Some(Value::Unsigned(number)) => number.to_string(),
                Some(Value::F32(number)) => number.to_string(),
                Some(_) => "set".to_owned(),
            };
            return Err(unusable(key, found, format!("{what} is not supported in {} models", of.name)));
        }
        Ok(())
    }
}

pub(super) fn unusable(key: String, found: impl ToString, why: String) -> HyperparameterError {
    HyperparameterError::Unusable { key, found: found.to_string(), why }
}
