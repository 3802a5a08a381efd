//! The feed-forward network of a layer, as an engine holds it. Computes nothing.

use polyphony_kernels::MatrixId;
use polyphony_model::{Hyperparameters, Role};

use super::SegmentError;
use super::experts::Experts;
use super::linear::Linear;
use super::loaded::Loaded;
use super::norm::Norm;

pub(super) struct FeedForward {
    pub input: Input,
    pub network: Network,
    /// Of what it gives.
    pub post_norm: Option<Norm>,
}

/// What it takes.
#[derive(Clone, Copy)]
pub(super) enum Input {
    /// The hidden state that attention has added to, after a norm where there is one.
    After(Option<Norm>),
    /// What attention takes as well.
    Shared,
    /// The hidden state that attention takes, by a norm of its own.
    Beside(Norm),
}

/// One network for all tokens, or experts.
pub(super) enum Network {
    Dense { up: WayUp, down: Linear },
    Experts(Experts),
}

/// A gate and the way up in one matrix of rows taking turns, or in two of different types; or the way up alone.
#[derive(Clone, Copy)]
pub(super) enum WayUp {
    Joined(MatrixId),
    Apart { gate: Linear, up: Linear },
    Plain(Linear),
}

// === impl FeedForward ===

impl FeedForward {
    /// That of the layer with this index in the model, whose tensors are loaded.
    pub fn build(loaded: &Loaded, of: &Hyperparameters, layer: u32) -> Result<Self, SegmentError> {
        let network = match Experts::build(loaded, of, layer)? {
            Some(experts) => Network::Experts(experts),
            None => {
                let (up, down) = (WayUp::build(loaded, of, layer)?, Linear::build(loaded, Role::FfnDown, layer)?);
                Network::Dense { up, down }
            }
        };
        let is_parallel = of.architecture.family().is_parallel;
        let input = if is_parallel && Role::AttentionNorm2.is_in(of) {
            Input::Beside(Norm::build(loaded, of, Role::AttentionNorm, Some(layer))?)
        } else if is_parallel {
            Input::Shared
        } else {
            Input::After(Norm::if_any(loaded, of, Role::FfnNorm, Some(layer))?)
        };
        Ok(Self { input, network, post_norm: Norm::if_any(loaded, of, Role::FfnPostNorm, Some(layer))? })
    }
}

// === impl WayUp ===

impl WayUp {
    fn build(loaded: &Loaded, of: &Hyperparameters, layer: u32) -> Result<Self, SegmentError> {
        Ok(match loaded.joined(Role::FfnGate, layer) {
            _ if !of.is_gated() => Self::Plain(Linear::build(loaded, Role::FfnUp, layer)?),
            Some(joined) => Self::Joined(joined),
            None => Self::Apart {
                gate: Linear::build(loaded, Role::FfnGate, layer)?,
                up: Linear::build(loaded, Role::FfnUp, layer)?,
            },
        })
    }
}
