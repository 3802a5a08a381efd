//! Tables of decisions: a first plan, and none.
#![allow(clippy::unwrap_used)]

use polyphony_api::InferenceDeploymentSpec;
use polyphony_api::condition;
use polyphony_api::inference_deployment::Strategy;
use polyphony_protocol::hub::{SegmentPhase, Way};

use super::super::fixtures::{World, key};
use super::super::{Action, decide};
use super::three_phones;
use crate::hub::assignments;
use crate::routes;

#[test]
fn a_deployment_is_planned_over_phones_that_together_hold_it() {
    let mut world = three_phones();
    let actions = world.settle();
    assert!(actions.iter().all(|action| matches!(action, Action::CreatePlacement(_))), "{actions:?}");
    assert_eq!(actions.len(), 2, "two phones are enough, and a third makes the ring slower");
    assert!(world.has_told("Planned"));
    assert_eq!(world.condition("Available"), "False Loading");
    assert_eq!(world.condition("Progressing"), "True Loading");
    let status = world.observed.deployments[&key("d")].status.clone().unwrap();
    assert_eq!((status.replicas, status.ready_replicas, status.phones), (1, 0, Some(2)));
    assert_eq!(status.url.as_deref(), Some("http://127.0.0.1:8080/v1"));
}

#[test]
fn a_deployment_is_available_when_every_segment_is_ready() {
    let mut world = three_phones();
    world.settle();
    world.report(SegmentPhase::Connecting);
    world.settle();
    assert_eq!(world.condition("Available"), "False Loading");
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.condition("Progressing"), "False Complete");
    assert!(world.has_told("SegmentReady") && world.has_told("Available"));
    let table = routes::table(&world.observed);
    assert_eq!(table.deployments["d"].rings.len(), 1);
    assert_eq!(table.deployments["d"].rings[0].phones.len(), 2);
}

#[test]
fn a_plan_that_still_works_is_left_alone() {
    let mut world = three_phones().serving();
    // A better phone joins, one of the ring is cordoned, and time goes by.
    world.join("d", 500);
    world.edit_phone("a", |phone| phone.spec.unschedulable = true);
    world.edit_phone("b", |phone| phone.spec.unschedulable = true);
    let actions = world.settle();
    assert_eq!(actions, vec![], "nothing to plan");
    assert_eq!(world.condition("Available"), "True Serving");
}

#[test]
fn an_infeasible_deployment_says_what_is_short() {
    let mut world = World::new().with_phones(&[40]).with_deployment(|_| ());
    world.settle();
    assert_eq!(world.condition("Available"), "False InsufficientMemory");
    let message = world.message("Available");
    assert!(message.contains("short") && message.contains("MiB"), "{message}");
    assert!(world.has_told("InsufficientMemory"));
    world.told.clear();
    world.wait(5);
    world.settle();
    assert_eq!(world.told, vec![], "the same shortfall is told once");
    world.join("b", 60);
    world.settle();
    assert_eq!(world.generations(), vec!["g1: a b"], "it is tried again when phones change");
}

#[test]
fn without_phones_a_person_is_told_to_join_some() {
    let mut world = World::new().with_deployment(|_| ());
    world.settle();
    assert_eq!(world.condition("Available"), "False NoPhones");
}

#[test]
fn phones_that_take_no_segments_are_named_with_the_reason() {
    let mut world = World::new().with_phones(&[40, 300, 300]).with_deployment(|_| ());
    world.edit_phone("b", |phone| phone.spec.unschedulable = true);
    world.edit_phone("c", |phone| phone.spec.drain = true);
    world.settle();
    assert_eq!(world.condition("Available"), "False InsufficientMemory");
    let message = world.message("Available");
    assert!(message.contains("1 phone can give"), "{message}");
    assert!(message.ends_with("; not counted: b: it is cordoned, c: it is to be drained"), "{message}");
    world.edit_phone("a", |phone| phone.spec.unschedulable = true);
    world.settle();
    assert_eq!(world.condition("Available"), "False NoUsablePhones");
    assert!(world.message("Available").contains("a: it is cordoned, b: "), "{}", world.message("Available"));
}

#[test]
fn replicas_take_phones_of_their_own() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.replicas = 2);
    world.settle();
    let mut generations = world.generations();
    generations.sort();
    assert_eq!(generations, vec!["g1: a", "g2: b"]);
    world.report(SegmentPhase::Ready);
    world.settle();
    world.edit_deployment(|deployment| deployment.spec.replicas = 3);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.condition("Degraded"), "True NoUsablePhones");
    world.edit_deployment(|deployment| deployment.spec.replicas = 1);
    world.settle();
    assert_eq!(world.generations().len(), 1);
    assert_eq!(world.condition("Degraded"), "False AsDesired");
}

#[test]
fn two_deployments_share_a_phone_within_its_memory() {
    let mut world = World::new().with_phones(&[100]).with_deployment(|_| ()).serving();
    let mut second = world.observed.deployments[&key("d")].as_ref().clone();
    second.metadata.name = Some("e".into());
    second.metadata.uid = Some("e-uid".into());
    second.status = None;
    world.observed.deployments.insert(key("e"), second.into());
    world.settle();
    let status = world.observed.deployments[&key("e")].status.clone().unwrap();
    assert_eq!(condition::find(&status.conditions, "Available").unwrap().reason, "InsufficientMemory");
    assert_eq!(world.generations(), vec!["g1: a"]);
}

