//! Failures: what went wrong on a phone, remembered in its status, so that plans go around it for a while that grows. Pure.
//!
//! A phone that could not load a model is not asked for that model again so soon; two phones that cannot reach each other are not put
//! beside each other; a phone that leaves often counts as slower than it is. Each is forgotten when it succeeds, or with time, when the
//! agent is started anew, or when a person says so.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use polyphony_api::phone::{Failure, FailureReason, PhoneStatus};
use polyphony_api::segment_placement::Phase;
use polyphony_api::{Phone, SegmentPlacement, condition};
use polyphony_protocol::hub::SegmentPhase;

use super::class;
use super::elapsed::{seconds_since, whole_seconds};
use super::observe::{Health, Observed, PhoneSeen};
use super::power::WITHDRAWN;
use crate::models::Progress;

/// The first pause, and how often it doubles at most: half an hour in the end.
const FIRST_PAUSE_SECONDS: i64 = 15;
const MOST_DOUBLINGS: u32 = 7;
/// Failures that a phone's status holds; the oldest goes first, links before models.
const MAX_FAILURES: usize = 16;
/// Characters of an agent's words that are kept.
const MAX_MESSAGE: usize = 240;
/// Departures that are counted, and how long a phone has to stay for one of them to be forgotten.
const MAX_DEPARTURES: u32 = 8;
const DEPARTURE_SECONDS: i64 = 3600;
/// The first departure of late is held against nobody: agents are updated, and phones carried about. By each further one a phone counts
/// as slower by this part, and as so many times slower at most.
const SLOWER_BY: f64 = 0.25;
const SLOWEST: f64 = 2.0;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of<'a> {
    /// A segment of the model with this manifest.
    Model(&'a str),
    /// The link to this phone.
    Peer(&'a str),
    /// The phone, which left.
    Itself,
}

/// Brings the failures in a phone's status up to date with what it says now. `status` is still that of before in its conditions.
pub fn remember(status: &mut PhoneStatus, observed: &Observed, phone: &str, seen: &PhoneSeen) {
    let now = observed.now;
    if let Some(join) = seen.join.as_ref().filter(|join| !join.instance.is_empty()) {
        let is_new = status.agent_instance.as_ref().is_some_and(|known| *known != join.instance);
        let is_known = status.agent_instance.as_ref() == Some(&join.instance);
        let gone = condition::find(&status.conditions, "Ready").filter(|ready| ready.reason == "Gone");
        if is_new {
            // It has died in a load for the last time when a load succeeds, and left for the last time when it stays, not when it is there.
            let stays = [FailureReason::EndedInLoad, FailureReason::Left];
            status.failures.retain(|failure| stays.contains(&failure.reason));
        } else if let Some(gone) = gone.filter(|_| is_known && observed.health(phone).takes_segments()) {
            // The same life is back: its connection had ended, not the agent.
            let since = gone.last_transition_time.0;
            let has_ended = |failure: &Failure| failure.reason == FailureReason::EndedInLoad;
            status.failures.retain(|failure| !has_ended(failure) || failure.last_failure_time.0 < since);
        }
        status.agent_instance = Some(join.instance.clone());
    }
    let own = || observed.placements.values().filter(|placement| placement.spec.phone == phone);
    let phase = |placement: &SegmentPlacement| observed.report_of(placement).map(|report| report.phase);
    for placement in own() {
        let of = Of::Model(&placement.spec.manifest_digest);
        let written = placement.status.as_ref().map(|status| status.phase).unwrap_or_default();
        if let Some(report) = observed.report_of(placement)
            && report.phase == SegmentPhase::Failed
            && written != Phase::Failed
            // The phone has not failed, but one of its backends: it goes on with another.
            && seen.fault_of(class::numerics(&placement.spec.numerics_class)).is_none()
        {
            note(status, of, FailureReason::LoadFailed, report.message.as_deref(), observed);
        }
    }
    let has_failed =
        |digest: &str| own().any(|one| one.spec.manifest_digest == digest && phase(one) == Some(SegmentPhase::Failed));
    let has_loaded = |digest: &str| {
        let is_loaded = |placement: &&std::sync::Arc<SegmentPlacement>| {
            matches!(phase(placement), Some(SegmentPhase::Ready | SegmentPhase::Connecting))
        };
        own().filter(|one| one.spec.manifest_digest == digest).any(|one| is_loaded(&one))
    };
    // Whatever lay between: a silence, or a start of the controller.
    let was_there = condition::find(&status.conditions, "Ready").is_some_and(|ready| ready.status != "False");
    if was_there && observed.health(phone) == Health::Gone {
        let is_loading = |placement: &&std::sync::Arc<SegmentPlacement>| {
            placement.status.as_ref().is_some_and(|status| status.phase == Phase::Loading)
        };
        for placement in own().filter(is_loading) {
            let words = Some("its agent ended while it loaded this model, for want of memory perhaps");
            note(status, Of::Model(&placement.spec.manifest_digest), FailureReason::EndedInLoad, words, observed);
        }
    }
    if leaves(status, observed, phone, seen) {
        let words = Some(observed.health(phone).story());
        note(status, Of::Itself, FailureReason::Left, words, observed);
    }
    if let Some(heartbeat) = &seen.heartbeat {
        for down in &heartbeat.links_down {
            let of = Of::Peer(&down.peer);
            // Whoever is gone is no failed link; and one that stays down is noted as often as it would be tried.
            let is_there = down.peer != phone && observed.health(&down.peer).takes_segments();
            let is_held = find(&status.failures, of).is_some_and(|failure| is_held(failure, now));
            if is_there && !is_held {
                note(status, of, FailureReason::LinkDown, Some(&down.reason), observed);
            }
        }
        let is_up = |peer: &str| {
            heartbeat.links.iter().any(|link| link.peer == peer)
                && heartbeat.links_down.iter().all(|down| down.peer != peer)
        };
        status.failures.retain(|failure| failure.peer.as_deref().is_none_or(|peer| !is_up(peer)));
    }
    status.failures.retain(|failure| {
        let is_mended =
            failure.manifest_digest.as_deref().is_some_and(|digest| has_loaded(digest) && !has_failed(digest));
        let is_past = failure.reason == FailureReason::Left && departures(failure, now) == 0;
        !is_mended && !is_past && !is_obsolete(observed, failure)
    });
}

/// Whether the phone is lost now and was not when its status was written last. Whoever was to be drained, or has said that it
/// takes no part, may go.
fn leaves(status: &PhoneStatus, observed: &Observed, phone: &str, seen: &PhoneSeen) -> bool {
    let Some(ready) = condition::find(&status.conditions, "Ready") else { return false };
    let since = ready.last_transition_time.0;
    let noted = find(&status.failures, Of::Itself).map(|failure| failure.last_failure_time.0);
    let was_there = match ready.status.as_str() {
        "True" => true,
        // It was silent, which is no departure before the grace period is over; then it is one.
        "Unknown" => since <= observed.now && noted.is_none_or(|noted| noted < since),
        _ => false,
    };
    let has_withdrawn = condition::is_true(&status.conditions, WITHDRAWN);
    let may_go = has_withdrawn || seen.object.as_ref().is_none_or(|object| object.spec.drain);
    was_there && !may_go && observed.health(phone).is_lost()
}

/// Departures that are not forgotten yet.
fn departures(failure: &Failure, now: Timestamp) -> u32 {
    let stayed = seconds_since(failure.last_failure_time.0, now).unwrap_or(0) / DEPARTURE_SECONDS;
    failure.count.saturating_sub(u32::try_from(stayed).unwrap_or(u32::MAX))
}

/// Whether nobody can ask for the same again: the model or the peer is there no more.
fn is_obsolete(observed: &Observed, failure: &Failure) -> bool {
    let is_unknown_peer = failure.peer.as_ref().is_some_and(|peer| !observed.phones.contains_key(peer));
    let is_unknown_model = failure.manifest_digest.as_ref().is_some_and(|digest| {
        let may_be = |progress: &Option<Progress>| match progress {
            Some(Progress::Resolved(resolved)) => resolved.digest == *digest,
            Some(Progress::Refused(_)) => false,
            Some(
                Progress::Verifying | Progress::Stalled { .. } | Progress::Fetching { .. } | Progress::Named { .. },
            )
            | None => true,
        };
        let is_placed = || observed.placements.values().any(|placement| placement.spec.manifest_digest == *digest);
        !observed.models.values().any(|seen| may_be(&seen.progress)) && !is_placed()
    });
    is_unknown_peer || is_unknown_model
}

fn note(status: &mut PhoneStatus, of: Of<'_>, reason: FailureReason, words: Option<&str>, observed: &Observed) {
    let count = find(&status.failures, of).map_or(1, |failure| match of {
        Of::Itself => (departures(failure, observed.now) + 1).min(MAX_DEPARTURES),
        Of::Model(_) | Of::Peer(_) => failure.count.saturating_add(1),
    });
    status.failures.retain(|failure| !is_of(failure, of));
    if !make_room(&mut status.failures, reason, observed.now) {
        return;
    }
    let (peer, manifest_digest) = match of {
        Of::Peer(peer) => (Some(peer.to_owned()), None),
        Of::Model(digest) => (None, Some(digest.to_owned())),
        Of::Itself => (None, None),
    };
    let message = words.map(|words| words.chars().take(MAX_MESSAGE).collect());
    let last_failure_time = whole_seconds(observed.now);
    status.failures.insert(0, Failure { peer, manifest_digest, reason, message, count, last_failure_time });
}

/// Makes room for one more; says whether there is some. Links that are down are told anew in every heartbeat, so they go first, and
/// one of them takes no place but that of another whose pause is over. Departures stay.
fn make_room(failures: &mut Vec<Failure>, reason: FailureReason, now: Timestamp) -> bool {
    let is_link = |failure: &Failure| failure.reason == FailureReason::LinkDown;
    while failures.len() >= MAX_FAILURES {
        let oldest = match reason {
            FailureReason::LinkDown => failures.iter().rposition(|failure| is_link(failure) && !is_held(failure, now)),
            _ => {
                let may_go = |failure: &Failure| failure.reason != FailureReason::Left;
                failures.iter().rposition(is_link).or_else(|| failures.iter().rposition(may_go))
            }
        };
        let Some(oldest) = oldest else { return false };
        failures.remove(oldest);
    }
    true
}

fn find<'a>(failures: &'a [Failure], of: Of<'_>) -> Option<&'a Failure> {
    failures.iter().find(|failure| is_of(failure, of))
}

fn is_of(failure: &Failure, of: Of<'_>) -> bool {
    match of {
        Of::Peer(peer) => failure.peer.as_deref() == Some(peer),
        Of::Model(digest) => failure.manifest_digest.as_deref() == Some(digest),
        Of::Itself => failure.reason == FailureReason::Left,
    }
}

/// How long plans go around what has failed so often in a row.
fn pause_seconds(count: u32) -> i64 {
    FIRST_PAUSE_SECONDS << count.saturating_sub(1).min(MOST_DOUBLINGS)
}

fn is_held(failure: &Failure, now: Timestamp) -> bool {
    seconds_since(failure.last_failure_time.0, now).is_some_and(|age| age < pause_seconds(failure.count))
}

/// The failure for which plans keep this model off the phone now.
pub fn of_model<'a>(phone: &'a Phone, manifest_digest: &str, now: Timestamp) -> Option<&'a Failure> {
    find(&phone.status.as_ref()?.failures, Of::Model(manifest_digest)).filter(|failure| is_held(failure, now))
}

