//! Patience: how long a session waits for a place on a ring, by what there is to wait for. Pure: the time comes in.
//!
//! A ring that is full, and a plan that is to come, are worth the whole wait. Where there is neither, whoever comes is refused at once, and
//! whoever had a ring until now waits for a moment: a phone that only starts again brings it back.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Kind;
use crate::config::GatewayConfig;
use crate::routes::DeploymentRoute;

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// A place on a ring that there is.
    Ring,
    /// A ring, by a plan that is on its way or about to be decided.
    Plan,
    None,
}

/// Why a session waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// There is nothing to wait for.
    Hopeless,
    /// It has waited for so long.
    Late(Duration),
}

/// How long one session waits.
#[derive(Debug)]
pub(super) struct Patience {
    whole: Duration,
    without_plan: Duration,
    deadline: Instant,
    had: Had,
}

/// The best that the session has had to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Had {
    /// It has not looked yet.
    Nothing,
    Plan,
    Ring,
    /// A ring, which is lost; without a plan it waits until then.
    LostRing {
        until: Instant,
    },
}

// === impl Prospect ===

impl Prospect {
    pub(super) fn of(route: &DeploymentRoute) -> Self {
        match route {
            route if !route.rings.is_empty() => Self::Ring,
            route if route.is_planned => Self::Plan,
            _ => Self::None,
        }
    }
}

// === impl Patience ===

impl Patience {
    pub(super) fn new(kind: Kind, config: &GatewayConfig, now: Instant) -> Self {
        // An interrupted session has been on a ring.
        let (whole, had) = match kind {
            Kind::New => (config.queue_deadline, Had::Nothing),
            Kind::Replay => (config.replay_deadline, Had::Ring),
        };
        Self { whole, without_plan: config.no_plan_deadline, deadline: now + whole, had }
    }

    /// Whether this session has not looked for a place before.
    pub(super) fn is_new(&self) -> bool {
        self.had == Had::Nothing
    }

    /// Looks at what there is; until when it waits for that, or why no longer.
    pub(super) fn look(&mut self, prospect: Prospect, now: Instant) -> ControlFlow<Ended, Instant> {
        self.had = match (prospect, self.had) {
            (Prospect::Ring, _) => Had::Ring,
            (Prospect::Plan, Had::Nothing | Had::Plan) => Had::Plan,
            (Prospect::Plan, Had::Ring | Had::LostRing { .. }) => Had::Ring,
            (Prospect::None, Had::Nothing | Had::Plan) => return ControlFlow::Break(Ended::Hopeless),
            (Prospect::None, Had::Ring) => Had::LostRing { until: now + self.without_plan },
            (Prospect::None, lost @ Had::LostRing { .. }) => lost,
        };
        if now >= self.deadline {
            return ControlFlow::Break(Ended::Late(self.whole));
        }
        match self.had {
            Had::LostRing { until } if now >= until => ControlFlow::Break(Ended::Hopeless),
            Had::LostRing { until } => ControlFlow::Continue(until.min(self.deadline)),
            _ => ControlFlow::Continue(self.deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// When the session is refused, in seconds from its coming, and why; each prospect holds from its second on.
    fn refused(kind: Kind, prospects: &[(u32, Prospect)]) -> Option<(u32, Ended)> {
        let config = GatewayConfig {
            queue_deadline: 60 * S,
            replay_deadline: 120 * S,
            no_plan_deadline: 10 * S,
            ..Default::default()
        };
        let start = Instant::now();
        let mut patience = Patience::new(kind, &config, start);
        (0..200).find_map(|second| {
            let (_, prospect) = prospects.iter().rev().find(|(from, _)| *from <= second)?;
            patience.look(*prospect, start + second * S).break_value().map(|ended| (second, ended))
        })
    }

    #[test]
    fn what_is_hopeless_is_told_at_once_and_what_is_not_is_waited_for() {
        use Prospect::{None, Plan, Ring};
        let (new_late, replay_late) = (Ended::Late(60 * S), Ended::Late(120 * S));
        for (kind, prospects, expected) in [
            (Kind::New, vec![(0, None)], (0, Ended::Hopeless)),
            (Kind::New, vec![(0, Plan), (7, None)], (7, Ended::Hopeless)),
            (Kind::New, vec![(0, Plan)], (60, new_late)),
            (Kind::New, vec![(0, Ring)], (60, new_late)),
            // The ring that it came for is lost: first nothing is decided, then there is no plan.
            (Kind::New, vec![(0, Ring), (5, Plan), (6, None)], (16, Ended::Hopeless)),
            (Kind::New, vec![(0, Ring), (5, None), (9, Plan), (20, None)], (30, Ended::Hopeless)),
            (Kind::New, vec![(0, Ring), (5, None), (14, Ring)], (60, new_late)),
            (Kind::New, vec![(0, Ring), (55, None)], (60, new_late)),
            (Kind::Replay, vec![(0, None)], (10, Ended::Hopeless)),
            (Kind::Replay, vec![(0, Plan), (100, None)], (110, Ended::Hopeless)),
            (Kind::Replay, vec![(0, Plan)], (120, replay_late)),
        ] {
            assert_eq!(refused(kind, &prospects), Some(expected), "{kind:?} {prospects:?}");
        }
    }
}
