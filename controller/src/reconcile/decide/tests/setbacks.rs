//! Tables of decisions: what the API refuses, and what breaks down, touches nothing else.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use polyphony_placement::Plan;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{World, key};
use super::super::{Action, Question, Subject, at_once, decide, decide_with};
use super::three_phones;
use crate::hub::assignments;
use crate::reconcile::commitment::is_committed;
use crate::reconcile::observe::ObjectKey;
use crate::reconcile::problem::Unplanned;
use crate::reconcile::problem::census::{Census, LeftOut};
use crate::reconcile::setbacks::Cause;
use crate::routes;

fn creates(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::CreatePlacement(_))).count()
}

#[test]
fn a_plan_that_the_api_refuses_is_left_alone_for_a_while_and_takes_no_number() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ());
    // Its creates are refused, so nothing after them is done.
    assert_eq!(creates(&decide(&world.observed)), 2);
    world.set_back("d", Cause::PlacementRefused, "exceeded quota: placements (403)");
    world.add_deployment("e", |spec| spec.model = "none".into());
    let actions = world.settle();
    assert_eq!(creates(&actions), 0);
    assert_eq!(world.condition("Available"), "False PlacementRefused");
    assert!(world.message("Available").contains("exceeded quota"), "{}", world.message("Available"));
    assert!(world.has_told("PlacementRefused"));
    assert_eq!(world.condition_of("e", "Available"), "False ModelNotFound", "others are decided on");
    world.told.clear();
    world.observed.uptime += Duration::from_secs(1);
    assert_eq!(creates(&world.settle()), 2, "it is tried again");
    assert_eq!(world.generations(), ["g1: a b"], "the number was never used up");
    assert_eq!(world.told.iter().filter(|(reason, _)| reason == "Planned").count(), 1);
}

/// A round over an API that has room for so many placements: what it refuses ends the course, and is a setback of that replica. Gives
/// the replicas that were refused.
fn round_within(world: &mut World, quota: usize) -> Vec<u32> {
    let mut refused = Vec::new();
    for course in decide_with(&world.observed, &at_once).courses {
        for action in &course.actions {
            if let Action::CreatePlacement(placement) = action
                && world.observed.placements.len() >= quota
            {
                let replica = placement.spec.replica;
                world.set_back_replica("d", replica, Cause::PlacementRefused, "exceeded quota: placements (403)");
                refused.push(replica);
                break;
            }
            world.carry_out(action);
        }
    }
    refused
}

#[test]
fn a_quota_for_one_replica_serves_that_and_the_other_is_told_as_refused() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.replicas = 2);
    let mut tries = Vec::new();
    for second in 0..40 {
        for _ in 0..3 {
            tries.extend(round_within(&mut world, 1).into_iter().map(|replica| (second, replica)));
            world.report(SegmentPhase::Ready);
            assert_eq!(world.generations(), ["g1: a"], "second {second}: nobody undoes it");
        }
        world.observed.uptime += Duration::from_secs(1);
    }
    assert_eq!(tries, [(0, 1), (1, 1), (3, 1), (7, 1), (15, 1), (31, 1)], "one a pause, and pauses grow");
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.condition("Degraded"), "True PlacementRefused");
    let message = world.message("Degraded");
    assert!(message.contains("replica 1") && message.contains("exceeded quota"), "{message}");
    // The one that serves does not wait for the other's pause when it needs a plan itself.
    world.join("c", 300);
    world.lose("a");
    for _ in 0..3 {
        assert!(!round_within(&mut world, 2).contains(&0));
        world.report(SegmentPhase::Ready);
    }
    assert_eq!(world.condition("Available"), "True Serving");
    world.edit_deployment(|deployment| deployment.metadata.generation = Some(2));
    world.join("a", 300);
    for _ in 0..3 {
        round_within(&mut world, 2);
        world.report(SegmentPhase::Ready);
    }
    assert_eq!(world.generations().len(), 2, "a changed deployment is tried at once: {:?}", world.generations());
    assert_eq!(world.condition("Degraded"), "False AsDesired");
}

#[test]
fn a_serving_plan_is_not_touched_by_a_successor_that_is_refused() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.set_back("d", Cause::PlacementRefused, "no");
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.condition("Degraded"), "True PlacementRefused");
    world.edit_deployment(|deployment| deployment.metadata.generation = Some(2));
    world.settle();
    assert_eq!(world.generations().len(), 2, "a changed deployment is tried at once");
}

#[test]
fn a_plan_that_an_api_in_disorder_did_not_take_waits_without_a_word() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ());
    world.set_back("d", Cause::PlanUnwritten, "etcd has no leader (503)");
    assert_eq!(creates(&world.settle()), 0);
    assert!(!world.has_told("PlacementRefused"));
    assert!(!routes::table(&world.observed).deployments["d"].is_planned, "nobody need wait for it");
    world.observed.uptime += Duration::from_secs(1);
    assert_eq!(creates(&world.settle()), 2);
}

