//! Families: how the models of one architecture compute, whatever their sizes. Data alone: one row of `table` a family.
//!
//! What a row says, no key of a file does (KERNELS.md of this project calls it "what a model file does not say"). What files do say, sizes
//! and scales among it, is in [`Hyperparameters`](crate::Hyperparameters), which reads it as the row tells it to.

mod table;

use crate::role::Role;

/// One row: which operations follow which, and what of the file is looked at for them.
#[derive(Debug)]
pub struct Family {
    /// The name in `general.architecture`, which also begins the other keys.
    pub name: &'static str,
    /// What every norm of whole rows does.
    pub norm: NormKind,
    /// Where norms stand about attention and about the feed-forward network.
    pub norm_places: NormPlaces,
    /// Attention and the feed-forward network take the same hidden state, and both are added to it; otherwise one after the other.
    pub is_parallel: bool,
    /// Norms of queries and of keys, before they turn.
    pub head_norms: HeadNorms,
    /// Queries, keys and values are rows of one matrix, in that order.
    pub fuses_queries: bool,
    pub biases: Biases,
    pub feed_forward: FeedForward,
    /// Of the feed-forward network's gate, or of its way up where it has none.
    pub activation: Activation,
    pub positions: Positions,
    /// Layers whose queries and keys turn, where positions are rotary.
    pub turned: Turned,
    pub windows: Windows,
    /// Each head has a logit of its own that joins the softmax of its scores and has no value.
    pub has_sinks: bool,
    pub has_embedding_norm: bool,
    pub embedding_scale: EmbeddingScale,
    /// `residual_scale` is looked at: what sub-layers add to the hidden state is multiplied by it.
    pub scales_residuals: bool,
    pub score_scale: ScoreScale,
    pub logit_scale: LogitScale,
    /// Scores and logits stay below a cap; these are the usual ones of attention and at the end.
    pub caps: Option<(f32, f32)>,
    pub experts: Experts,
    /// A layer without heads of keys and values has a short convolution in place of attention.
    pub has_convolutions: bool,
    /// Roles that a file of the family may have or lack; all others are there or not by the rest of the row, and biases by what they are of.
    pub optional: &'static [Role],
    /// Tensors that are called otherwise than in other families, without `blk.N.`.
    pub names: &'static [(Role, &'static str)],
}

/// What a norm does besides its gain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Divides by the root of the mean square.
    Rms,
    /// Takes the mean off first, and adds a bias at the end.
    Layer,
    /// Takes the mean off first; adds nothing.
    LayerWithoutBias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// Of what a sub-layer takes.
    Before,
    /// Of what it gives, before that is added.
    After,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorms {
    None,
    /// Of each head alone, by gains that all heads share.
    Each,
    /// Of all heads of a row together.
    All,
}

/// Which matrices have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    None,
    /// Queries, keys and values.
    Queries,
    /// All of attention and all of the feed-forward network.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// A gate beside the way up.
    Gated,
    /// The same, as rows of one matrix: the gate's, then those of the way up.
    Fused,
    /// The way up alone.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// SiLU with a gate held below 7 and multiplied by 1.702 within the sigmoid, times the way up held within 7 of 0, plus 1.
    SiluClamped,
    /// In its tanh form.
    Gelu,
    Relu,
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

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RopeStyle {
    /// (2j, 2j + 1)
    Pairs,
    /// (j, j + n/2)
    Halves,
}

/// Which layers turn, by their place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    All,
    /// All but the last of every so many.
    AllButEvery(u32),
    /// Those that see a window.
    Windowed,
}

/// Which layers see the last positions alone, and what else is theirs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Windows {
    /// A file that calls for one is refused.
    None,
    /// A file may name one that nobody honours.
    Ignored,
    /// All layers but the last of every `period`, unless the file says which.
    Some { period: u32, absent: AbsentWindow, turn: WindowedTurn },
}

/// What a file without `attention.sliding_window` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsentWindow {
    Refused,
    /// Every layer sees all positions.
    NoWindow,
    /// The window has so many positions.
    Usual(u32),
}

