//! Memory: what the loop knows beside the API, and may forget: setbacks, and writes that the watches have not shown yet.
//!
//! What the API answered to such a write counts until the watches show it, or until the next write of the same object.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Decision, Subject};
use super::draft::Draft;
use super::observe::{ObjectKey, Observed};
use super::setbacks::{Cause, Setback, Setbacks};
use super::stores::Stores;
use super::written::Written;

/// What the watches have not shown by then, they show no more.
const PATIENCE: Duration = Duration::from_secs(30);

/// All that is remembered from round to round.
#[derive(Default)]
pub(super) struct Memory {
    setbacks: Setbacks,
    /// Writes that have not come back.
    awaited: Vec<Awaited>,
    /// When the status of a placement was written last.
    written: BTreeMap<ObjectKey, Duration>,
    /// Since when deployments have waited for a plan.
    waiting: BTreeMap<ObjectKey, Duration>,
}

/// A write that has not come back.
struct Awaited {
    written: Written,
    /// When it was made, since the start.
    at: Duration,
}

// === impl Memory ===

impl Memory {
    /// Adds it to what was observed, and forgets what is there no more.
    pub(super) fn recall(&mut self, observed: &mut Observed, stores: &Stores) {
        self.setbacks.retain(|whose, _| observed.deployments.contains_key(&whose.deployment));
        self.written.retain(|key, _| observed.placements.contains_key(key));
        let uptime = observed.uptime;
        self.awaited.retain(|one| uptime.saturating_sub(one.at) < PATIENCE && !one.written.is_seen(stores));
        self.awaited.iter().for_each(|one| one.written.put(observed));
        observed.setbacks = self.setbacks.clone();
        observed.waiting = self.waiting.clone();
        observed.written = self.written.clone();
    }

    pub(super) fn setbacks(&self) -> &Setbacks {
        &self.setbacks
    }

    /// Something went wrong with a deployment, or with the plan of a replica of it; of other subjects nothing is kept.
    pub(super) fn set_back(
        &mut self,
        observed: &Observed,
        subject: &Subject,
        replica: Option<u32>,
        cause: Cause,
        words: String,
        draft: Option<Arc<Draft>>,
    ) {
        let Subject::Deployment(key) = subject else { return };
        let whose = cause.whose(key.clone(), replica);
        let generation = observed.deployments.get(key).and_then(|deployment| deployment.metadata.generation);
        let setback = Setback::after(self.setbacks.get(&whose), cause, words, generation, observed.uptime);
        let setback = Setback { replica, draft, ..setback };
        self.setbacks.insert(whose, setback);
    }

    /// The plan of a replica was written to its end: nothing stands against it any more.
    pub(super) fn note_plan(&mut self, subject: &Subject, replica: u32) {
        let Subject::Deployment(key) = subject else { return };
        for cause in [Cause::PlacementRefused, Cause::PlanUnwritten] {
            let whose = cause.whose(key.clone(), Some(replica));
            if self.setbacks.get(&whose).is_some_and(|setback| setback.cause == cause) {
                self.setbacks.remove(&whose);
            }
        }
    }

    /// Forgets the setbacks of what was decided upon without another one, or has not failed for long.
    pub(super) fn forgive(&mut self, observed: &Observed, decision: &Decision) {
        self.setbacks.retain(|whose, setback| {
            let deployment = observed.deployments.get(&whose.deployment);
            let generation = deployment.and_then(|deployment| deployment.metadata.generation);
            let is_over = match setback.cause {
                Cause::DecisionFailed => !decision.failed.contains_key(&Subject::Deployment(whose.deployment.clone())),
                // When it is its turn to be tried again is not known here.
                Cause::PlacementRefused | Cause::PlanUnwritten => setback.is_past(observed.uptime),
            };
            setback.holds(generation, observed.uptime) || !is_over
        });
    }

    /// The course of a subject was followed.
    pub(super) fn note_written(&mut self, subject: &Subject, uptime: Duration) {
        if let Subject::Placement(key) = subject {
            self.written.insert(key.clone(), uptime);
        }
    }

    /// Who waits for a plan after this round.
    pub(super) fn note_waiting(&mut self, observed: &Observed, decision: &Decision) {
        self.waiting = decision.waiting_since(observed);
    }

    /// A write was made in the round of that time. Of several writes of one object the last one counts.
    pub(super) fn await_one(&mut self, mut written: Written, uptime: Duration) {
        // An object that no watch has shown yet is still as new to them.
        written.is_new |= self.awaited.iter().any(|one| one.written.is_new && one.written.is_of_same(&written));
        self.awaited.retain(|one| !one.written.is_of_same(&written));
        self.awaited.push(Awaited { written, at: uptime });
    }

