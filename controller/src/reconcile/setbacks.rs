//! Setbacks: replicas whose plan the API refused, deployments whose decision broke down, and how long each is left alone for that.
//!
//! Kept in memory only: after a restart everything is tried once more. Times are those since the start, so that no clock can be set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::draft::Draft;
use super::object_key::ObjectKey;

/// The first pause, and the longest; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest where nothing was refused: an outage says nothing of the plan, and ends for all at once.
const LONGEST_PAUSE_UNREFUSED: Duration = Duration::from_secs(5);

/// A setback keeps its count for so long after its pause: what is tried again and fails is one more.
const REMEMBERED: Duration = Duration::from_secs(60);

pub type Setbacks = BTreeMap<Whose, Setback>;

/// Whose setback it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    pub deployment: ObjectKey,
    /// `None` where it is a matter of the deployment as a whole.
    pub replica: Option<u32>,
}

/// What went wrong with a deployment or a replica, though nothing is wrong with its phones.
#[derive(Clone, Debug, PartialEq)]
pub struct Setback {
    pub cause: Cause,
    /// The API's words, or those of a panic.
    pub words: String,
    /// Setbacks in a row.
    pub count: u32,
    /// The replica whose plan it befell, whosever setback it is.
    pub replica: Option<u32>,
    /// That plan, where nobody refused it: it is written on, as long as it will do.
    pub draft: Option<Arc<Draft>>,
    /// Nothing of the kind is tried until then, since the start.
    pub until: Duration,
    /// `metadata.generation` of the deployment: a changed one is tried at once.
    pub generation: Option<i64>,
}

/// What it was that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The API will not have the plan of a replica.
    PlacementRefused,
    /// A plan was not written whole, and nobody refused it: the API was silent or out of order, or somebody else wrote meanwhile.
    PlanUnwritten,
    /// Deciding about the deployment broke down.
    DecisionFailed,
}

// === impl Setback ===

impl Setback {
    /// One more after `before`.
    pub fn after(
        before: Option<&Self>,
        cause: Cause,
        words: String,
        generation: Option<i64>,
        uptime: Duration,
    ) -> Self {
        let in_a_row = before.filter(|before| before.cause == cause && before.generation == generation);
        let count = in_a_row.map_or(1, |before| before.count.saturating_add(1));
        let pause = FIRST_PAUSE.saturating_mul(1 << (count - 1).min(16)).min(cause.longest_pause());
        Self { cause, words, count, replica: None, draft: None, until: uptime.saturating_add(pause), generation }
    }

    /// Whether the deployment, as it is now, is still left alone.
    pub fn holds(&self, generation: Option<i64>, uptime: Duration) -> bool {
        self.generation == generation && uptime < self.until
    }

    /// Whether it counts no more: what was to be tried again has not failed since.
    pub fn is_past(&self, uptime: Duration) -> bool {
        uptime >= self.until.saturating_add(REMEMBERED)
    }
}

// === impl Cause ===

impl Cause {
    /// Whose it is when it befell this replica of a deployment: a refusal says nothing of other replicas, all else does.
    pub fn whose(self, deployment: ObjectKey, replica: Option<u32>) -> Whose {
        let replica = replica.filter(|_| self == Self::PlacementRefused);
        Whose { deployment, replica }
    }

    fn longest_pause(self) -> Duration {
        match self {
            Self::PlacementRefused | Self::DecisionFailed => LONGEST_PAUSE,
            Self::PlanUnwritten => LONGEST_PAUSE_UNREFUSED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::act::ActError;

    #[test]
    fn an_api_in_disorder_refuses_nothing_and_is_waited_for_shortly() {
        let answered = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            ActError::Refused(Box::new(kube::Error::Api(Box::new(status))))
        };
        for code in [400, 403, 404, 422] {
            assert_eq!(answered(code).cause(), Cause::PlacementRefused, "{code}");
        }
        for code in [408, 429, 500, 503] {
            assert_eq!(answered(code).cause(), Cause::PlanUnwritten, "{code}");
        }
        assert_eq!(ActError::Taken.cause(), Cause::PlacementRefused);
        assert_eq!(ActError::Stale.cause(), Cause::PlanUnwritten);
        assert_eq!(ActError::Unanswered(String::new()).cause(), Cause::PlanUnwritten);
        let mut last: Option<Setback> = None;
        for pause in [1, 2, 4, 5, 5] {
            let next =
                Setback::after(last.as_ref(), Cause::PlanUnwritten, "silence".to_owned(), Some(1), Duration::ZERO);
            assert_eq!(next.until.as_secs(), pause);
            last = Some(next);
        }
    }

    #[test]
    fn pauses_grow_with_each_setback_up_to_a_bound_and_a_changed_deployment_waits_for_none() {
        let mut uptime = Duration::ZERO;
        let mut last: Option<Setback> = None;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let next = Setback::after(last.as_ref(), Cause::PlacementRefused, "no quota".to_owned(), Some(1), uptime);
            pauses.push((next.until - uptime).as_secs());
            uptime = next.until;
            last = Some(next);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let last = last.unwrap_or_else(|| unreachable!("eleven were made"));
        assert!(last.holds(Some(1), uptime - Duration::from_secs(1)));
        assert!(!last.holds(Some(1), uptime));
        assert!(!last.holds(Some(2), uptime - Duration::from_secs(1)));
    }
}
