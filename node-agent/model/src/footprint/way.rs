//! Ways of rows through a segment: what a step goes through, op by op, as the agent's `segment/stream.rs` records it.

use super::engine_form::is_quantised;
use super::joins::Joins;
use super::{Room, STEP_ROWS};
use crate::holds::{Holds, LayerRange};
use crate::hyperparameters::{Hyperparameters, LayerTurn};
use crate::manifest::{Manifest, TensorEntry};
use crate::role::Role;

/// What rows go through layers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A prompt through an encoder's layers, all of its rows at once.
    Encode,
    /// Keys and values of an encoder's output, of all rows of a prompt.
    TakeEncoded,
    /// A step of decoding.
    Decode,
}

/// Rows through those layers of a segment that do one kind of work.
pub(super) struct Way<'a> {
    pub manifest: &'a Manifest,
    pub work: Work,
    pub layers: LayerRange,
    pub joins: Vec<Joins>,
    pub n_rows: u64,
    /// Positions that a row sees at most.
    pub n_positions: u64,
    /// Rows that give logits.
    pub n_logits: u64,
    /// Tokens come, and not hidden states.
    pub takes_tokens: bool,
}

/// A product of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub of: Kind,
    pub n_rows: u64,
    pub n_in: u64,
    /// Of one expert, where it is one of experts.
    pub n_out: u64,
    pub is_quantised: bool,
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// Rows of a gate and of its way up taking turns, which are multiplied with one another.
    GateUp,
    /// Of the experts that each row has chosen, which share a row of activations or have one each.
    OfExperts {
        n_experts: u64,
        n_chosen: u64,
        is_apart: bool,
    },
}

// === impl Way ===

impl<'a> Way<'a> {
    /// All that a segment does.
    pub fn all(manifest: &'a Manifest, holds: &Holds, room: Room) -> Vec<Self> {
        let of = &manifest.hyperparameters;
        let (encoding, decoding) = of.halves(holds.layers);
        let context = u64::from(room.context_length);
        let n_logits = if holds.head { u64::from(room.n_sessions.min(STEP_ROWS)) } else { 0 };
        let begins_to_decode = of.encoder.map_or(holds.embedding, |encoder| decoding.contains(encoder.n_layers));
        let crossing = if of.encoder.is_some() { decoding } else { LayerRange::default() };
        let ways = [
            (Work::Encode, encoding, context, 0, holds.embedding),
            (Work::TakeEncoded, crossing, context, 0, false),
            (Work::Decode, decoding, u64::from(STEP_ROWS), n_logits, begins_to_decode),
        ];
        let here = ways.into_iter().filter(|(_, layers, ..)| !layers.is_empty());
        here.map(|(work, layers, n_rows, n_logits, takes_tokens)| {
            let joins = Joins::of(manifest, layers);
            Self { manifest, work, layers, joins, n_rows, n_positions: context, n_logits, takes_tokens }
        })
        .collect()
    }