/// How many times slower than it is a phone counts in plans, for having left often of late.
pub fn slowness(status: &PhoneStatus, now: Timestamp) -> f64 {
    let n_departures = find(&status.failures, Of::Itself).map_or(0, |failure| departures(failure, now));
    (1.0 + SLOWER_BY * f64::from(n_departures.saturating_sub(1))).min(SLOWEST)
}

/// Pairs of phones that no plan puts beside each other now, in both orders, with the words of whoever could not reach the other.
pub fn links_down(observed: &Observed) -> BTreeMap<(&str, &str), &str> {
    let mut down = BTreeMap::new();
    let mut add = |from, to, why| {
        down.entry((to, from)).or_insert(why);
        down.insert((from, to), why);
    };
    for (phone, seen) in &observed.phones {
        let status = seen.object.as_ref().and_then(|object| object.status.as_ref());
        for failure in status.into_iter().flat_map(|status| &status.failures) {
            if let Some(peer) = failure.peer.as_deref().filter(|_| is_held(failure, observed.now)) {
                add(phone.as_str(), peer, failure.message.as_deref().unwrap_or("no connection came about"));
            }
        }
        let said = seen.heartbeat.iter().flat_map(|heartbeat| &heartbeat.links_down);
        for one in said.filter(|one| observed.health(&one.peer).takes_segments()) {
            add(phone.as_str(), one.peer.as_str(), one.reason.as_str());
        }
    }
    down
}
