//! Attention of a layer over the past of its own rows, as an engine holds it. Computes nothing.

use polyphony_kernels::{BufferId, Engine, KvLayout, Turn, VectorId};
use polyphony_model::{Hyperparameters, Role};

use super::SegmentError;
use super::linear::Linear;
use super::loaded::Loaded;
use super::norm::Norm;
use super::turns::Turns;

pub(super) struct SelfAttention {
    /// Of what it takes.
    pub norm: Option<Norm>,
    pub projection: Projection,
    /// How queries and keys turn, where they do.
    pub turn: Option<Turn>,
    /// Positions seen; `None`: all.
    pub window: Option<u32>,
    pub sinks: Option<VectorId>,
    pub output: Linear,
    /// Of what it gives.
    pub post_norm: Option<Norm>,
}

/// Queries, keys and values: one matrix of all rows, or three.
#[derive(Clone, Copy)]
pub(super) enum Projection {
    Joined(Linear),
    Apart { query: Linear, key: Linear, value: Linear, head_norms: Option<HeadNorms> },
}

/// Gains of the norms of queries and of keys.
#[derive(Clone, Copy)]
pub(super) struct HeadNorms {
    pub query: VectorId,
    pub key: VectorId,
}

/// Keys and values of so many positions of each slot.
#[derive(Clone, Copy)]
pub(super) struct Cache {
    pub k: BufferId,
    pub v: BufferId,
}

// === impl SelfAttention ===

impl SelfAttention {
    /// That of the layer with this index in the model, whose tensors are loaded.
    pub fn build(loaded: &Loaded, of: &Hyperparameters, turns: &Turns, layer: u32) -> Result<Self, SegmentError> {
        // Where two norms stand before a layer whose sub-layers lie side by side, the second is attention's.
        let norm = if Role::AttentionNorm2.is_in(of) { Role::AttentionNorm2 } else { Role::AttentionNorm };
        let sinks = Role::Sinks.is_in(of).then(|| loaded.vector(Role::Sinks, Some(layer))).transpose()?;
        Ok(Self {
            norm: Norm::if_any(loaded, of, norm, Some(layer))?,
            projection: Projection::build(loaded, of, layer)?,
            turn: turns.of(of, layer),
            window: of.window_of(layer),
            sinks,
            output: Linear::build(loaded, Role::AttentionOutput, layer)?,
            post_norm: Norm::if_any(loaded, of, Role::AttentionPostNorm, Some(layer))?,
        })
    }
}

// === impl Projection ===

impl Projection {
    fn build(loaded: &Loaded, of: &Hyperparameters, layer: u32) -> Result<Self, SegmentError> {
        if Role::QueryKeyValue.is_in(of) {
            return Ok(Self::Joined(Linear::build(loaded, Role::QueryKeyValue, layer)?));
        }
        if let Some(weight) = loaded.joined(Role::Query, layer) {
            return Ok(Self::Joined(Linear { weight, bias: loaded.joined_bias(layer) }));
        }
        let head_norms = match Role::QueryNorm.is_in(of) {
            false => None,
            true => Some(HeadNorms {
                query: loaded.vector(Role::QueryNorm, Some(layer))?,
                key: loaded.vector(Role::KeyNorm, Some(layer))?,
            }),
        };
        Ok(Self::Apart {
            query: Linear::build(loaded, Role::Query, layer)?,
            key: Linear::build(loaded, Role::Key, layer)?,
            value: Linear::build(loaded, Role::Value, layer)?,
            head_norms,
        })
    }
}

// === impl Cache ===

impl Cache {
    pub fn alloc(engine: &mut dyn Engine, layout: KvLayout) -> Result<Self, SegmentError> {
        Ok(Self { k: engine.alloc(layout.len())?, v: engine.alloc(layout.len())? })
    }
}
