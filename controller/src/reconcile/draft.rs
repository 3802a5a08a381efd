//! Drafts: plans on their way to the API. One that was written in part, and that nobody refused, is written on as it is.

use polyphony_api::SegmentPlacement;
use polyphony_api::inference_deployment::PlanSummary;

/// A plan of a replica as it is written: its placements, and what the status that commits them says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// By stage, sealed. Never empty.
    pub placements: Vec<SegmentPlacement>,
    pub summary: PlanSummary,
    pub predicted_tokens_per_second: Option<f64>,
    pub time_to_first_token_seconds: Option<f64>,
    pub note: Note,
}

/// What is told of a plan when it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub is_warning: bool,
    pub reason: &'static str,
    pub words: String,
}

// === impl Draft ===

impl Draft {
    pub fn replica(&self) -> u32 {
        self.placements.first().map_or(0, |placement| placement.spec.replica)
    }

    pub fn number(&self) -> u64 {
        self.summary.generation
    }

    /// Whether a placement is one of its own.
    pub fn has(&self, placement: &SegmentPlacement) -> bool {
        placement.spec.plan_generation == self.number()
            && placement.spec.plan_digest.is_some()
            && placement.spec.plan_digest == self.summary.digest
    }
}