    /// Writes since then that have not come back.
    pub(super) fn n_unseen(&self, stores: &Stores, since: Duration) -> usize {
        self.awaited.iter().filter(|one| one.at >= since && !one.written.is_seen(stores)).count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use k8s_openapi::jiff::Timestamp;
    use kube::runtime::reflector::{self, store::Writer};
    use kube::runtime::watcher::Event;
    use polyphony_api::InferenceDeployment;
    use tokio::sync::Notify;

    use super::*;
    use crate::reconcile::observe::Settings;
    use crate::reconcile::written::Object;

    fn deployment(version: &str) -> Arc<InferenceDeployment> {
        let spec = serde_json::from_value(serde_json::json!({ "model": "m" })).unwrap();
        let mut deployment = InferenceDeployment::new("d", spec);
        deployment.metadata.namespace = Some("default".into());
        deployment.metadata.resource_version = Some(version.to_owned());
        deployment.metadata.generation = Some(1);
        Arc::new(deployment)
    }

    /// What the watches show at that second.
    fn observed(stores: &Stores, seconds: u64) -> Observed {
        let deployments = stores.deployments.state().into_iter().map(|one| (ObjectKey::of(one.as_ref()), one));
        Observed {
            now: Timestamp::UNIX_EPOCH,
            uptime: Duration::from_secs(seconds),
            settings: Settings {
                grace_period: Duration::ZERO,
                startup_grace: Duration::ZERO,
                gateway_url: String::new(),
            },
            phones: BTreeMap::new(),
            models: BTreeMap::new(),
            deployments: deployments.collect(),
            placements: BTreeMap::new(),
            sessions: BTreeMap::new(),
            readable_models: BTreeSet::new(),
            tokens_per_second: BTreeMap::new(),
            setbacks: Setbacks::new(),
            waiting: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Stores of which only that of deployments is written.
    fn stores() -> (Stores, Writer<InferenceDeployment>) {
        let (deployments, writer) = reflector::store();
        let (phones, models, placements) = (reflector::store().0, reflector::store().0, reflector::store().0);
        (Stores { phones, models, deployments, placements, changed: Arc::new(Notify::new()) }, writer)
    }

    #[test]
    fn what_the_api_said_of_a_write_counts_until_the_watches_show_it() {
        let (stores, mut watch) = stores();
        watch.apply_watcher_event(&Event::Apply(deployment("7").as_ref().clone()));
        let key = ObjectKey::new("default", "d");
        let version = |observed: &Observed| {
            observed.deployments.get(&key).and_then(|one| one.metadata.resource_version.clone()).unwrap_or_default()
        };
        let look = |memory: &mut Memory, stores: &Stores, seconds| {
            let mut observed = observed(stores, seconds);
            memory.recall(&mut observed, stores);
            version(&observed)
        };
        let written = |version: Option<&str>| Written {
            key: key.clone(),
            object: Object::Deployment(version.map(deployment)),
            is_new: false,
        };
        let mut memory = Memory::default();
        memory.await_one(written(Some("9")), Duration::ZERO);
        assert_eq!(look(&mut memory, &stores, 2), "9", "it is decided upon as it is");
        watch.apply_watcher_event(&Event::Apply(deployment("8").as_ref().clone()));
        assert_eq!(look(&mut memory, &stores, 3), "9", "the watch is still behind");
        watch.apply_watcher_event(&Event::Apply(deployment("10").as_ref().clone()));
        assert_eq!(look(&mut memory, &stores, 4), "10", "now it knows more");
        memory.await_one(written(None), Duration::from_secs(4));
        assert_eq!(look(&mut memory, &stores, 5), "", "it is gone, whatever the watch shows");
        assert_eq!(look(&mut memory, &stores, 40), "10", "but not for ever");
    }

    #[test]
    fn a_later_write_of_a_new_object_takes_the_place_of_what_the_api_said_of_it_first() {
        let (stores, _watch) = stores();
        let key = ObjectKey::new("default", "d");
        let written = |version: Option<&str>, is_new| Written {
            key: key.clone(),
            object: Object::Deployment(version.map(deployment)),
            is_new,
        };
        let second = Duration::from_secs;
        let mut memory = Memory::default();
        let mut made = BTreeMap::new();
        // The watches are silent all the while.
        for (at, version, is_new) in [(0, Some("5"), true), (1, Some("6"), false), (2, None, false)] {
            memory.await_one(written(version, is_new), second(at));
            // What the watches have never shown of a new object is not seen by its absence.
            assert_eq!(memory.n_unseen(&stores, second(at)), 1);
            let mut now = observed(&stores, at);
            memory.recall(&mut now, &stores);
            made.insert(at, now.deployments.get(&key).and_then(|one| one.metadata.resource_version.clone()));
        }
        assert_eq!(made, BTreeMap::from([(0, Some("5".into())), (1, Some("6".into())), (2, None)]));
    }

    #[test]
    fn a_replica_that_is_refused_keeps_its_count_while_another_one_is_written() {
        let (stores, mut watch) = stores();
        watch.apply_watcher_event(&Event::Apply(deployment("7").as_ref().clone()));
        let subject = Subject::Deployment(ObjectKey::new("default", "d"));
        let mut memory = Memory::default();
        let mut pauses = Vec::new();
        for seconds in [0, 1, 3] {
            let mut now = observed(&stores, seconds);
            memory.recall(&mut now, &stores);
            memory.set_back(&now, &subject, Some(1), Cause::PlacementRefused, "no quota".into(), None);
            // A round in which it is another one's turn.
            memory.note_plan(&subject, 0);
            memory.forgive(&now, &Decision::default());
            memory.recall(&mut now, &stores);
            assert_eq!(now.setbacks.len(), 1);
            pauses.extend(now.setbacks.values().map(|setback| setback.until.as_secs() - seconds));
        }
        assert_eq!(pauses, [1, 2, 4]);
        memory.note_plan(&subject, 1);
        let mut now = observed(&stores, 7);
        memory.recall(&mut now, &stores);
        assert!(now.setbacks.is_empty(), "its plan was written");
    }
}
