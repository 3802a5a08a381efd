//! Whether hyperparameters fit together: what the host asks of a file, and a phone of what it was sent.

use super::{HyperparameterError, Hyperparameters, Rope, WindowedLayers};
use crate::family::{Positions, Windows};

/// Bounds that no known model comes near; they keep products within 64 bits and loops within reason.
const MAX_LAYERS: u32 = 1 << 12;
const MAX_SIZE: u32 = 1 << 20;
const MAX_VOCAB: u32 = 1 << 22;
const MAX_CONTEXT: u32 = 1 << 26;
const MAX_TAPS: u32 = 64;
/// Values of a head that kernels take. Held to the kernels' own by a test of who has both.
pub const MAX_HEAD_SIZE: u32 = 256;

// === impl Hyperparameters ===

impl Hyperparameters {
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
            ("attention.key_length", self.head_size, MAX_HEAD_SIZE),
            ("feed_forward_length", self.ffn_size, MAX_SIZE),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("context_length", self.context_length, MAX_CONTEXT),
        ];
        for (key, found, limit) in sizes {
            self.check_count(key, found, limit)?;
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let why = format!("the {} heads cannot share it evenly", self.n_heads);
            return Err(self.unusable("attention.head_count_kv", self.n_kv_heads, why));
        }
        let family = self.architecture.family();
        self.check_real(family.epsilon_key(), self.norm_epsilon)?;
        if self.rope.map(|rope| rope.style) != family.rope_style() {
            let why = format!("{} has {:?}", self.architecture, family.rope_style());
            return Err(self.unusable("rope.style", format!("{:?}", self.rope.map(|rope| rope.style)), why));
        }
        self.check_encoder()?;
        self.check_window()?;
        self.check_scales()?;
        self.check_convolutions()?;
        self.check_options()?;
        self.check_experts()?;
        self.rope.as_ref().map_or(Ok(()), |rope| self.check_rope(rope))
    }

    fn check_rope(&self, rope: &Rope) -> Result<(), HyperparameterError> {
        let n_rotated = rope.n_rotated;
        if n_rotated == 0 || n_rotated > self.head_size || !n_rotated.is_multiple_of(2) {
            let why = format!("it has to be even, above 0 and at most the head size {}", self.head_size);
            return Err(self.unusable("rope.dimension_count", n_rotated, why));
        }
        self.check_real("rope.freq_base", rope.base)?;
        self.check_real("rope.scaling.factor", rope.position_scale)?;
        self.check_real("rope.scaling.attn_factor", rope.magnitude)?;
        if let Some(base) = rope.windowed_base {
            self.check_real("rope.freq_base_swa", base)?;
        }
        if let Some(length) = rope.factors_by_length {
            self.check_count("rope.scaling.original_context_length", length, MAX_CONTEXT)?;
        }
        let Some(yarn) = rope.yarn else { return Ok(()) };
        self.check_count("rope.scaling.original_context_length", yarn.original_context_length, MAX_CONTEXT)?;
        if rope.base <= 1.0 {
            return Err(self.unusable("rope.freq_base", rope.base, "YaRN takes a number above 1".to_owned()));
        }
        if yarn.factor.is_finite() && yarn.factor >= 1.0 {
            return Ok(());
        }
        Err(self.unusable("rope.scaling.factor", yarn.factor, "YaRN takes a finite number from 1".to_owned()))
    }

    fn check_window(&self) -> Result<(), HyperparameterError> {
        let Some(window) = &self.window else { return Ok(()) };
        let key = "attention.sliding_window";
        if !matches!(self.architecture.family().windows, Windows::Some { .. }) {
            let why = format!("attention over a sliding window is not supported in {} models", self.architecture);
            return Err(self.unusable(key, window.n_positions, why));
        }
        self.check_count(key, window.n_positions, MAX_CONTEXT)?;
        let key = "attention.sliding_window_pattern";
        match &window.layers {
            WindowedLayers::AllButEvery(period) => self.check_count(key, *period, MAX_LAYERS),
            WindowedLayers::Listed(layers) if layers.len() != self.n_layers as usize => {
                let why = format!("it has to say it of each of the {} layers", self.n_layers);
                Err(self.unusable(key, format!("a list of {}", layers.len()), why))
            }
            WindowedLayers::Listed(_) => Ok(()),
        }
    }

    fn check_scales(&self) -> Result<(), HyperparameterError> {
        let scales = [
            ("embedding_scale", self.scales.embedding),
            ("residual_scale", self.scales.residual),
            ("attention.scale", self.scales.scores),
            ("logit_scale", self.scales.logits),
            ("attn_logit_softcapping", self.scales.score_cap),
            ("final_logit_softcapping", self.scales.logit_cap),
        ];
        scales.into_iter().try_for_each(|(key, found)| found.map_or(Ok(()), |found| self.check_real(key, found)))?;
        // What is divided by it has to be finite, too.
        self.check_real("logit_scale", self.logit_scale())
    }

    fn check_convolutions(&self) -> Result<(), HyperparameterError> {
        let Some(convolutions) = &self.convolutions else { return Ok(()) };
        let key = "attention.head_count_kv";
        if !self.architecture.family().has_convolutions {
            return Err(self.unusable(key, 0, format!("a {} model has attention in every layer", self.architecture)));
        }
        if convolutions.layers.len() != self.n_layers as usize {
            let why = format!("it has to say it of each of the {} layers", self.n_layers);
            return Err(self.unusable(key, format!("a list of {}", convolutions.layers.len()), why));
        }
        self.check_count("shortconv.l_cache", convolutions.n_taps, MAX_TAPS)
    }

    fn check_options(&self) -> Result<(), HyperparameterError> {
        let family = self.architecture.family();
        match self.options.iter().find(|role| !family.optional.contains(role)) {
            None => Ok(()),
            Some(role) => {
                let why = format!("a {} model has no choice of it", self.architecture);
                Err(self.unusable("options", format!("{role:?}"), why))
            }
        }
    }

    fn check_encoder(&self) -> Result<(), HyperparameterError> {
        let has_encoder = self.architecture.family().positions == Positions::Buckets;
        let Some(encoder) = self.encoder else {
            if has_encoder {
                return Err(self.unusable("block_count", 0, "it has an encoder".to_owned()));
            }
            return Ok(());
        };
        if !has_encoder {
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

    pub(super) fn check_count(&self, key: &str, found: u32, limit: u32) -> Result<(), HyperparameterError> {
        if (1..=limit).contains(&found) {
            return Ok(());
        }
        Err(self.unusable(key, found, format!("it has to be from 1 to {limit}")))
    }

    pub(super) fn check_real(&self, key: &str, found: f32) -> Result<(), HyperparameterError> {
        if found.is_finite() && found > 0.0 {
            return Ok(());
        }
        Err(self.unusable(key, found, "it has to be a finite number above 0".to_owned()))
    }

    pub(super) fn unusable(&self, key: &str, found: impl ToString, why: String) -> HyperparameterError {
        HyperparameterError::Unusable { key: format!("{}.{key}", self.architecture), found: found.to_string(), why }
    }
}
