//! Memory: what the loop knows beside the API, and may forget: setbacks, and writes that the watches have not shown yet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decide::{Action, Decision, Subject};
use super::observe::{ObjectKey, Observed};
use super::setbacks::{Cause, Setback, Setbacks};
use super::stores::{Stores, Written};

/// A write that has not been seen by then is taken for one that was undone.
const PATIENCE: Duration = Duration::from_secs(30);

/// All that is remembered from round to round.
#[derive(Default)]
pub(super) struct Memory {
    setbacks: Setbacks,
    /// Writes that have not come back, and when they were made, since the start.
    awaited: Vec<(Subject, Written, Duration)>,
    /// When the status of a placement was written last.
    written: BTreeMap<ObjectKey, Duration>,
}

// === impl Memory ===

impl Memory {
    /// Adds it to what was observed, and forgets what is there no more.
    pub(super) fn recall(&mut self, observed: &mut Observed, stores: &Stores) {
        self.setbacks.retain(|key, _| observed.deployments.contains_key(key));
        self.written.retain(|key, _| observed.placements.contains_key(key));
        let uptime = observed.uptime;
        self.awaited.retain(|(_, written, at)| uptime.saturating_sub(*at) < PATIENCE && !stores.has_seen(written));
        let deployment = |(subject, ..): &(Subject, Written, Duration)| match subject {
            Subject::Deployment(key) => Some(key.clone()),
            _ => None,
        };
        observed.behind = self.awaited.iter().filter_map(deployment).collect();
        observed.setbacks = self.setbacks.clone();
        observed.written = self.written.clone();
    }

    /// Something went wrong with a deployment; of other subjects nothing is kept.
    pub(super) fn set_back(&mut self, observed: &Observed, subject: &Subject, cause: Cause, words: String) {
        let Subject::Deployment(key) = subject else { return };
        let generation = observed.deployments.get(key).and_then(|deployment| deployment.metadata.generation);
        let setback = Setback::after(self.setbacks.get(key), cause, words, generation, observed.uptime);
        self.setbacks.insert(key.clone(), setback);
    }

    /// Forgets the setbacks of what was decided upon, or is about to be written, without another one.
    pub(super) fn forgive(&mut self, observed: &Observed, decision: &Decision) {
        let plans = |key: &ObjectKey| {
            let own = decision.courses.iter().filter(|course| course.subject == Subject::Deployment(key.clone()));
            own.flat_map(|course| &course.actions).any(|action| matches!(action, Action::CreatePlacement(_)))
        };
        self.setbacks.retain(|key, setback| {
            let generation = observed.deployments.get(key).and_then(|deployment| deployment.metadata.generation);
            let is_held = setback.holds(generation, observed.uptime);
            let is_over = match setback.cause {
                Cause::DecisionFailed => !decision.failed.contains_key(&Subject::Deployment(key.clone())),
                // While it tries again it keeps the count; where it needs no plan any more there is nothing to count.
                Cause::PlacementRefused | Cause::PlanUnwritten => !plans(key) && !is_held,
            };
            is_held || !is_over
        });
    }

    /// The course of a subject was followed.
    pub(super) fn note_written(&mut self, subject: &Subject, uptime: Duration) {
        if let Subject::Placement(key) = subject {
            self.written.insert(key.clone(), uptime);
        }
    }

    pub(super) fn await_all(&mut self, written: Vec<(Subject, Written)>, uptime: Duration) {
        self.awaited.extend(written.into_iter().map(|(subject, written)| (subject, written, uptime)));
    }
}
