//! Phase: where a run is, with what belongs to that and nothing else.

use std::time::Duration;

use polyphony_protocol::{PlanGeneration, RouteKey};
use tokio::time::Instant;

use crate::admission::Place;
use crate::routes::RingRoute;

pub(super) enum Phase {
    /// Off every ring: a place is sought.
    Seeking {
        /// It has been on a ring before.
        is_replay: bool,
    },
    On(On),
    Moving(Moving),
    Over,
}

/// On a ring.
pub(super) struct On {
    pub(super) key: RouteKey,
    pub(super) ring: RingRoute,
    pub(super) step: Step,
    /// The next token is awaited from then, for so long, while there is credit for it.
    pub(super) since: Instant,
    pub(super) patience: Duration,
}

/// How far it has come to rest there.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Going,
    /// The head has been asked to stop.
    Pausing(Pause),
    /// It has: positions below this one are computed.
    Paused(Pause, u32),
}

#[derive(Clone, Copy)]
pub(super) struct Pause {
    pub(super) began: Instant,
    /// When the session is replayed instead.
    pub(super) deadline: Instant,
}

/// At rest, while the next ring takes over what the old one has below a position. Until it has, the old one keeps everything.
#[derive(Clone)]
pub(super) struct Moving {
    /// With its head.
    pub(super) old: (RouteKey, String),
    pub(super) to: RingRoute,
    pub(super) key: RouteKey,
    pub(super) position: u32,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
}

// === impl Phase ===

impl Phase {
    /// What is heard now.
    pub(super) fn key(&self) -> Option<RouteKey> {
        match self {
            Self::On(on) => Some(on.key),
            Self::Moving(moving) => Some(moving.key),
            Self::Seeking { .. } | Self::Over => None,
        }
    }

    /// The ring that is at fault if something fails now.
    pub(super) fn place(&self) -> Option<Place> {
        self.key().map(|key| (key.ring, key.generation))
    }

    /// The generation that has the session.
    pub(super) fn generation(&self) -> Option<PlanGeneration> {
        match self {
            Self::On(on) => Some(on.key.generation),
            Self::Moving(moving) => Some(moving.old.0.generation),
            Self::Seeking { .. } | Self::Over => None,
        }
    }

    /// Whether a move is under way.
    pub(super) fn is_move(&self) -> bool {
        match self {
            Self::On(on) => !matches!(on.step, Step::Going),
            Self::Moving(_) => true,
            Self::Seeking { .. } | Self::Over => false,
        }
    }

    pub(super) fn deadline(&self, has_credit: bool) -> Option<Instant> {
        match self {
            Self::On(on) => [on.token_deadline(has_credit), on.pause_deadline()].into_iter().flatten().min(),
            Self::Moving(moving) => Some(moving.deadline),
            Self::Seeking { .. } | Self::Over => None,
        }
    }
}

// === impl On ===

impl On {
    /// Whether the head samples where it has credit.
    pub(super) fn may_run(&self) -> bool {
        matches!(self.step, Step::Going | Step::Pausing(_))
    }

    pub(super) fn token_deadline(&self, has_credit: bool) -> Option<Instant> {
        (has_credit && self.may_run()).then(|| self.since + self.patience)
    }

    pub(super) fn waits_from(&mut self, now: Instant, patience: Duration) {
        (self.since, self.patience) = (now, patience);
    }

    fn pause_deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Pausing(pause) | Step::Paused(pause, _) => Some(pause.deadline),
            Step::Going => None,
        }
    }
}
