//! Joins: which matrices of a layer an engine keeps as one, and so which buffers a step goes through. As `segment/loaded.rs` of the agent joins them.

use super::step::Uses;
use crate::family::HeadNorms;
use crate::holds::LayerRange;
use crate::manifest::Manifest;
use crate::role::Role;

/// What of one layer is joined: matrices that multiply the same values are where they are of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joins {
    /// Queries with keys and values; `None` of a layer without attention.
    pub queries: Option<bool>,
    /// A gate with its way up; `None` of experts.
    pub gate: Option<bool>,
}

/// What may be joined: queries with keys and values, a gate with its way up.
const JOINED: [Role; 5] = [Role::Query, Role::Key, Role::Value, Role::FfnGate, Role::FfnUp];

// === impl Joins ===

impl Joins {
    /// Of each of these layers.
    pub fn of(manifest: &Manifest, layers: LayerRange) -> Vec<Self> {
        let of = &manifest.hyperparameters;
        let mut types = vec![[None; JOINED.len()]; layers.len() as usize];
        for tensor in &manifest.tensors {
            let idx = tensor.layer.filter(|layer| layers.contains(*layer)).map(|layer| (layer - layers.from) as usize);
            if let (Some(idx), Some(place)) = (idx, JOINED.iter().position(|role| *role == tensor.role)) {
                types[idx][place] = Some(tensor.tensor_type);
            }
        }
        let (are_fused, may_join) =
            (Role::QueryKeyValue.is_in(of), of.architecture.family().head_norms == HeadNorms::None);
        let (has_gate, is_fused) = (of.is_gated(), of.is_gated() && !Role::FfnGate.is_in(of));
        let joins = |(layer, [query, key, value, gate, up]): (u32, [_; JOINED.len()])| Self {
            queries: (!of.is_convolution(layer)).then_some(are_fused || (may_join && query == key && key == value)),
            gate: of.experts.is_none().then_some(has_gate && (is_fused || gate == up)),
        };
        layers.iter().zip(types).map(joins).collect()
    }
}

// === impl Uses ===

impl Uses {
    /// What layers of these joins use.
    pub(super) fn by(joins: &[Joins], has_gate: bool) -> Self {
        let mut uses = Self::default();
        for joins in joins {
            uses.joined |= joins.queries == Some(true);
            uses.apart |= joins.queries == Some(false);
            uses.gate |= has_gate && joins.gate == Some(false);
            uses.up |= joins.gate == Some(false);
            uses.ffn |= joins.gate.is_some();
        }
        uses
    }
}
