//! Tables of decisions: what happens in which world.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use polyphony_api::condition;
use polyphony_api::segment_placement::Phase;
use polyphony_protocol::hub::SegmentPhase;

use super::fixtures::{World, key};
use super::{Action, decide};
use crate::reconcile::observe::PhoneLink;
use crate::routes;

/// Three phones of which two hold the model, and one deployment.
fn three_phones() -> World {
    World::new().with_phones(&[60, 60, 60]).with_deployment(|_| ())
}

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
fn a_lost_phone_moves_its_layers() {
    let mut world = three_phones().serving();
    let before = world.generations();
    let lost = before[0].split(' ').nth(1).unwrap().to_owned();
    world.lose(&lost);
    world.settle();
    let after = world.generations();
    assert_eq!(after.len(), 1, "the broken generation is gone at once: {after:?}");
    assert!(after[0].starts_with("g2: ") && !after[0].contains(&lost), "{after:?}");
    for reason in ["PhoneLost", "Replanned", "Unavailable"] {
        assert!(world.has_told(reason), "{reason} is missing in {:?}", world.told);
    }
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
}

#[test]
fn a_broken_generation_makes_room_before_the_next_is_made() {
    let mut world = three_phones().serving();
    let lost = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
    world.lose(&lost);
    let actions = decide(&world.observed);
    let last_release = actions.iter().rposition(|action| matches!(action, Action::DeletePlacement { .. })).unwrap();
    let first_create = actions.iter().position(|action| matches!(action, Action::CreatePlacement(_))).unwrap();
    assert!(last_release < first_create);
}

#[test]
fn silence_is_suspected_then_not_ready_then_lost() {
    let table = [
        (0, "True", "True", 1, false),
        (3, "True", "True", 1, false),
        (6, "Unknown", "False", 1, false),
        (29, "Unknown", "False", 1, false),
        (31, "Unknown", "False", 2, true),
    ];
    for (seconds, ready, reachable, generation, cut) in table {
        let mut world = World::new().with_phones(&[60, 60, 60]).with_deployment(|_| ()).serving();
        let name = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
        world.silence(&name, seconds);
        let actions = decide(&world.observed);
        for action in &actions {
            if !matches!(action, Action::CutLink { .. }) {
                world.carry_out(action);
            }
        }
        assert_eq!(actions.contains(&Action::CutLink { phone: name.clone() }), cut, "after {seconds} s");
        let phone = world.observed.phones[&name].object.clone().unwrap();
        let status = |type_| condition::find(&phone.status.as_ref().unwrap().conditions, type_).unwrap().status.clone();
        assert_eq!((status("Ready").as_str(), status("Reachable").as_str()), (ready, reachable), "after {seconds} s");
        assert!(world.generations().last().unwrap().starts_with(&format!("g{generation}:")), "after {seconds} s: {:?}", world.generations());
    }
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
fn the_old_generation_goes_when_the_new_one_is_ready() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.settle();
    assert_eq!(world.generations().len(), 2, "both fit, so the old one serves on: {:?}", world.generations());
    assert_eq!(world.condition("Available"), "True Serving");
    world.busy(1);
    world.report(SegmentPhase::Ready);
    let actions = world.settle();
    assert!(actions.iter().any(|action| matches!(action, Action::DeletePlacement { .. })));
    assert_eq!(world.generations().len(), 1);
    let draining = world.observed.placements.values().filter(|placement| placement.metadata.deletion_timestamp.is_some());
    let phases: Vec<_> = draining.map(|placement| placement.status.as_ref().unwrap().phase).collect();
    assert!(!phases.is_empty() && phases.iter().all(|phase| *phase == Phase::Draining), "a session is still in it: {phases:?}");
    assert_eq!(routes::table(&world.observed).deployments["d"].rings[0].generation.0, 2);
    world.busy(0);
    world.settle();
    assert_eq!(world.observed.placements.len(), world.generations()[0].split(' ').count() - 1, "the last session has ended");
}

#[test]
fn an_old_generation_makes_room_when_two_do_not_fit() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.settle();
    let generations = world.generations();
    assert_eq!(generations.len(), 1, "{generations:?}");
    assert!(generations[0].starts_with("g2"), "{generations:?}");
}

#[test]
fn a_drain_has_an_end_even_if_a_session_has_none() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.replicas = 0);
    world.busy(1);
    world.settle();
    assert_eq!(world.observed.placements.len(), 1);
    assert_eq!(world.condition("Available"), "False ScaledToZero");
    world.wait(601);
    world.settle();
    assert_eq!(world.observed.placements.len(), 0);
}

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
    assert!(world.generations()[0].starts_with("g2") && !world.generations()[0].contains(&lost), "{:?}", world.generations());
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
    assert!(generations[0].starts_with("g2"), "{generations:?}");
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
    assert_eq!(world.condition("Degraded"), "True NoPhones");
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
fn a_failed_segment_is_placed_on_another_phone_after_a_pause() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ());
    world.settle();
    assert_eq!(world.generations(), vec!["g1: a"]);
    world.report(SegmentPhase::Failed);
    world.settle();
    assert_eq!(world.condition("Available"), "False SegmentFailed");
    assert!(world.message("Available").contains("no memory"));
    assert_eq!(world.generations(), vec!["g1: a"], "not at once");
    world.wait(11);
    world.settle();
    assert_eq!(world.generations(), vec!["g2: b"]);
    assert!(world.has_told("SegmentFailed") && world.has_told("Replanned"));
}

