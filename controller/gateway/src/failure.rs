//! Why a placement of a session failed.

use std::time::Duration;

use polyphony_protocol::PlanGeneration;
use polyphony_protocol::frame::FailureCode;

use crate::routes::Unsent;

/// Why a session cannot go on where it runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the link to phone {phone} ended")]
    PhoneGone { phone: String },
    #[error(transparent)]
    Unsent(#[from] Unsent),
    #[error("phone {phone} reported {code:?}: {message}")]
    Stage { phone: String, code: FailureCode, message: String },
    #[error("no token came from the ring of {phones} within {} s", waited.as_secs_f32())]
    Silent { phones: String, waited: Duration },
    #[error("the session could not move on from generation {from} of its ring: {why}")]
    HandOver { from: PlanGeneration, why: String },
    /// The frames contradict what the gateway knows.
    #[error("{0}")]
    Disagreement(String),
}

// === impl Failure ===

impl Failure {
    /// Whether the session may be placed again.
    pub(crate) fn is_retryable(&self) -> bool {
        !matches!(self, Self::Stage { code, .. } if !code.is_retryable())
    }

    /// Whether the ring is likely to fail the next session too.
    pub(crate) fn casts_suspicion(&self) -> bool {
        match self {
            Self::PhoneGone { .. } | Self::Silent { .. } | Self::Unsent(Unsent::Gone(_)) => true,
            Self::Stage { code, .. } => {
                use FailureCode::{BadFrame, Busy, HandOver, NonFinite};
                !matches!(code, Busy | BadFrame | HandOver | NonFinite)
            }
            Self::Unsent(Unsent::Full(_)) | Self::HandOver { .. } | Self::Disagreement(_) => false,
        }
    }
}