#[test]
fn what_was_written_in_part_is_handed_to_nobody_and_goes() {
    for n_written in 1..=2 {
        let mut world = three_phones();
        let actions = decide(&world.observed);
        let made: Vec<_> = actions.iter().filter(|action| matches!(action, Action::CreatePlacement(_))).collect();
        // The second was refused, or the status that names the plan.
        made.iter().take(n_written).for_each(|action| world.carry_out(action));
        world.set_back("d", Cause::PlacementRefused, "no");
        assert!(world.observed.placements.values().all(|placement| !is_committed(&world.observed, placement)));
        world.settle();
        assert_eq!(world.observed.placements.len(), 0, "{n_written} written");
    }
}

/// A world in which so many placements of a first plan were written, and then no more was answered.
fn written_in_part(n_written: usize) -> World {
    let mut world = three_phones();
    let decision = decide_with(&world.observed, &at_once);
    let made: Vec<_> =
        decision.actions().filter(|action| matches!(action, Action::CreatePlacement(_))).cloned().collect();
    made.iter().take(n_written).for_each(|action| world.carry_out(action));
    world.set_back("d", Cause::PlanUnwritten, "somebody else has written it meanwhile");
    let draft = decision.drafts[&key("d")].clone();
    world.observed.setbacks.values_mut().for_each(|setback| setback.draft = Some(draft.clone()));
    world.settle();
    assert_eq!(world.observed.placements.len(), n_written, "they are left alone for a moment");
    world.observed.uptime += Duration::from_secs(1);
    world
}

#[test]
fn what_was_written_in_part_and_nobody_refused_is_written_on() {
    for n_written in 0..=2 {
        let mut world = written_in_part(n_written);
        let before: Vec<_> = world.observed.placements.values().cloned().collect();
        world.settle();
        assert_eq!(world.generations(), ["g1: a b"], "{n_written} written");
        assert!(world.observed.placements.values().all(|placement| is_committed(&world.observed, placement)));
        assert!(before.iter().all(|one| world.observed.placements.values().any(|other| one.spec == other.spec)));
        assert_eq!(world.told.iter().filter(|(reason, _)| reason == "Planned").count(), 1);
    }
}

#[test]
fn what_was_written_in_part_goes_where_it_will_not_do_any_more() {
    type Change = fn(&mut World);
    let table: [(&str, Change); 3] = [
        ("a phone is lost", |world| world.lose("b")),
        ("the deployment has changed", |world| {
            world.edit_deployment(|deployment| {
                deployment.spec.context_length = 128;
                deployment.metadata.generation = Some(2);
            });
        }),
        ("two phones cannot reach each other", |world| world.set_link("a", "b", false)),
    ];
    for (what, change) in table {
        let mut world = written_in_part(1);
        change(&mut world);
        world.settle();
        let generations = world.generations();
        assert!(generations.len() == 1 && generations[0].starts_with("g2"), "{what}: {generations:?}");
        assert!(world.observed.placements.values().all(|placement| is_committed(&world.observed, placement)));
    }
}

#[test]
fn a_deployment_that_is_made_anew_goes_on_with_nothing_of_the_one_before() {
    let mut world = written_in_part(0);
    world.edit_deployment(|deployment| deployment.metadata.uid = Some("another".into()));
    world.settle();
    let owners: Vec<_> =
        world.observed.placements.values().map(|one| assignments::owner(one).unwrap().uid.clone()).collect();
    assert_eq!(owners, ["another", "another"]);
}

#[test]
fn stages_of_two_plans_make_no_ring() {
    let mut world = three_phones();
    world.settle();
    let derive = |world: &World| {
        let placements = world.observed.placements.values().map(AsRef::as_ref);
        assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys())
    };
    assert_eq!(derive(&world).len(), 2);
    type Edit = fn(&mut polyphony_api::SegmentPlacementSpec);
    let table: [(&str, Edit); 3] = [
        ("another digest", |spec| spec.plan_digest = Some("other".into())),
        ("a gap between layers", |spec| spec.holds.from += 1),
        ("a layer twice", |spec| spec.holds.from -= 1),
    ];
    for (what, edit) in table {
        let mut torn = three_phones();
        torn.settle();
        let tail = torn.generation(1)[1].metadata.name.clone().unwrap();
        edit(&mut std::sync::Arc::make_mut(torn.observed.placements.get_mut(&key(&tail)).unwrap()).spec);
        assert!(derive(&torn).is_empty(), "{what}");
    }
}

