//! A norm over whole rows, as an engine holds it. Computes nothing.

use polyphony_kernels::VectorId;
use polyphony_model::family::NormKind;
use polyphony_model::{Hyperparameters, Role};

use super::SegmentError;
use super::loaded::Loaded;

/// The gain of a norm, and what else it has in this family.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    Rms(VectorId),
    Layer { weight: VectorId, bias: Option<VectorId> },
}

// === impl Norm ===

impl Norm {
    /// The norm whose gain has this role.
    pub fn build(loaded: &Loaded, of: &Hyperparameters, role: Role, layer: Option<u32>) -> Result<Self, SegmentError> {
        let weight = loaded.vector(role, layer)?;
        Ok(match of.architecture.family().norm {
            NormKind::Rms => Self::Rms(weight),
            NormKind::LayerWithoutBias => Self::Layer { weight, bias: None },
            NormKind::Layer => {
                let bias = role.bias().ok_or(SegmentError::Missing(role))?;
                Self::Layer { weight, bias: Some(loaded.vector(bias, layer)?) }
            }
        })
    }

    /// The same, of a model that has it.
    pub fn if_any(
        loaded: &Loaded,
        of: &Hyperparameters,
        role: Role,
        layer: Option<u32>,
    ) -> Result<Option<Self>, SegmentError> {
        role.is_in(of).then(|| Self::build(loaded, of, role, layer)).transpose()
    }
}
