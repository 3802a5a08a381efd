//! Event: what happens to a run.

use polyphony_protocol::RouteKey;
use polyphony_protocol::frame::Token;
use tokio::time::Instant;

use crate::errors::ApiError;
use crate::failure::Failure;
use crate::routes::{RingRoute, Unsent};

/// What happens to a run.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It has a place.
    Placed {
        ring: RingRoute,
        context_length: u32,
        /// Sessions on the ring, this one included.
        n_sessions: usize,
    },
    /// There is none for it.
    NotPlaced(ApiError),
    Token {
        token: Token,
        at: Instant,
    },
    Failed {
        key: RouteKey,
        failure: Failure,
    },
    /// The head has stopped, with all positions below this one computed.
    Paused {
        key: RouteKey,
        position: u32,
    },
    /// Every stage of the next ring has what it needs to go on.
    Resumed {
        key: RouteKey,
    },
    /// A frame did not go out.
    Unsent(Unsent),
    /// The ring that the controller wants the present one's sessions to be on.
    Wanted(Option<RingRoute>),
    /// The client's queue has taken what was said first.
    Taken,
    /// Nobody wants the answer any more.
    Unwanted,
    /// The program ends.
    Closing,
    /// The time that [`Run::deadline`] says has come.
    Late,
}