    pub fn of(&self) -> &'a Hyperparameters {
        &self.manifest.hyperparameters
    }

    /// f32 values that come with the step, and that it gives.
    pub fn values_in_and_out(&self) -> (u64, u64) {
        let of = self.of();
        let rows = self.n_rows.saturating_mul(u64::from(of.hidden_size));
        let came = if self.takes_tokens { 0 } else { rows };
        let given = match self.work {
            Work::TakeEncoded => 0,
            Work::Encode => rows,
            Work::Decode if self.n_logits > 0 => self.n_logits.saturating_mul(u64::from(of.vocab_size)),
            Work::Decode => rows,
        };
        (came, given)
    }

    /// f32 values of the angles that rows turn by: layers that turn alike share theirs.
    pub fn angles(&self) -> u64 {
        let of = self.of();
        let turns = |turn: LayerTurn| self.work == Work::Decode && self.layers.iter().any(|at| of.turn_of(at) == turn);
        let n_turns = u64::from(turns(LayerTurn::Scaled)) + u64::from(turns(LayerTurn::Plain));
        let n_rotated = of.rope.map_or(0, |rope| u64::from(rope.n_rotated));
        self.n_rows.saturating_mul(n_turns * n_rotated)
    }

    /// Lists of how many positions each row sees, where that is not told by its own.
    pub fn n_lists_of_lengths(&self) -> u64 {
        let n_layers = u64::from(self.layers.len());
        match self.work {
            Work::TakeEncoded => 0,
            Work::Encode => n_layers,
            Work::Decode if self.of().encoder.is_some() => n_layers,
            Work::Decode => 0,
        }
    }

    /// The products, in the order of the manifest.
    pub fn products(&self) -> impl Iterator<Item = Product> + '_ {
        self.manifest.tensors.iter().filter_map(|tensor| self.product(tensor))
    }

    fn product(&self, tensor: &TensorEntry) -> Option<Product> {
        use Role::*;
        let of = self.of();
        let &[n_in, n_out, ..] = tensor.shape.as_slice() else { return None };
        let product = |of: Kind, n_rows: u64, n_out: u64| {
            Some(Product { of, n_rows, n_in, n_out, is_quantised: is_quantised(tensor.tensor_type) })
        };
        let Some(layer) = tensor.layer else {
            let output = if of.tied_embedding { TokenEmbedding } else { Output };
            return if tensor.role == output && self.n_logits > 0 {
                product(Kind::Plain, self.n_logits, n_out)
            } else {
                None
            };
        };
        let joins = self.layers.contains(layer).then(|| self.joins[(layer - self.layers.from) as usize])?;
        let is_taken = matches!(tensor.role, CrossKey | CrossValue);
        if tensor.role.is_vector() || is_taken != (self.work == Work::TakeEncoded) {
            return None;
        }
        let of_experts = |is_apart: bool| {
            let experts = of.experts?;
            let (n_experts, n_chosen) = (u64::from(experts.n_experts), u64::from(experts.n_chosen));
            product(Kind::OfExperts { n_experts, n_chosen, is_apart }, self.n_rows, n_out)
        };
        match tensor.role {
            Query if joins.queries == Some(true) => {
                let kv = u64::from(of.n_kv_heads) * u64::from(of.head_size);
                product(Kind::Plain, self.n_rows, n_out + 2 * kv)
            }
            Key | Value if joins.queries == Some(true) => None,
            FfnGate if joins.gate == Some(true) => None,
            FfnUp if joins.gate == Some(true) => product(Kind::GateUp, self.n_rows, 2 * u64::from(of.ffn_size)),
            ExpertGate | ExpertUp => of_experts(false),
            ExpertDown => of_experts(true),
            _ => product(Kind::Plain, self.n_rows, n_out),
        }
    }

    /// Ops that are no products.
    pub fn n_other_ops(&self) -> u64 {
        let n_layers = u64::from(self.layers.len());
        if self.work == Work::TakeEncoded {
            // The write of keys and values.
            return n_layers;
        }
        let of = self.of();
        let is_in = |role: Role| u64::from(role.is_in(of));
        let added = u64::from(of.adds_apart());
        let of_layer = |(layer, joins): (u32, &Joins)| {
            let mixes = match joins.queries {
                // The write of what it goes over, and the convolution.
                None => is_in(Role::AttentionNorm) + 2,
                Some(joined) => {
                    let turns = if of.turn_of(layer) == LayerTurn::None { 0 } else { 2 };
                    let writes = if joined { 1 } else { 2 * is_in(Role::QueryNorm) + turns + 1 };
                    let norms = is_in(Role::AttentionNorm) + is_in(Role::AttentionNorm2);
                    norms + writes + 1 + is_in(Role::AttentionPostNorm)
                }
            };
            let crosses = if of.attends_to_encoder(layer) { 2 + added } else { 0 };
            let feeds = match joins.gate {
                // The choice of experts, what their gates do, the sum of what they give.
                None => 3,
                Some(joined) => u64::from(!joined),
            };
            // Last the hidden state is rounded.
            mixes + added + crosses + is_in(Role::FfnNorm) + feeds + is_in(Role::FfnPostNorm) + added + 1
        };
        let of_layers: u64 = self.layers.iter().zip(&self.joins).map(of_layer).sum();
        let embeds = 1 + is_in(Role::PositionEmbedding) + is_in(Role::TokenEmbeddingNorm);
        // A norm before the logits, and their scale.
        let ends = if self.n_logits > 0 { 2 } else { u64::from(self.work == Work::Encode) };
        of_layers + if self.takes_tokens { embeds } else { 0 } + ends
    }
}
