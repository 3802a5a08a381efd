//! Placements: what their phones say of them, their draining, and those that nobody owns any more. Pure.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use polyphony_api::condition::{self, Statement};
use polyphony_api::segment_placement::Phase;
use polyphony_api::{DRAIN_FINALIZER, SegmentPlacement, SegmentPlacementStatus};
use polyphony_protocol::hub::SegmentPhase;

use super::phones::measured::{may_write, write_times};
use super::story::{Severity, tell};
use super::{Action, condition_time};
use crate::hub::assignments::{owner, ring_of};
use crate::reconcile::generations::phase_of;
use crate::reconcile::observe::{Health, ObjectKey, Observed};

/// Sessions that have not ended by then are broken off.
const DRAIN_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// The number of sessions is written this often, where nothing else is news.
const SESSIONS_EVERY: Duration = Duration::from_secs(30);

/// Sends a placement away that nobody wants, and lets one go that has drained.
pub(super) fn farewell(observed: &Observed, key: &ObjectKey, placement: &SegmentPlacement, actions: &mut Vec<Action>) {
    let is_leaving = placement.metadata.deletion_timestamp.is_some();
    if !is_leaving && is_orphan(observed, key, placement) {
        actions.push(Action::DeletePlacement { key: key.clone() });
    }
    if is_leaving && has_finalizer(placement) && is_drained(observed, placement) {
        actions.push(release(key, placement));
    }
}

/// Writes what its phone says of it, and on a head what the balancer says of its ring.
pub(super) fn decide(
    observed: &Observed,
    key: &ObjectKey,
    placement: &SegmentPlacement,
    balance: Option<&Statement>,
    actions: &mut Vec<Action>,
) {
    let before = placement.status.clone().unwrap_or_default();
    let mut after = status_of(observed, placement, &before);
    if let Some(balance) = balance {
        condition::say(&mut after.conditions, balance, None, &condition_time(observed));
    }
    // How many sessions there are changes with every request: alone it is told now and then.
    let news = SegmentPlacementStatus { sessions: before.sessions, ..after.clone() };
    let is_due = || observed.written.get(key).is_none_or(|at| observed.uptime.saturating_sub(*at) >= SESSIONS_EVERY);
    if news != before || placement.status.is_none() || (after != before && is_due()) {
        let stories = story_of(observed, placement, before.phase, &after);
        actions.push(Action::SetPlacementStatus { key: key.clone(), status: after });
        actions.extend(stories);
    }
}

/// What is told of a placement that goes before its status could say so.
pub(super) fn last_words(observed: &Observed, placement: &SegmentPlacement) -> Vec<Action> {
    let before = placement.status.clone().unwrap_or_default();
    let after = status_of(observed, placement, &before);
    story_of(observed, placement, before.phase, &after)
}

/// Takes our finalizer off.
pub(super) fn release(key: &ObjectKey, placement: &SegmentPlacement) -> Action {
    let finalizers_left = placement.finalizers().iter().filter(|name| *name != DRAIN_FINALIZER).cloned().collect();
    Action::ReleasePlacement { key: key.clone(), finalizers_left }
}

pub(super) fn has_finalizer(placement: &SegmentPlacement) -> bool {
    placement.finalizers().iter().any(|name| name == DRAIN_FINALIZER)
}

/// Its deployment is gone, or another one has taken its name; the API's garbage collector may be slower, or absent.
fn is_orphan(observed: &Observed, key: &ObjectKey, placement: &SegmentPlacement) -> bool {
    let deployment = observed.deployments.get(&ObjectKey::new(&key.namespace, &placement.spec.deployment));
    match (owner(placement), deployment) {
        (Some(owner), Some(deployment)) => Some(&owner.uid) != deployment.uid().as_ref(),
        (_, deployment) => deployment.is_none(),
    }
}

/// Whether nothing is left to wait for: no session, or no ring that could serve it.
fn is_drained(observed: &Observed, placement: &SegmentPlacement) -> bool {
    let ring = ring_of(placement);
    let n_sessions = observed.sessions.get(&ring).copied().unwrap_or(0);
    let is_broken = || {
        let of_ring = observed.placements.values().filter(|other| ring_of(other) == ring);
        let mut phones = of_ring.map(|other| other.spec.phone.as_str());
        phones.any(|phone| observed.health(phone).is_lost())
    };
    let is_overdue = || {
        let since = placement.metadata.deletion_timestamp.as_ref();
        since.is_some_and(|since| observed.now.duration_since(since.0) > DRAIN_DEADLINE)
    };
    n_sessions == 0 || is_broken() || is_overdue()
}

