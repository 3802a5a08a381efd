//! A step's buffers: how wide each is, and which are used at all. Engines are asked for just these.

use crate::family::HeadNorms;
use crate::holds::LayerRange;
use crate::hyperparameters::Hyperparameters;
use crate::manifest::Manifest;
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
    /// What goes into a convolution, in three parts, and what comes of it.
    pub conv_input: u32,
    pub convolved: u32,
}

/// What may be joined: queries with keys and values, a gate with its way up.
const JOINED: [Role; 5] = [Role::Query, Role::Key, Role::Value, Role::FfnGate, Role::FfnUp];

// === impl Uses ===

impl Uses {
    /// By the tensors of these layers: matrices that multiply the same values are joined where they are alike.
    pub fn of(manifest: &Manifest, layers: LayerRange) -> Self {
        let of = &manifest.hyperparameters;
        let mut types = vec![[None; JOINED.len()]; layers.len() as usize];
        for tensor in &manifest.tensors {
            let idx = tensor.layer.filter(|layer| layers.contains(*layer)).map(|layer| (layer - layers.from) as usize);
            if let (Some(idx), Some(place)) = (idx, JOINED.iter().position(|role| *role == tensor.role)) {
                types[idx][place] = Some(tensor.tensor_type);
            }
        }
        let may_join = of.architecture.family().head_norms == HeadNorms::None;
        let (has_gate, is_fused) = (of.is_gated(), of.is_gated() && !Role::FfnGate.is_in(of));
        let mut uses = Self::default();
        for (layer, [query, key, value, gate, up]) in layers.iter().zip(types) {
            if !of.is_convolution(layer) {
                let is_joined = Role::QueryKeyValue.is_in(of) || (may_join && query == key && key == value);
                uses.joined |= is_joined;
                uses.apart |= !is_joined;
            }
            let are_joined = has_gate && (is_fused || gate == up);
            uses.gate |= has_gate && !are_joined;
            uses.up |= !are_joined;
        }
        uses
    }
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
            ffn: of.ffn_size,
            conv_input: used(has_convolutions, 3 * hidden),
            convolved: used(has_convolutions, hidden),
        }
    }

    pub(super) fn all(&self) -> [u32; 16] {
        [
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
        ]
    }
}
