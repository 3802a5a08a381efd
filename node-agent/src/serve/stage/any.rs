//! Any stage: of a model with an encoder or without, as the thread sees it that owns one. Decides nothing itself.

use std::time::Instant;

use polyphony_protocol::{Frame, RouteKey};

use super::{Effect, EncoderJob, EncoderStage, Kept, Stage, StageShape};
use crate::kv_cache::Slots;
use crate::serve::batch::Batch;
use crate::serve::compute::Source;

/// A stage of whatever kind the model is.
pub enum AnyStage {
    DecoderOnly(Stage),
    EncoderDecoder(EncoderStage),
}

/// What a stage computes next.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Rows of one or several sessions. `n_encoded` says by row how many positions of an encoder's output it attends to; it is empty in a
    /// model without one.
    Decode {
        batch: Batch,
        n_encoded: Vec<u32>,
    },
    Encoder(EncoderJob),
}

// === impl AnyStage ===

impl AnyStage {
    /// A stage without sessions, which will take their slots from `slots`.
    pub fn new(shape: StageShape, slots: Slots) -> Self {
        match shape.encoder {
            None => Self::DecoderOnly(Stage::new(shape, slots)),
            Some(encoder) => Self::EncoderDecoder(EncoderStage::new(shape, encoder, slots)),
        }
    }

    /// The stage that decodes.
    pub fn decoding(&self) -> &Stage {
        match self {
            Self::DecoderOnly(stage) => stage,
            Self::EncoderDecoder(stage) => stage.decoding(),
        }
    }

    /// The same, to be changed.
    pub fn decoding_mut(&mut self) -> &mut Stage {
        match self {
            Self::DecoderOnly(stage) => stage,
            Self::EncoderDecoder(stage) => stage.decoding_mut(),
        }
    }

    /// The part of an encoder; `None` in a model without one.
    pub fn encoder_mut(&mut self) -> Option<&mut EncoderStage> {
        match self {
            Self::DecoderOnly(_) => None,
            Self::EncoderDecoder(stage) => Some(stage),
        }
    }

    /// As [`Stage::accept`].
    pub fn accept(&mut self, frame: Frame, source: Source, now: Instant) -> Vec<Effect> {
        match self {
            Self::DecoderOnly(stage) => stage.accept(frame, source, now),
            Self::EncoderDecoder(stage) => stage.accept(frame, source, now),
        }
    }

    /// The next step; `None` when nothing is ready.
    pub fn next_work(&mut self, now: Instant) -> Option<Work> {
        match self {
            Self::DecoderOnly(stage) => {
                let batch = stage.next_batch(&|_| true, now)?;
                Some(Work::Decode { batch, n_encoded: Vec::new() })
            }
            Self::EncoderDecoder(stage) => stage.next_work(now),
        }
    }

    pub fn has_work(&self) -> bool {
        match self {
            Self::DecoderOnly(stage) => stage.has_work(&|_| true),
            Self::EncoderDecoder(stage) => stage.has_work(),
        }
    }

    /// Token rows that wait to be computed.
    pub fn n_queued_rows(&self) -> usize {
        match self {
            Self::DecoderOnly(stage) => stage.n_queued_rows(),
            Self::EncoderDecoder(stage) => stage.n_queued_rows(),
        }
    }

    /// As [`Stage::poll_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::DecoderOnly(stage) => stage.poll_timeout(),
            Self::EncoderDecoder(stage) => stage.poll_timeout(),
        }
    }

    /// As [`Stage::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        match self {
            Self::DecoderOnly(stage) => stage.handle_timeout(now),
            Self::EncoderDecoder(stage) => stage.handle_timeout(now),
        }
    }

    /// What can be handed over of a session's positions below `n_positions`: nothing in a model with an encoder.
    pub fn kept(&self, key: RouteKey, n_positions: u32) -> Option<Kept> {
        match self {
            Self::DecoderOnly(stage) => stage.kept(key, n_positions),
            Self::EncoderDecoder(_) => None,
        }
    }

    /// Takes a session over, with what the same segment `kept` of it.
    pub fn resume(
        &mut self,
        resume: polyphony_protocol::frame::Resume,
        kept: Option<Kept>,
        now: Instant,
    ) -> Vec<Effect> {
        match self {
            Self::DecoderOnly(stage) => stage.resume(resume, kept, now),
            Self::EncoderDecoder(stage) => {
                let source = stage.decoding().source_of_sessions();
                stage.accept(Frame::Resume(resume), source, now)
            }
        }
    }
}
