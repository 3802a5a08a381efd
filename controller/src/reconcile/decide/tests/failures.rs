//! Tables of decisions: what failed is remembered where it failed, and plans go around it.
#![allow(clippy::unwrap_used)]

use polyphony_api::phone::FailureReason;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::World;
use super::three_phones;
use crate::routes;

fn digest(world: &World) -> String {
    world.observed.placements.values().next().unwrap().spec.manifest_digest.clone()
}

/// What phones report when only `good` ones can load.
fn load(good: &'static [&'static str]) -> impl Fn(&str) -> Option<SegmentPhase> {
    move |phone| Some(if good.contains(&phone) { SegmentPhase::Ready } else { SegmentPhase::Failed })
}

#[test]
fn two_phones_that_cannot_load_are_gone_around_and_not_returned_to() {
    let mut world = World::new().with_phones(&[60, 60, 60, 60]).with_deployment(|_| ());
    world.settle();
    assert_eq!(world.generations(), ["g1: a b"]);
    world.report_of(load(&["c", "d"]));
    world.settle();
    assert_eq!(world.generations(), ["g2: c d"], "at once, and with neither of the two");
    assert!(world.has_told("SegmentFailed") && world.has_told("Replanned"));
    world.report_of(load(&["c", "d"]));
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    world.told.clear();
    for _ in 0..60 {
        world.wait(10);
        world.report_of(load(&["c", "d"]));
        world.settle();
        assert_eq!(world.generations(), ["g2: c d"]);
    }
    assert!(!world.has_told("Unavailable"));
}

#[test]
fn where_no_other_phone_is_a_failed_one_is_waited_for() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
    world.settle();
    world.report(SegmentPhase::Failed);
    world.settle();
    assert_eq!(world.condition("Available"), "False SegmentFailed");
    assert!(world.message("Available").contains("no memory"), "{}", world.message("Available"));
    let digest = digest(&world);
    assert_eq!(world.failures("a"), [(digest.clone(), 1)]);
    // Its agent tries again by itself, and each failure counts.
    world.report(SegmentPhase::Loading);
    world.settle();
    world.report(SegmentPhase::Failed);
    world.settle();
    assert_eq!(world.failures("a"), [(digest, 2)]);
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.generations(), ["g1: a"], "no plan was made for it");
    assert_eq!(world.failures("a"), [], "what succeeds is forgotten");
}

#[test]
fn a_failure_keeps_a_model_off_a_phone_for_longer_each_time_or_until_a_person_forgives_it() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
    world.settle();
    world.report(SegmentPhase::Failed);
    world.settle();
    world.observed.placements.clear();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let mut seconds = 0;
        while world.generations().is_empty() {
            world.wait(1);
            seconds += 1;
            world.settle();
            assert!(!world.generations().is_empty() || world.condition("Available") == "False NoUsablePhones");
        }
        pauses.push(seconds);
        world.report(SegmentPhase::Failed);
        world.settle();
        world.observed.placements.clear();
    }
    assert_eq!(pauses, [15, 30, 60]);
    world.settle();
    assert!(world.message("Available").contains("a: it could not load this model of late"));
    world.edit_phone("a", |phone| phone.status.as_mut().unwrap().failures.clear());
    world.settle();
    assert_eq!(world.generations().len(), 1);
}

#[test]
fn a_new_life_of_the_agent_is_given_a_chance_unless_the_last_one_died_in_the_load() {
    for (dies, expected) in [(false, 0), (true, 1)] {
        let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
        world.settle();
        world.report(if dies { SegmentPhase::Loading } else { SegmentPhase::Failed });
        world.settle();
        world.lose("a");
        world.settle();
        assert_eq!(world.failures("a").len(), 1, "dies: {dies}");
        world.join("a", 300);
        world.phone("a").join.as_mut().unwrap().instance = "2".into();
        world.observed.placements.clear();
        world.settle();
        assert_eq!(world.failures("a").len(), expected, "dies: {dies}");
        assert_eq!(world.generations().len(), 1 - expected, "dies: {dies}");
    }
}

#[test]
fn an_agent_whose_connection_alone_ended_did_not_die_in_a_load() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
    world.settle();
    world.report(SegmentPhase::Loading);
    world.settle();
    world.lose("a");
    world.settle();
    assert_eq!(world.failures("a").len(), 1);
    world.wait(1);
    world.join("a", 300);
    world.settle();
    assert_eq!(world.failures("a"), [], "it is the same life");
}