#[test]
fn a_deleted_deployment_takes_its_placements_with_it() {
    let mut world = three_phones().serving();
    world.observed.deployments.clear();
    world.settle();
    assert_eq!(world.observed.placements.len(), 0);
}

#[test]
fn a_new_deployment_of_an_old_name_does_not_take_over_its_placements() {
    let mut world = three_phones().serving();
    world.edit_deployment(|deployment| {
        deployment.metadata.uid = Some("other".into());
        deployment.status = None;
    });
    world.settle();
    let generations = world.generations();
    assert_eq!(generations.len(), 1);
    assert!(generations[0].starts_with("g2"), "{generations:?}");
}

#[test]
fn a_model_that_is_missing_or_bad_is_named() {
    let mut world = three_phones();
    world.refuse_model("FileNotFound", "there is no file /m.gguf");
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelNotResolved");
    assert!(world.message("Available").contains("/m.gguf"));
    assert!(world.has_told("FileNotFound"));
    world.observed.models.clear();
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelNotFound");
}

#[test]
fn a_bad_model_does_not_stop_what_already_runs() {
    let mut world = three_phones().serving();
    world.refuse_model("FileNotFound", "there is no file /m.gguf");
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.generations().len(), 1);
}

#[test]
fn cordoned_hot_low_and_unlabelled_phones_get_nothing() {
    let table: [(&str, fn(&mut World)); 4] = [
        ("cordoned", |world| world.edit_phone("a", |phone| phone.spec.unschedulable = true)),
        ("hot", |world| world.phone("a").heartbeat.as_mut().unwrap().temperature_celsius = Some(50.0)),
        ("low", |world| world.phone("a").heartbeat.as_mut().unwrap().battery_percent = Some(5)),
        ("unlabelled", |world| {
            world.edit_phone("b", |phone| phone.metadata.labels = Some(BTreeMap::from([("room".into(), "1".into())])));
            world.edit_deployment(|deployment| {
                deployment.spec.placement.phone_selector = BTreeMap::from([("room".into(), "1".into())]);
            });
        }),
    ];
    for (why, set) in table {
        let mut world = World::new().with_phones(&[300, 300]);
        // The phones are known before the deployment comes.
        world = world.with_deployment(|spec| spec.replicas = 0);
        set(&mut world);
        world.settle();
        world.edit_deployment(|deployment| deployment.spec.replicas = 1);
        world.settle();
        assert_eq!(world.generations(), vec!["g1: b"], "{why}");
    }
}

#[test]
fn a_phones_own_limit_counts() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
    world.edit_phone("a", |phone| phone.spec.max_memory = Some("20Mi".into()));
    world.settle();
    assert!(world.condition("Available").starts_with("False "));
    let phone = world.observed.phones["a"].object.clone().unwrap();
    assert_eq!(phone.status.as_ref().unwrap().allocatable.as_ref().unwrap().memory, "20Mi");
}

#[test]
fn rings_are_of_one_arithmetic() {
    let mut world = three_phones();
    world.phone("a").join.as_mut().unwrap().numerics = "vulkan-f32".into();
    world.settle();
    assert_eq!(world.generations(), vec!["g1: b c"]);
    let classes: Vec<_> = world.observed.placements.values().map(|placement| placement.spec.numerics_class.clone()).collect();
    assert!(classes.iter().all(|class| class == "cpu-f32/f16/kv-f32"), "{classes:?}");
}

#[test]
fn a_phone_that_joins_gets_an_object_and_one_that_returns_keeps_its_spec() {
    let mut world = World::new().with_phones(&[60]);
    world.phone("a").object = None;
    let actions = world.settle();
    assert_eq!(actions, vec![Action::CreatePhone { name: "a".into() }]);
    assert!(world.has_told("Joined"));
    world.edit_phone("a", |phone| phone.spec.unschedulable = true);
    world.lose("a");
    world.settle();
    assert!(world.has_told("Gone"));
    world.join("a", 60);
    world.settle();
    assert!(world.has_told("Rejoined"));
    assert!(world.observed.phones["a"].object.as_ref().unwrap().spec.unschedulable);
}

#[test]
fn a_ring_with_a_suspected_phone_is_passed_over_where_another_is_well() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.replicas = 2).serving();
    assert_eq!(routes::table(&world.observed).deployments["d"].rings.len(), 2);
    world.silence("a", 3);
    let rings = routes::table(&world.observed).deployments["d"].rings.clone();
    assert_eq!(rings.len(), 1);
    assert_eq!(rings[0].phones, vec!["b"]);
    world.silence("b", 3);
    assert_eq!(routes::table(&world.observed).deployments["d"].rings.len(), 2, "a suspected ring is better than none");
}

#[test]
fn leases_are_renewed_each_ten_seconds_while_a_phone_answers() {
    let mut world = World::new().with_phones(&[60]);
    world.settle();
    let renews = |world: &World| decide(&world.observed).contains(&Action::RenewLease { phone: "a".into() });
    assert!(!renews(&world));
    world.wait(10);
    assert!(renews(&world));
    world.lose("a");
    assert!(!renews(&world));
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