/// How layers that see a window turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WindowedTurn {
    /// As the others.
    Alike,
    /// By the model's base, without what scales the others.
    Unscaled,
    /// The same, by a base of their own: the usual one where the file names none.
    Based(f32),
}

/// What the embedding is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddingScale {
    One,
    RootOfHiddenSize,
    /// `embedding_scale`
    Key,
}

/// What attention scores are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreScale {
    /// 1 / √head size
    Head,
    /// The same, but 1 / √(hidden size ÷ heads) in the family's model of so many layers.
    HeadBut {
        n_layers: u32,
    },
    One,
    /// `attention.scale`
    Key,
}

/// What `logit_scale` does to logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitScale {
    /// A file that has one is refused.
    None,
    Multiplies,
    Divides,
}

/// Which models have experts in place of one feed-forward network a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experts {
    /// None: a file that counts some is refused.
    None,
    /// Those whose file has routers.
    Some(Router),
    All(Router),
}

/// How the experts of a token, those with the best logits, are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// By a softmax over the chosen. It is the same as a softmax over all, divided by the sum of the chosen.
    OfChosen,
    /// By a softmax over all, of which the chosen keep theirs.
    OfAll,
}

// === impl Family ===

impl Family {
    /// Every family whose models can be computed.
    pub fn all() -> &'static [Family] {
        table::FAMILIES
    }

    /// The family that `general.architecture` names.
    pub fn named(name: &str) -> Option<&'static Family> {
        Self::all().iter().find(|family| family.name == name)
    }

    /// Which pairs turn; `None` where positions are not rotary.
    pub fn rope_style(&self) -> Option<RopeStyle> {
        match self.positions {
            Positions::Rotary(style) => Some(style),
            Positions::Alibi | Positions::Learned | Positions::Buckets => None,
        }
    }

    /// How experts are weighed; `None` where no model has any.
    pub fn router(&self) -> Option<Router> {
        match self.experts {
            Experts::None => None,
            Experts::Some(router) | Experts::All(router) => Some(router),
        }
    }

    /// Whether a norm of whole rows adds a bias.
    pub fn has_norm_biases(&self) -> bool {
        self.norm == NormKind::Layer
    }

    pub fn has_norms_before(&self) -> bool {
        self.norm_places != NormPlaces::After
    }

    pub fn has_norms_after(&self) -> bool {
        self.norm_places != NormPlaces::Before
    }

    /// The key of the number that norms add under the root, after the architecture.
    pub fn epsilon_key(&self) -> &'static str {
        match self.norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer | NormKind::LayerWithoutBias => "attention.layer_norm_epsilon",
        }
    }

    /// What a tensor of `role` is called, without `blk.N.`, where that is not what it is called elsewhere.
    pub(crate) fn name_of(&self, role: Role) -> Option<&'static str> {
        self.names.iter().find(|(named, _)| *named == role).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_nothing_that_a_layer_cannot_do() {
        for family in Family::all() {
            let name = family.name;
            assert_eq!(Family::named(name).map(|found| found.name), Some(name), "two rows are called {name}");
            // Both sub-layers take what the norm before them gives; what they give is added as it is.
            assert!(!family.is_parallel || family.norm_places == NormPlaces::Before, "{name}");
            let has_rope = family.rope_style().is_some();
            assert!(has_rope || family.turned == Turned::All, "{name} says which layers turn, and none does");
            let has_windows = matches!(family.windows, Windows::Some { .. });
            assert!(has_windows || family.turned != Turned::Windowed, "{name}");
            // A norm takes queries and keys apart, and one matrix gives them joined.
            assert!(family.head_norms == HeadNorms::None || !family.fuses_queries, "{name}");
            // No role is a gate's bias but that of experts.
            let has_gate = family.feed_forward != FeedForward::Plain && !matches!(family.experts, Experts::All(_));
            assert!(!has_gate || family.biases != Biases::All, "{name}");
            assert!(family.norm_places == NormPlaces::Before || !family.has_norm_biases(), "{name}");
            // Experts have a gate, which is a tensor of its own.
            assert!(family.experts == Experts::None || family.feed_forward == FeedForward::Gated, "{name}");
        }
    }
}
