//! Decide: what to do about what was observed. Pure: no clock, no randomness, no network.

pub mod balance;
mod models;
mod phones;
mod placements;
pub mod replicas;
pub mod story;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use polyphony_api::{InferenceDeploymentStatus, ModelStatus, PhoneStatus, SegmentPlacement, SegmentPlacementStatus};
use polyphony_placement::{Infeasible, Plan, Problem, Strategy};

use super::observe::{ObjectKey, Observed};
use super::status;
use crate::models::Wanted;
pub use story::{Severity, Story};

/// The planner as a function; the reconcile loop passes one that remembers what it was asked.
pub type Planner<'a> = &'a dyn Fn(Strategy, &Problem) -> Result<Plan, Infeasible>;

/// One thing to do. Whoever carries it out has no choice left.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    CreatePhone {
        name: String,
    },
    SetPhoneStatus {
        name: String,
        status: PhoneStatus,
    },
    RenewLease {
        phone: String,
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
    /// Its kind in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreatePhone { .. } => "create_phone",
            Self::SetPhoneStatus { .. } => "set_phone_status",
            Self::RenewLease { .. } => "renew_lease",
            Self::CutLink { .. } => "cut_link",
            Self::ResolveModel(_) => "resolve_model",
            Self::SetModelStatus { .. } => "set_model_status",
            Self::SetPlacementStatus { .. } => "set_placement_status",
            Self::SetDeploymentStatus { .. } => "set_deployment_status",
            Self::CreatePlacement(_) => "create_placement",
            Self::DeletePlacement { .. } => "delete_placement",
            Self::ReleasePlacement { .. } => "release_placement",
            Self::Tell(_) => "tell",
        }
    }
}

/// What to do, in this order.
pub fn decide(observed: &Observed) -> Vec<Action> {
    decide_with(observed, &polyphony_placement::plan_by)
}

/// As [`decide`], with a planner that remembers its answers.
pub fn decide_with(observed: &Observed, planner: Planner<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    phones::decide(observed, &mut actions);
    models::decide(observed, &mut actions);
    placements::decide(observed, &mut actions);
    let outcomes = replicas::decide(observed, planner, &mut actions);
    status::decide(observed, &outcomes, &mut actions);
    without_the_dropped(actions)
}

/// A placement that goes at once needs no status any more.
fn without_the_dropped(actions: Vec<Action>) -> Vec<Action> {
    let dropped: std::collections::BTreeSet<ObjectKey> = actions
        .iter()
        .filter_map(|action| match action {
            Action::ReleasePlacement { key, .. } => Some(key.clone()),
            _ => None,
        })
        .collect();
    let is_kept = |action: &Action| !matches!(action, Action::SetPlacementStatus { key, .. } if dropped.contains(key));
    actions.into_iter().filter(is_kept).collect()
}

/// The time of conditions: whole seconds, as Kubernetes writes them.
pub(super) fn condition_time(observed: &Observed) -> Time {
    let seconds = observed.now.as_second();
    Time(k8s_openapi::jiff::Timestamp::from_second(seconds).expect("the whole seconds of a timestamp are one"))
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
