//! Effect: what a run wants done, and what is to be counted and logged of it.

use std::time::Duration;

use polyphony_protocol::{Frame, PlanGeneration, RingId, RouteKey};
use tokio::time::Instant;

use crate::admission::Place;
use crate::answer::Output;
use crate::failure::Failure;
use crate::routes::RingRoute;

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// From now on what these phones say with this key is heard.
    Hear {
        key: RouteKey,
        phones: Vec<String>,
        next_position: u32,
    },
    /// The same, of a ring whose every stage has to say first that it has the KV cache below this position.
    HearResumed {
        key: RouteKey,
        phones: Vec<String>,
        position: u32,
    },
    /// Without this frame the ring cannot go on.
    Send {
        phone: String,
        frame: Frame,
    },
    /// A phone that cannot be told has lost the session anyway.
    Tell {
        phone: String,
        frame: Frame,
    },
    /// A place on the ring that the session moves to, beside the one that it has.
    Claim(RingRoute),
    /// The place that was claimed is the only one now.
    GoOver,
    /// Nothing more is heard, and every place is given back.
    Leave,
    /// This ring is likely to fail the next session too.
    Suspect(Place),
    /// Look for a place to replay on, after a pause.
    Seek {
        pause: Duration,
    },
    Say(Output),
    /// What was said and is not taken yet is not worth saying any more.
    Forget,
    /// The model's numbers are none.
    Unsound(String),
    Note(Note),
}

/// What is counted and logged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    Placed(RouteKey),
    /// A frame that belongs to nothing.
    Ignored,
    Token {
        at: Instant,
        /// Since the token before, on the same ring and with credit all the while.
        on_ring: Option<Duration>,
        /// The same, whatever ring it was on.
        seen: Option<Duration>,
    },
    Pausing {
        to: PlanGeneration,
    },
    Moved {
        from: PlanGeneration,
        key: RouteKey,
        stood_still: Duration,
    },
    MoveFailed,
    Interrupted {
        ring: RingId,
        failure: Failure,
    },
    Replayed {
        n_tokens: u32,
    },
}
