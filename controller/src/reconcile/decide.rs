//! Decide: what to do about what was observed. Pure: no clock, no randomness, no network.

pub mod balance;
mod models;
pub mod outcome;
mod phones;
mod placements;
mod replicas;
mod status;
pub mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polyphony_api::{InferenceDeploymentStatus, ModelStatus, PhoneStatus, SegmentPlacement, SegmentPlacementStatus};
use strum::{IntoStaticStr, VariantNames};

use super::draft::Draft;
use super::elapsed::whole_seconds;
use super::observe::{ObjectKey, Observed};
use super::panics::words_of;
use crate::models::Wanted;
pub use story::{Severity, Story};

pub use super::problem::{Planner, Question, at_once};

/// One thing to do. Whoever carries it out has no choice left.
#[derive(Clone, Debug, PartialEq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    SetPhoneStatus {
        name: String,
        status: Box<PhoneStatus>,
    },
    /// Ends a link that has been silent for too long, so that everybody sees the phone gone.
    CutLink {
        phone: String,
    },
    ResolveModel(Wanted),
    SetModelStatus {
        key: ObjectKey,
        status: ModelStatus,
    },
    SetPlacementStatus {
        key: ObjectKey,
        status: SegmentPlacementStatus,
    },
    SetDeploymentStatus {
        key: ObjectKey,
        status: Box<InferenceDeploymentStatus>,
    },
    CreatePlacement(Box<SegmentPlacement>),
    /// Deletes a placement; it stays until it is released.
    DeletePlacement {
        key: ObjectKey,
    },
    /// Takes our finalizer off a placement.
    ReleasePlacement {
        key: ObjectKey,
        finalizers_left: Vec<String>,
    },
    /// Tells people, as an Event.
    Tell(Story),
}

// === impl Action ===

impl Action {
    /// The placement that this deletes or releases: it needs no status any more.
    fn parts_with(&self) -> Option<&ObjectKey> {
        match self {
            Self::DeletePlacement { key } | Self::ReleasePlacement { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Its kind in metrics.
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

/// What is done for one object, in this order: where one action fails, those after it are left for a later round.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    pub subject: Subject,
    pub actions: Vec<Action>,
}

/// Whose course it is. Courses of different subjects do not wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Subject {
    Phone(String),
    Model(ObjectKey),
    Placement(ObjectKey),
    /// With the making and deleting of its placements.
    Deployment(ObjectKey),
}

// === impl Subject ===

impl Subject {
    /// Its kind in metrics.
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phone(name) => write!(f, "phone {name}"),
            Self::Model(key) => write!(f, "model {key}"),
            Self::Placement(key) => write!(f, "placement {key}"),
            Self::Deployment(key) => write!(f, "deployment {key}"),
        }
    }
}

/// What a round does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub courses: Vec<Course>,
    /// Whose decision broke down, and with what words. Nothing else is touched by that.
    pub failed: BTreeMap<Subject, String>,
    /// Deployments that wait for a plan: for the planner, for the plan of another replica to be written, or for one that matters more.
    pub waiting: BTreeSet<ObjectKey>,
    /// The plans that it writes, by deployment.
    pub drafts: BTreeMap<ObjectKey, Arc<Draft>>,
}

// === impl Decision ===

impl Decision {
    /// All actions, course by course.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.courses.iter().flat_map(|course| &course.actions)
    }

    /// Since when each of those that wait has waited without a break.
    pub fn waiting_since(&self, observed: &Observed) -> BTreeMap<ObjectKey, Duration> {
        let since = |key: &ObjectKey| observed.waiting.get(key).copied().unwrap_or(observed.uptime);
        self.waiting.iter().map(|key| (key.clone(), since(key))).collect()
    }

    /// Decides on one subject. What panics decides nothing, and is noted.
    fn apart<T>(&mut self, subject: Subject, work: impl FnOnce(&mut Vec<Action>) -> T) -> Result<T, String> {
        let mut actions = Vec::new();
        match catch_unwind(AssertUnwindSafe(|| work(&mut actions))) {
            Ok(value) => {
                if !actions.is_empty() {
                    self.courses.push(Course { subject, actions });
                }
                Ok(value)
            }
            Err(panic) => {
                let words = words_of(panic.as_ref());
                self.failed.insert(subject, words.clone());
                Err(words)
            }
        }
    }
}

/// What to do, in this order.
pub fn decide(observed: &Observed) -> Vec<Action> {
    decide_with(observed, &at_once).actions().cloned().collect()
}

/// As [`decide`], with a planner that remembers its answers and may still be at one, and course by course.
pub fn decide_with(observed: &Observed, planner: Planner<'_>) -> Decision {
    let mut decision = Decision::default();
    for (name, seen) in &observed.phones {
        // A failure is noted; the others are decided on all the same.
        let _ = decision.apart(Subject::Phone(name.clone()), |actions| phones::decide(observed, name, seen, actions));
    }
    for (key, seen) in &observed.models {
        let _ = decision.apart(Subject::Model(key.clone()), |actions| models::decide(observed, key, seen, actions));
    }
    for (key, placement) in &observed.placements {
        let subject = Subject::Placement(key.clone());
        let _ = decision.apart(subject, |actions| placements::farewell(observed, key, placement, actions));
    }
    let balances = replicas::decide(observed, planner, &mut decision);
    let gone: BTreeSet<ObjectKey> = decision.actions().filter_map(Action::parts_with).cloned().collect();
    for (key, placement) in observed.placements.iter().filter(|(key, _)| !gone.contains(*key)) {
        let subject = Subject::Placement(key.clone());
        let balance = balances.get(key);
        let _ = decision.apart(subject, |actions| placements::decide(observed, key, placement, balance, actions));
    }
    decision
}

fn condition_time(observed: &Observed) -> Time {
    whole_seconds(observed.now)
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
