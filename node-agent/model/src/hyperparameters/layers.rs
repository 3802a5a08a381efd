//! What one layer does, by its place in the model: the family's row and the file's numbers put together.

use super::{Hyperparameters, WindowedLayers};
use crate::family::{EmbeddingScale, LogitScale, ScoreScale, Turned, Windows};

/// How the queries and keys of a layer turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerTurn {
    /// They do not.
    None,
    /// By the model's rope with all that scales it.
    Scaled,
    /// By the base of layers that see a window alone.
    Plain,
}

// === impl Hyperparameters ===

impl Hyperparameters {
    /// Whether `layer` is one of the decoder's that attend to an encoder's output.
    pub fn attends_to_encoder(&self, layer: u32) -> bool {
        self.encoder.is_some_and(|encoder| layer >= encoder.n_layers)
    }

    /// Whether `layer` has a short convolution in place of attention.
    pub fn is_convolution(&self, layer: u32) -> bool {
        let listed = self.convolutions.as_ref().and_then(|of| of.layers.get(layer as usize));
        listed.copied().unwrap_or(false)
    }

    /// The last so many positions are what `layer` sees, a row's own among them; `None`: all.
    pub fn window_of(&self, layer: u32) -> Option<u32> {
        let Windows::Some { .. } = self.architecture.family().windows else { return None };
        let window = self.window.as_ref()?;
        let has_one = match &window.layers {
            WindowedLayers::AllButEvery(period) => !layer.saturating_add(1).is_multiple_of(*period),
            WindowedLayers::Listed(layers) => layers.get(layer as usize).copied().unwrap_or(false),
        };
        has_one.then_some(window.n_positions)
    }

    /// How the queries and keys of `layer` turn.
    pub fn turn_of(&self, layer: u32) -> LayerTurn {
        let Some(rope) = self.rope else { return LayerTurn::None };
        let has_window = self.window_of(layer).is_some();
        let turns = match self.architecture.family().turned {
            Turned::All => true,
            Turned::AllButEvery(period) => !layer.saturating_add(1).is_multiple_of(period),
            Turned::Windowed => has_window,
        };
        if !turns {
            LayerTurn::None
        } else if has_window && rope.windowed_base.is_some() {
            LayerTurn::Plain
        } else {
            LayerTurn::Scaled
        }
    }

    /// What the embedding is multiplied by.
    pub fn embedding_scale(&self) -> f32 {
        match self.architecture.family().embedding_scale {
            EmbeddingScale::One => 1.0,
            EmbeddingScale::RootOfHiddenSize => (self.hidden_size as f32).sqrt(),
            EmbeddingScale::Key => self.scales.embedding.unwrap_or(1.0),
        }
    }

    /// What sub-layers' results are multiplied by before they are added to the hidden state.
    pub fn residual_scale(&self) -> f32 {
        self.scales.residual.unwrap_or(1.0)
    }

    /// Whether what a sub-layer gives is normed or scaled before it is added to the hidden state.
    pub fn adds_apart(&self) -> bool {
        self.architecture.family().has_norms_after() || self.residual_scale() != 1.0
    }

    /// What attention scores are multiplied by.
    pub fn score_scale(&self) -> f32 {
        let by_head = 1.0 / (self.head_size as f32).sqrt();
        match self.architecture.family().score_scale {
            ScoreScale::One => 1.0,
            ScoreScale::Key => self.scales.scores.unwrap_or(by_head),
            ScoreScale::HeadBut { n_layers } if self.n_layers == n_layers => {
                1.0 / (self.hidden_size as f32 / self.n_heads as f32).sqrt()
            }
            ScoreScale::Head | ScoreScale::HeadBut { .. } => by_head,
        }
    }

    /// What logits are multiplied by.
    pub fn logit_scale(&self) -> f32 {
        match (self.architecture.family().logit_scale, self.scales.logits) {
            (LogitScale::Multiplies, Some(scale)) => scale,
            (LogitScale::Divides, Some(scale)) => 1.0 / scale,
            (LogitScale::None, _) | (_, None) => 1.0,
        }
    }

    /// What attention scores and logits stay below.
    pub fn caps(&self) -> (Option<f32>, Option<f32>) {
        match self.architecture.family().caps {
            None => (None, None),
            Some((scores, logits)) => {
                (Some(self.scales.score_cap.unwrap_or(scores)), Some(self.scales.logit_cap.unwrap_or(logits)))
            }
        }
    }
}
