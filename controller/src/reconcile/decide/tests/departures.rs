//! Tables of decisions: phones that leave often, and how others are preferred to them.
#![allow(clippy::unwrap_used)]

use polyphony_api::phone::{Failure, FailureReason};
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{World, key};
use crate::models::Progress;

const HOUR: i64 = 3600;

/// Two equal phones, of which `a` has left so often, and a deployment that is still to be planned on one of them.
fn left(n_departures: u32) -> World {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.replicas = 0);
    world.settle();
    for _ in 0..n_departures {
        world.lose("a");
        world.settle();
        world.wait(60);
        world.join("a", 300);
        world.settle();
    }
    world
}

fn planned(world: &mut World) -> Vec<String> {
    world.edit_deployment(|deployment| deployment.spec.replicas = 1);
    world.settle();
    world.generations()
}

#[test]
fn another_phone_is_preferred_to_one_that_leaves_often_and_the_first_departure_is_held_against_nobody() {
    for (n_departures, expected) in [(0, "g1: a"), (1, "g1: a"), (2, "g1: b"), (20, "g1: b")] {
        let mut world = left(n_departures);
        assert_eq!(world.departures("a"), n_departures.min(8), "as often as it left, up to a bound");
        assert_eq!(planned(&mut world), [expected], "{n_departures} departures");
    }
}

#[test]
fn a_departure_is_forgotten_with_each_hour_that_the_phone_stays() {
    for (hours, expected, is_noted) in [(1, "g1: b", true), (2, "g1: a", true), (3, "g1: a", false)] {
        let mut world = left(3);
        world.wait(hours * HOUR);
        world.settle();
        assert_eq!(world.departures("a") > 0, is_noted, "{hours} h");
        assert_eq!(planned(&mut world), [expected], "{hours} h");
    }
    // What is forgotten counts no more when it leaves again.
    let mut world = left(3);
    world.wait(HOUR);
    world.lose("a");
    world.settle();
    assert_eq!(world.departures("a"), 3);
}

#[test]
fn silence_is_a_departure_when_the_grace_period_is_over_and_one_is_counted_once() {
    let mut world = left(0);
    for (seconds, expected) in [(6, 0), (29, 0), (30, 1), (31, 1)] {
        world.silence("a", seconds);
        world.wait(1);
        world.settle();
        assert_eq!(world.departures("a"), expected, "{seconds} s");
    }
    // The controller dies; after its start the phone is awaited, and then gone.
    world.restart();
    world.settle();
    world.observed.uptime = world.observed.settings.startup_grace;
    for _ in 0..3 {
        world.wait(1);
        world.settle();
    }
    assert_eq!(world.departures("a"), 1);
    // It is back in another life of its agent, which does not make it a phone that stays.
    world.join("a", 300);
    world.phone("a").join.as_mut().unwrap().instance = "2".into();
    world.settle();
    assert_eq!(world.departures("a"), 1);
}

#[test]
fn whoever_was_to_be_drained_may_go() {
    let mut world = left(0);
    world.edit_phone("a", |phone| phone.spec.drain = true);
    world.settle();
    world.lose("a");
    world.settle();
    assert_eq!(world.departures("a"), 0);
}

#[test]
fn what_is_expected_of_a_phone_that_leaves_often_is_what_it_does() {
    let of = |n_departures| {
        let mut world = left(n_departures);
        world.edit_phone("b", |phone| phone.spec.unschedulable = true);
        assert_eq!(planned(&mut world), ["g1: a"], "it is better than none");
        world.report(SegmentPhase::Ready);
        world.settle();
        let spec = world.generation(1)[0].spec.clone();
        let predicted = world.observed.deployments[&key("d")].status.as_ref().unwrap().predicted_tokens_per_second;
        (spec.predicted_step_microseconds, spec.planned_layer_microseconds, predicted)
    };
    assert_eq!(of(5), of(0));
}

#[test]
fn departures_stay_when_other_failures_want_their_place() {
    let mut world = left(2);
    world.edit_phone("b", |phone| phone.spec.unschedulable = true);
    assert_eq!(planned(&mut world), ["g1: a"]);
    world.edit_phone("a", |phone| {
        let failures = &mut phone.status.as_mut().unwrap().failures;
        let other = |n: usize| Failure {
            manifest_digest: Some(n.to_string()),
            reason: FailureReason::LoadFailed,
            ..failures[0].clone()
        };
        let others: Vec<Failure> = (0..15).map(other).collect();
        failures.splice(0..0, others);
    });
    // Models that nobody knows are obsolete, unless one is still being read.
    world.observed.models.get_mut(&key("m")).unwrap().progress = Some(Progress::Verifying);
    world.report(SegmentPhase::Failed);
    world.settle();
    let status = world.phone("a").object.as_ref().unwrap().status.clone().unwrap();
    let reasons: Vec<_> = status.failures.iter().map(|failure| failure.reason).collect();
    assert_eq!((reasons.len(), reasons[15]), (16, FailureReason::Left), "{reasons:?}");
    assert_eq!(status.failures[0].message.as_deref(), Some("no memory"), "and the news is there");
}
