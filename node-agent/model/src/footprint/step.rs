//! A step's buffers: how wide each is, and which are used at all. Engines are asked for just these.

use crate::hyperparameters::Hyperparameters;
use crate::role::Role;

/// Which of the buffers some layer uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Queries, keys and values of one matrix.
    pub joined: bool,
    /// Queries, keys and values of three.
    pub apart: bool,
    /// A gate of a matrix of its own.
    pub gate: bool,
    /// The way up of a matrix of its own.
    pub up: bool,
    /// One feed-forward network for all tokens.
    pub ffn: bool,
}

/// Values of a row in each buffer of a stream of rows; 1 in those that no layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepWidths {
    pub hidden: u32,
    pub normed: u32,
    /// What the feed-forward network takes beside attention, by a norm of its own.
    pub beside: u32,
    /// Queries, keys and values of a row after one another.
    pub joined: u32,
    pub query: u32,
    pub key: u32,
    pub value: u32,
    /// Queries and keys after their norms.
    pub normed_query: u32,
    pub normed_key: u32,
    pub attended: u32,
    /// What a sub-layer gives, before it is normed or scaled.
    pub given: u32,
    pub gate: u32,
    pub up: u32,
    pub ffn: u32,
    pub experts: ExpertWidths,
    /// What goes into a convolution, in three parts, and what comes of it.
    pub conv_input: u32,
    pub convolved: u32,
}

/// The same of the experts of a row: of all their logits, and of each that it chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertWidths {
    pub logits: u32,
    /// The numbers of the chosen, and their shares.
    pub chosen: u32,
    pub shares: u32,
    pub gate: u32,
    pub up: u32,
    pub gated: u32,
    pub given: u32,
}

// === impl StepWidths ===

impl StepWidths {
    pub fn new(of: &Hyperparameters, uses: Uses) -> Self {
        let used = |is_used: bool, width: u32| if is_used { width } else { 1 };
        let (hidden, query, kv) = (of.hidden_size, of.n_heads * of.head_size, of.n_kv_heads * of.head_size);
        let has_head_norms = Role::QueryNorm.is_in(of);
        let has_convolutions = of.convolutions.is_some();
        Self {
            hidden,
            normed: hidden,
            beside: used(Role::AttentionNorm2.is_in(of), hidden),
            joined: used(uses.joined, query + 2 * kv),
            query,
            key: used(uses.apart, kv),
            value: used(uses.apart, kv),
            normed_query: used(has_head_norms, query),
            normed_key: used(has_head_norms, kv),
            attended: query,
            given: used(of.adds_apart(), hidden),
            gate: used(uses.gate, of.ffn_size),
            up: used(uses.up, of.ffn_size),
            ffn: used(uses.ffn, of.ffn_size),
            experts: ExpertWidths::new(of),
            conv_input: used(has_convolutions, 3 * hidden),
            convolved: used(has_convolutions, hidden),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        let of_layers = [
            self.hidden,
            self.normed,
            self.beside,
            self.joined,
            self.query,
            self.key,
            self.value,
            self.normed_query,
            self.normed_key,
            self.attended,
            self.given,
            self.gate,
            self.up,
            self.ffn,
            self.conv_input,
            self.convolved,
        ];
        let ExpertWidths { logits, chosen, shares, gate, up, gated, given } = self.experts;
        of_layers.into_iter().chain([logits, chosen, shares, gate, up, gated, given])
    }
}

// === impl ExpertWidths ===

impl ExpertWidths {
    fn new(of: &Hyperparameters) -> Self {
        let n_chosen = of.experts.map_or(0, |experts| experts.n_chosen);
        let (ffn, hidden) = ((n_chosen * of.ffn_size).max(1), (n_chosen * of.hidden_size).max(1));
        Self {
            logits: of.experts.map_or(1, |experts| experts.n_experts),
            chosen: n_chosen.max(1),
            shares: n_chosen.max(1),
            gate: ffn,
            up: ffn,
            gated: ffn,
            given: hidden,
        }
    }
}
