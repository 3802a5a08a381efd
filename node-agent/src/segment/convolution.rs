//! A short convolution in place of attention, as an engine holds it (arXiv 2511.23404). Computes nothing.

use polyphony_kernels::{BufferId, Engine, KvLayout, KvType, VectorId};
use polyphony_model::{Hyperparameters, Role};

use super::SegmentError;
use super::linear::Linear;
use super::loaded::Loaded;
use super::norm::Norm;

pub(super) struct Convolution {
    /// Of what it takes.
    pub norm: Option<Norm>,
    pub input: Linear,
    pub taps: VectorId,
    pub n_taps: usize,
    pub output: Linear,
    /// What it goes over, of all positions as a cache of keys is: so a session's past can be cut anywhere, and moves as any other.
    pub cache: BufferId,
}

// === impl Convolution ===

impl Convolution {
    /// Of its cache, beside caches of keys of `layout`: f32 always.
    pub fn layout(of: &Hyperparameters, layout: KvLayout) -> KvLayout {
        KvLayout { kv_width: of.hidden_size as usize, kv_type: KvType::F32, ..layout }
    }

    /// That of the layer with this index in the model, whose tensors are loaded, with a cache of `layout`.
    pub fn build(
        engine: &mut dyn Engine,
        loaded: &Loaded,
        of: &Hyperparameters,
        layer: u32,
        layout: KvLayout,
    ) -> Result<Self, SegmentError> {
        Ok(Self {
            norm: Norm::if_any(loaded, of, Role::AttentionNorm, Some(layer))?,
            input: Linear::build(loaded, Role::ConvInput, layer)?,
            taps: loaded.vector(Role::ConvTaps, Some(layer))?,
            n_taps: of.convolutions.as_ref().map_or(0, |of| of.n_taps as usize),
            output: Linear::build(loaded, Role::ConvOutput, layer)?,
            cache: engine.alloc(layout.len())?,
        })
    }
}
