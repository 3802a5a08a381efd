//! Tables of decisions: the controller was killed and lives again.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::World;
use super::super::{Action, decide};
use super::three_phones;
use crate::reconcile::observe::PhoneLink;
use crate::routes;

#[test]
fn a_restart_does_not_replan() {
    let mut world = three_phones().serving();
    let before = world.generations();
    world.restart();
    let check = |world: &mut World, what: &str| {
        let actions = world.settle();
        let planned = actions.iter().any(|action| !matches!(action, Action::ResolveModel(_)));
        assert!(!planned, "{what}: {actions:?}");
        assert_eq!(world.generations(), before, "{what}");
        assert_eq!(world.condition("Available"), "True Serving", "{what}");
        assert_eq!(world.told, vec![], "{what}");
    };
    check(&mut world, "no phone is back yet");
    assert_eq!(routes::table(&world.observed).deployments["d"].rings, vec![], "nothing can be reached yet");
    world.join("a", 60);
    world.phone("a").heartbeat = None;
    check(&mut world, "one is back and has not spoken");
    for name in ["b", "c"] {
        world.join(name, 60);
    }
    world.report(SegmentPhase::Ready);
    check(&mut world, "all are back with their segments loaded");
    assert_eq!(routes::table(&world.observed).deployments["d"].rings.len(), 1);
}

#[test]
fn a_phone_that_does_not_come_back_after_a_restart_is_replaced() {
    let mut world = three_phones().serving();
    let lost = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
    world.restart();
    for name in ["a", "b", "c"].into_iter().filter(|name| *name != lost) {
        world.join(name, 60);
    }
    world.report(SegmentPhase::Ready);
    world.settle();
    assert!(world.generations()[0].starts_with("g1"));
    world.observed.uptime = Duration::from_secs(41);
    world.settle();
    assert!(
        world.generations()[0].starts_with("g2") && !world.generations()[0].contains(&lost),
        "{:?}",
        world.generations()
    );
}

#[test]
fn a_half_made_generation_is_made_anew() {
    let mut world = three_phones();
    let actions = decide(&world.observed);
    let first = actions.iter().find(|action| matches!(action, Action::CreatePlacement(_))).unwrap();
    world.carry_out(first);
    world.restart();
    world.observed.uptime = Duration::from_secs(3600);
    for name in ["a", "b", "c"] {
        world.join(name, 60);
    }
    world.settle();
    let generations = world.generations();
    assert_eq!(generations.len(), 1);
    assert!(generations[0].starts_with("g1"), "its number was never used: {generations:?}");
    let digests: std::collections::BTreeSet<_> =
        world.generation(1).iter().map(|placement| placement.spec.plan_digest.clone()).collect();
    assert_eq!(digests.len(), 1);
}

#[test]
fn an_unlinked_phone_keeps_its_last_address_until_it_is_known_to_be_gone() {
    let mut world = World::new().with_phones(&[60]);
    world.settle();
    world.phone("a").link = PhoneLink::NotYet;
    world.phone("a").join = None;
    assert_eq!(world.observed.ring_addresses().get("a").map(String::as_str), Some("127.0.0.1:1"));
    world.lose("a");
    assert_eq!(world.observed.ring_addresses().get("a"), None);
}

#[test]
fn after_a_restart_phones_that_were_there_are_waited_for_and_others_are_not() {
    for (was_there, reason) in [(true, "WaitingForPhones"), (false, "InsufficientMemory")] {
        let mut world = World::new().with_phones(&[40, 60]);
        world.settle();
        if !was_there {
            world.lose("b");
            world.settle();
        }
        world = world.with_deployment(|_| ());
        world.restart();
        world.join("a", 40);
        world.settle();
        assert_eq!(world.condition("Available"), format!("False {reason}"));
    }
}