#[test]
fn more_links_that_are_down_than_are_remembered_push_out_nothing_and_each_other_not() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
    world.settle();
    world.report(SegmentPhase::Failed);
    world.settle();
    let of_model = world.failures("a");
    assert_eq!(of_model.len(), 1);
    let peers: Vec<String> = (0..20).map(|idx| format!("peer-{idx}")).collect();
    for peer in &peers {
        world.join(peer, 10);
        world.set_link("a", peer, false);
    }
    world.settle();
    let first = world.failures("a");
    assert_eq!(first.len(), 16);
    for _ in 0..10 {
        world.wait(1);
        world.settle();
        assert_eq!(world.failures("a"), first, "nothing is written anew");
    }
    world.wait(60);
    world.settle();
    assert!(world.failures("a").contains(&of_model[0]), "{:?}", world.failures("a"));
}

#[test]
fn a_failed_successor_is_dropped_and_the_balancer_does_not_return_to_it() {
    let mut world = World::new().with_phones(&[100, 100]).with_deployment(|_| ()).serving();
    assert_eq!(world.generations(), ["g1: a"]);
    world.measure("a", 0.002);
    world.wait(60);
    world.settle();
    for second in 0..300 {
        world.wait(1);
        world.report_of(|phone| Some(if phone == "a" { SegmentPhase::Ready } else { SegmentPhase::Failed }));
        world.measure("a", 0.020);
        world.settle();
        assert_eq!(world.condition("Available"), "True Serving", "after {second} s");
    }
    assert!(world.has_told("Rebalanced"));
    assert!(!world.has_told("Unavailable") && !world.has_told("Replanned"), "{:?}", world.told);
    let tries = world.told.iter().filter(|(reason, _)| reason == "Rebalanced").count();
    assert!((2..=5).contains(&tries), "{tries} tries in five minutes");
}

#[test]
fn a_link_that_neither_end_can_open_is_planned_around() {
    let mut world = three_phones().serving();
    assert_eq!(world.generations(), ["g1: a b"]);
    world.set_link("b", "a", false);
    world.settle();
    assert_eq!(world.generations(), ["g1: a b"], "a ring that is ready has shown that its links are up");
    world.report(SegmentPhase::Connecting);
    world.settle();
    let generations = world.generations();
    assert!(generations.len() == 1 && generations[0].contains('c'), "{generations:?}");
    let note = world.told.iter().find(|(reason, _)| reason == "Replanned").map(|(_, note)| note.clone()).unwrap();
    assert!(note.contains("cannot reach each other: connection refused"), "{note}");
    let neighbours = world.generation(2).iter().map(|one| one.spec.phone.clone()).collect::<Vec<_>>();
    assert!(neighbours.len() == 2, "a ring of three would put the two beside each other: {neighbours:?}");
    let status = world.phone("b").object.clone().unwrap().status.clone().unwrap();
    let failure = &status.failures[0];
    assert_eq!((failure.peer.as_deref(), failure.reason, failure.count), (Some("a"), FailureReason::LinkDown, 1));
}

#[test]
fn a_broken_link_that_nothing_goes_around_is_named_and_heals() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    world.report(SegmentPhase::Connecting);
    world.set_link("a", "b", false);
    world.settle();
    assert_eq!(world.condition("Available"), "False LinkDown");
    assert_eq!(world.generations(), ["g1: a b"], "there is no other");
    world.set_link("a", "b", true);
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.failures("a"), [], "a probe got through");
    assert_eq!(routes::table(&world.observed).deployments["d"].rings.len(), 1);
}

#[test]
fn a_phone_that_is_gone_is_no_failed_link() {
    let mut world = three_phones().serving();
    world.lose("a");
    world.set_link("b", "a", false);
    world.settle();
    assert_eq!(world.failures("b"), []);
}

#[test]
fn a_phone_remembers_sixteen_failures_at_most() {
    let mut world = World::new().with_phones(&[60]).with_deployment(|_| ());
    for n in 0..20 {
        let name = format!("peer-{n:02}");
        world.join(&name, 1);
        world.set_link("a", &name, false);
    }
    world.settle();
    assert_eq!(world.failures("a").len(), 16);
}