fn status_of(
    observed: &Observed,
    placement: &SegmentPlacement,
    before: &SegmentPlacementStatus,
) -> SegmentPlacementStatus {
    let mut status = before.clone();
    let phone = &placement.spec.phone;
    let health = observed.health(phone);
    status.phase = phase_of(observed, placement);
    if health.is_lost() {
        status.message = Some(format!("{phone} is lost: {}", health.story()));
    } else if let Some(report) = observed.report_of(placement) {
        status.bytes_loaded = report.bytes_loaded;
        status.bytes_total = report.bytes_total;
        status.sessions = Some(report.sessions);
        status.loaded = Some(loaded_for_people(report.bytes_loaded, report.bytes_total));
        status.message = match (report.phase, &report.message) {
            (SegmentPhase::Ready, _) => None,
            (_, Some(message)) => Some(message.clone()),
            (SegmentPhase::Connecting, None) => Some("loaded; waits for its neighbours".to_owned()),
            (SegmentPhase::Loading, None) => None,
            (SegmentPhase::Failed, None) => Some("its agent does not say why: see its log".to_owned()),
        };
        let object = observed.phones.get(phone).and_then(|seen| seen.object.as_ref());
        // The first is told at once; then they are written with those of the phone.
        if status.milliseconds_per_layer.is_none() || object.is_none_or(|object| may_write(observed, object)) {
            write_times(&mut status, report);
        }
    } else if owner(placement).is_none() {
        let why =
            "it was not made by the controller, so no phone takes it up: delete it, and apply an InferenceDeployment";
        status.message = Some(why.to_owned());
    } else if health != Health::Awaited && status.phase == Phase::Pending {
        status.message = Some(format!("{phone} has not taken it up yet"));
    }
    if placement.metadata.deletion_timestamp.is_some() {
        status.phase = Phase::Draining;
    }
    let is_ready = status.phase == Phase::Ready;
    let statement = Statement {
        type_: "Ready",
        status: is_ready.into(),
        reason: format!("{:?}", status.phase),
        message: status.message.clone().unwrap_or_default(),
    };
    condition::set(&mut status.conditions, &statement, None, &condition_time(observed));
    status
}

/// Whole MiB, or KiB of what is small: `31 of 64 MiB`.
fn loaded_for_people(loaded: u64, total: u64) -> String {
    let (unit, shift) = if total >= 10 << 20 { ("MiB", 20) } else { ("KiB", 10) };
    format!("{} of {} {unit}", loaded.div_ceil(1 << shift), total.div_ceil(1 << shift))
}

/// The steps of a segment's life that its deployment's events tell.
fn story_of(
    observed: &Observed,
    placement: &SegmentPlacement,
    before: Phase,
    after: &SegmentPlacementStatus,
) -> Vec<Action> {
    let spec = &placement.spec;
    let key = ObjectKey::new(placement.namespace().unwrap_or_default(), &spec.deployment);
    let Some(deployment) = observed.deployments.get(&key) else {
        return Vec::new();
    };
    if before == after.phase {
        return Vec::new();
    }
    let (phone, holds) = (&spec.phone, &spec.holds.summary);
    let place = format!("generation {} of replica {}", spec.plan_generation, spec.replica);
    let message = || after.message.clone().unwrap_or_default();
    let (severity, reason, note) = match after.phase {
        Phase::Ready => {
            let loaded = after.loaded.as_deref().unwrap_or("its weights");
            (Severity::Normal, "SegmentReady", format!("{phone} holds {holds} of {place}: {loaded} loaded"))
        }
        Phase::Failed if observed.health(phone).is_lost() => {
            (Severity::Warning, "PhoneLost", format!("{}; it held {holds} of {place}", message()))
        }
        Phase::Failed => {
            (Severity::Warning, "SegmentFailed", format!("{phone} cannot hold {holds} of {place}: {}", message()))
        }
        Phase::Pending | Phase::Loading | Phase::Draining => return Vec::new(),
    };
    vec![tell(deployment.as_ref(), severity, reason, note.clone()), tell(placement, severity, reason, note)]
}
