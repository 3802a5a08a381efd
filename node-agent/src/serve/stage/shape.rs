//! The shape of a stage: its place in a ring, and what follows from it. Pure, and the same for as long as the stage lives.

use std::time::Duration;

use polyphony_model::LayerRange;
use polyphony_protocol::hub::EncoderStages;
use polyphony_protocol::{ActivationType, PlanGeneration, RingId};

use super::window::window_of;
use crate::segment::Capacity;
use crate::serve::kv_transfer::PIECE_BYTES;
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
    /// Of an encoder–decoder model only.
    pub encoder: Option<EncoderShape>,
    /// Tokens that the embedding has a row for.
    pub vocab_size: u32,
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

/// Frames of a session besides its rows that may wait for a link at a time: its opening, its end, and credit.
const CONTROL_FRAMES: usize = 16;

// === impl StageShape ===

impl StageShape {
    /// Whether the gateway's frames come here.
    pub(super) fn is_first(&self) -> bool {
        self.stage == 0
    }

    pub(super) fn is_last(&self) -> bool {
        self.stage as usize + 1 >= self.n_stages
    }

    /// The first stage with layers that decode.
    pub(super) fn first_decoder(&self) -> u32 {
        self.encoder.map_or(0, |encoder| encoder.stages.first_decoder)
    }

    /// Stages with layers that decode.
    pub(super) fn n_decoding_stages(&self) -> usize {
        self.n_stages.saturating_sub(self.first_decoder() as usize).max(1)
    }

    /// Chunks of a session that may be on their way through the ring.
    pub(super) fn window(&self) -> usize {
        window_of(self.n_decoding_stages())
    }

    /// Groups in which sessions decode. A plan counts all stages, so where there is an encoder its word is not for this.
    pub(super) fn n_decoding_groups(&self) -> usize {
        match (self.session_groups, self.encoder) {
            (groups @ 1.., None) => groups,
            _ => self.n_decoding_stages(),
        }
    }

    /// Where the encoder's output goes besides the next stage.
    pub(super) fn skips(&self) -> Vec<u32> {
        let n_stages = u32::try_from(self.n_stages).unwrap_or(u32::MAX);
        Links::of(self.stage, n_stages, self.encoder.map(|encoder| encoder.stages)).skips
    }

    /// Frames that may wait for a link at a time, if all that this stage may hand out does: a link that has more to carry is stuck.
    pub fn max_frames_out(&self) -> usize {
        let prompt_bytes = self.capacity.n_positions.saturating_mul(self.activation_type.row_bytes(self.hidden_size));
        let pieces = if self.encoder.is_some() { prompt_bytes.div_ceil(PIECE_BYTES) } else { 0 };
        let of_session = self.window().saturating_add(pieces).saturating_add(CONTROL_FRAMES);
        // A session that ends leaves its place to one that begins before all of its frames are out.
        self.capacity.n_slots.max(1).saturating_mul(2).saturating_mul(of_session).min(1 << 16)
    }
}