#[test]
fn one_deployment_that_breaks_down_touches_no_other() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.max_sessions = 7);
    world.add_deployment("e", |spec| spec.max_sessions = 1);
    let poisoned = |question: Question<'_>| -> Result<Plan, Unplanned> {
        assert_ne!(question.problem.demand.max_sessions, 7, "poison");
        at_once(question)
    };
    let decision = decide_with(&world.observed, &poisoned);
    let failed: Vec<_> = decision.failed.keys().cloned().collect();
    assert_eq!(failed, [Subject::Deployment(key("d"))]);
    decision.actions().for_each(|action| world.carry_out(action));
    assert_eq!(world.condition("Degraded"), "True DecisionFailed");
    assert_eq!(world.condition("Available"), "False DecisionFailed");
    assert_eq!(world.condition("Ready"), "False DecisionFailed");
    assert!(world.message("Degraded").contains("poison"), "{}", world.message("Degraded"));
    let planned: Vec<_> = world.observed.placements.values().map(|one| one.spec.deployment.clone()).collect();
    assert_eq!(planned, ["e"], "and nothing is reserved for the first");
    // It is not even decided upon until its pause is over, and then anew.
    world.set_back("d", Cause::DecisionFailed, "poison");
    assert!(decide_with(&world.observed, &|_| panic!("it is asked")).failed.is_empty());
    world.observed.uptime += Duration::from_secs(1);
    world.settle();
    assert_eq!(world.condition("Degraded"), "False AsDesired");
    assert_eq!(world.observed.placements.len(), 2);
}

#[test]
fn what_breaks_down_over_one_phone_or_segment_is_left_out_alone_and_named() {
    let world = World::new().with_phones(&[60, 60, 60]).with_deployment(|_| ()).serving();
    let observed = &world.observed;
    let first = observed.placements.keys().next().unwrap();
    let census = Census::by(
        observed,
        |phone| if phone == "b" { panic!("no such figure") } else { observed.profile(phone) },
        |placement| if ObjectKey::of(placement) == *first { panic!("no such time") } else { None },
    );
    let counted: Vec<&str> = census.phones(None).into_iter().map(|counted| counted.name).collect();
    assert_eq!(counted, ["a", "c"]);
    let left_out = [
        (LeftOut::Phone("b".into()), "no such figure".to_owned()),
        (LeftOut::Placement(first.clone()), "no such time".to_owned()),
    ];
    assert_eq!(census.left_out, left_out);
}

#[test]
fn a_time_that_a_status_was_given_by_hand_breaks_nothing_down() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    world.measure("a", 0.002);
    world.settle();
    world.edit_phone("a", |phone| {
        let times = &mut phone.status.as_mut().unwrap().layer_times;
        assert!(!times.is_empty());
        times.iter_mut().for_each(|time| time.at_seconds = i64::MIN);
    });
    assert!(decide_with(&world.observed, &at_once).failed.is_empty());
}

#[test]
fn a_replica_whose_plan_is_never_written_lets_the_others_have_theirs() {
    let mut world = World::new().with_phones(&[300, 300, 300]).with_deployment(|spec| spec.replicas = 3);
    let mut tries = Vec::new();
    for second in 0..4 {
        for course in decide_with(&world.observed, &at_once).courses {
            for action in &course.actions {
                match action {
                    // The API is out of order over the first one's placements alone.
                    Action::CreatePlacement(placement) if placement.spec.replica == 0 => {
                        tries.push(second);
                        world.set_back_replica("d", 0, Cause::PlanUnwritten, "no answer within 5 s");
                        break;
                    }
                    action => world.carry_out(action),
                }
            }
        }
        world.report(SegmentPhase::Ready);
        world.observed.uptime += Duration::from_secs(1);
    }
    let mut written: Vec<_> = world.observed.placements.values().map(|one| one.spec.replica).collect();
    written.sort_unstable();
    assert_eq!(written, [1, 2]);
    assert_eq!(tries, [0, 3], "its turn comes again");
}

#[test]
fn a_deployment_that_is_being_deleted_says_so_and_lets_its_phones_go() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    let now = world.observed.now;
    world.edit_deployment(|deployment| {
        deployment.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        deployment.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    });
    world.settle();
    assert_eq!(world.observed.placements.len(), 0);
    assert_eq!(world.condition("Available"), "False Deleting");
    assert!(world.message("Available").contains("example.com/hold"), "{}", world.message("Available"));
    let route = &crate::routes::table(&world.observed).deployments["d"];
    assert_eq!((route.rings.len(), route.is_planned), (0, false));
    assert_eq!(route.unavailable_reason.as_deref(), Some("it is being deleted"));
    world.report(SegmentPhase::Ready);
    assert_eq!(world.settle(), []);
}