#[test]
fn the_deployment_that_matters_more_chooses_first() {
    for (priority, planned) in [(0, "d"), (1, "e")] {
        let mut world = World::new().with_phones(&[100]).with_deployment(|_| ());
        let mut second = world.observed.deployments[&key("d")].as_ref().clone();
        second.metadata.name = Some("e".into());
        second.metadata.uid = Some("e-uid".into());
        second.spec.priority = priority;
        world.observed.deployments.insert(key("e"), second.into());
        world.settle();
        let of: Vec<_> = world.observed.placements.values().map(|one| one.spec.deployment.as_str()).collect();
        assert_eq!(of, vec![planned], "priority {priority}");
    }
}

#[test]
fn deployments_share_a_phone_only_when_both_allow_it() {
    for (first, second, reason) in
        [(true, true, "Loading"), (false, true, "NoUsablePhones"), (true, false, "NoUsablePhones")]
    {
        let mut world =
            World::new().with_phones(&[300]).with_deployment(|spec| spec.placement.allow_sharing = first).serving();
        let mut other = world.observed.deployments[&key("d")].as_ref().clone();
        other.metadata.name = Some("e".into());
        other.metadata.uid = Some("e-uid".into());
        other.spec.placement.allow_sharing = second;
        other.status = None;
        world.observed.deployments.insert(key("e"), other.into());
        world.settle();
        let status = world.observed.deployments[&key("e")].status.clone().unwrap();
        let found = condition::find(&status.conditions, "Available").unwrap().reason.clone();
        assert_eq!(found, reason, "{first} {second}");
    }
}

#[test]
fn a_model_that_others_run_is_planned_with_what_they_measured() {
    for (of_a, of_b, fastest) in [(0.002, 0.006, "a"), (0.006, 0.002, "b")] {
        let first = |spec: &mut InferenceDeploymentSpec| {
            spec.placement.allow_sharing = true;
            spec.placement.min_phones = 2;
        };
        let mut world = World::new().with_phones(&[300, 300]).with_deployment(first).serving();
        world.measure("a", of_a);
        world.measure("b", of_b);
        let mut second = world.observed.deployments[&key("d")].as_ref().clone();
        second.metadata.name = Some("e".into());
        second.metadata.uid = Some("e-uid".into());
        second.spec.placement.min_phones = 1;
        second.status = None;
        world.observed.deployments.insert(key("e"), second.into());
        world.settle();
        let of_second = world.observed.placements.values().filter(|one| one.spec.deployment == "e");
        assert_eq!(of_second.map(|one| one.spec.phone.as_str()).collect::<Vec<_>>(), [fastest]);
    }
}

#[test]
fn a_changed_strategy_is_planned_anew() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    assert_eq!(world.generations(), vec!["g1: a"]);
    world.edit_deployment(|one| one.spec.placement.strategy = Strategy::EqualSplit);
    world.settle();
    assert_eq!(world.generations(), vec!["g1: a", "g2: a b"]);
    let status = world.observed.deployments[&key("d")].status.clone().unwrap();
    assert_eq!(status.plan.as_ref().map(|plan| (plan.generation, plan.strategy)), Some((2, Strategy::EqualSplit)));
}

#[test]
fn a_phone_is_told_its_own_segment_and_who_its_peers_are() {
    let mut world = three_phones();
    let actions = decide(&world.observed);
    let derive = |world: &World| {
        let placements = world.observed.placements.values().map(AsRef::as_ref);
        assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys())
    };
    let made: Vec<_> = actions.iter().filter(|action| matches!(action, Action::CreatePlacement(_))).collect();
    world.carry_out(made[0]);
    assert!(derive(&world).is_empty(), "half a ring is nobody's to load");
    world.carry_out(made[1]);
    let assigned = derive(&world);
    assert_eq!(assigned.len(), 2);
    for (phone, segments) in &assigned {
        assert_eq!(segments.len(), 1);
        let own = &segments[0];
        assert_eq!(&own.peers[own.stage as usize].phone, phone);
        assert!(own.peers.iter().all(|peer| peer.ways == [Way::direct("127.0.0.1:1")]));
        assert!(own.peers.iter().all(|peer| peer.key == format!("key-{}", peer.phone)));
        assert!(own.session_groups > 0, "the plan's groups reach the phone");
    }
    let first = assigned.keys().next().cloned().unwrap();
    world.lose(&first);
    let addresses: Vec<_> = derive(&world)
        .values()
        .flat_map(|segments| segments[0].peers.clone())
        .filter(|peer| peer.phone == first)
        .collect();
    assert!(addresses.iter().all(|peer| peer.ways.is_empty()), "a phone that is gone cannot be dialled");
    world.phone(&first).object = None;
    let mut known = derive(&world).into_values().flatten().flat_map(|segment| segment.peers);
    assert!(known.all(|peer| peer.key.is_empty() == (peer.phone == first)), "and one that was deleted is nobody");
}
