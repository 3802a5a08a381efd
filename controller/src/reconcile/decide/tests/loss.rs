//! Tables of decisions: phones that are lost, silent or fail.
#![allow(clippy::unwrap_used)]

use polyphony_api::condition;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::World;
use super::super::{Action, decide};
use super::three_phones;
use crate::routes;

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
        actions.iter().for_each(|action| world.carry_out(action));
        assert!(!decide(&world.observed).contains(&Action::CutLink { phone: name.clone() }));
        assert_eq!(actions.contains(&Action::CutLink { phone: name.clone() }), cut, "after {seconds} s");
        let phone = world.observed.phones[&name].object.clone().unwrap();
        let status = |type_| condition::find(&phone.status.as_ref().unwrap().conditions, type_).unwrap().status.clone();
        assert_eq!((status("Ready").as_str(), status("Reachable").as_str()), (ready, reachable), "after {seconds} s");
        assert!(
            world.generations().last().unwrap().starts_with(&format!("g{generation}:")),
            "after {seconds} s: {:?}",
            world.generations()
        );
    }
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
fn who_asks_while_a_plan_is_to_come_may_wait_and_who_asks_where_none_can_be_is_told() {
    let may_wait = |world: &World| {
        let route = &routes::table(&world.observed).deployments["d"];
        assert_eq!(route.rings.len(), 0);
        route.is_planned
    };
    let mut world = three_phones();
    assert!(may_wait(&world), "nothing is decided yet");
    world.settle();
    assert!(may_wait(&world), "it is loaded");
    world = world.serving();
    let lost = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
    world.lose(&lost);
    assert!(may_wait(&world), "the loss is not decided about yet");
    world.settle();
    assert!(may_wait(&world), "the next plan is loaded");
    for phone in ["a", "b", "c"] {
        world.lose(phone);
    }
    world.settle();
    assert!(!may_wait(&world), "there is no other plan: {}", world.message("Available"));
}
