//! The shape of a stage: its place in a ring, and what follows from it. Pure, and the same for as long as the stage lives.

use std::time::Duration;

use polyphony_model::LayerRange;
use polyphony_protocol::hub::EncoderStages;
use polyphony_protocol::{ActivationType, PlanGeneration, RingId};

use crate::segment::Capacity;
use crate::serve::links::Links;

/// What a stage is, once and for all.
#[derive(Clone, Debug)]
pub struct StageShape {
    pub ring: RingId,
    pub generation: PlanGeneration,
    /// Its place in the ring, from 0.
    pub stage: u32,
    pub layers: LayerRange,
    pub phone: String,
    /// The phone that this stage sends to, for messages.
    pub next_phone: String,
    /// Stages of the ring, this one included; at least 1.
    pub n_stages: usize,
    /// Groups in which the sessions are to go around; 0 where the plan does not say.
    pub session_groups: usize,
    /// The gateway's frames come here.
    pub is_head: bool,
    pub is_tail: bool,
    /// Of an encoder–decoder model only.
    pub encoder: Option<EncoderShape>,
    pub hidden_size: usize,
    pub activation_type: ActivationType,
    pub capacity: Capacity,
    /// The ring's answer to a step must come within this.
    pub step_deadline: Duration,
    /// A session that nobody closes is forgotten after this.
    pub idle_deadline: Duration,
}

/// What a stage has to know of its model's encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderShape {
    /// The token that decoding starts from.
    pub start_token: u32,
    pub stages: EncoderStages,
}

// === impl StageShape ===

impl StageShape {
    /// The first stage with layers that decode.
    pub(super) fn first_decoder(&self) -> u32 {
        self.encoder.map_or(0, |encoder| encoder.stages.first_decoder)
    }

    /// Whether decoding begins here: the gateway's tokens and those of the tail come to this stage.
    pub(super) fn leads(&self) -> bool {
        self.stage == self.first_decoder()
    }

    pub(super) fn decodes(&self) -> bool {
        self.stage >= self.first_decoder()
    }

    /// Groups in which sessions decode. A plan counts all stages, so where there is an encoder its word is not for this.
    pub(super) fn n_decoding_groups(&self) -> usize {
        match (self.session_groups, self.encoder) {
            (groups @ 1.., None) => groups,
            _ => self.n_stages.saturating_sub(self.first_decoder() as usize).max(1),
        }
    }

    /// Where the encoder's output goes besides the next stage.
    pub(super) fn skips(&self) -> Vec<u32> {
        let n_stages = u32::try_from(self.n_stages).unwrap_or(u32::MAX);
        Links::of(self.stage, n_stages, self.encoder.map(|encoder| encoder.stages)).skips
    }
}
