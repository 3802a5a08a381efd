//! Tables of decisions: a planner that is still at a plan. What there is goes on, and others do not wait for it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use polyphony_placement::Plan;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{World, key};
use super::super::{Question, at_once, decide_with};
use crate::reconcile::problem::Unplanned;

/// A planner that is at problems with that many sessions, and answers all others.
fn at_problems_of(max_sessions: u32) -> impl Fn(Question<'_>) -> Result<Plan, Unplanned> {
    move |question| match question.problem.demand.max_sessions == max_sessions {
        true => Err(Unplanned::Underway),
        false => at_once(question),
    }
}

fn round(world: &mut World, planner: impl Fn(Question<'_>) -> Result<Plan, Unplanned>) {
    let decision = decide_with(&world.observed, &planner);
    world.observed.waiting = decision.waiting_since(&world.observed);
    decision.actions().for_each(|action| world.carry_out(action));
}

/// How many placements each of the two deployments has.
fn placed(world: &World) -> [usize; 2] {
    let of = |name: &str| world.observed.placements.values().filter(|one| one.spec.deployment == name).count();
    ["d", "e"].map(of)
}

#[test]
fn what_serves_goes_on_while_its_successor_is_computed() {
    for phones in [vec![300, 300], vec![60, 60]] {
        let mut world = World::new().with_phones(&phones).with_deployment(|_| ()).serving();
        let before = world.generations();
        world.edit_deployment(|deployment| deployment.spec.max_sessions = 2);
        for _ in 0..3 {
            round(&mut world, at_problems_of(2));
            assert_eq!(world.generations(), before, "none makes room for what is not there");
            assert_eq!(world.condition("Available"), "True Serving");
            assert_eq!(world.condition("Progressing"), "True Loading");
            assert!(
                world.message("Progressing").contains("its plan to be computed"),
                "{}",
                world.message("Progressing")
            );
        }
        world.settle();
        world.report(SegmentPhase::Ready);
        world.settle();
        assert_eq!(world.observed.deployments[&key("d")].status.as_ref().unwrap().plan_generation, Some(2));
    }
}

#[test]
fn a_plan_that_waits_for_memory_is_in_no_round_called_impossible() {
    let mut world = World::new().with_phones(&[120]).with_deployment(|_| ()).serving();
    world.busy(1);
    // In one and the same change one goes and another one comes.
    world.add_deployment("e", |_| ());
    world.edit_deployment(|deployment| deployment.spec.replicas = 0);
    let at_every_plan = |question: Question<'_>| at_once(question).and(Err(Unplanned::Underway));
    round(&mut world, at_every_plan);
    assert_eq!(world.condition_of("e", "Progressing"), "True Loading");
    round(&mut world, at_every_plan);
    assert_eq!(world.condition_of("e", "Progressing"), "True Loading");
    round(&mut world, at_once);
    assert_eq!(world.condition_of("e", "Progressing"), "True Loading");
    assert_eq!(placed(&world), [1, 0]);
    world.busy(0);
    world.settle();
    assert_eq!(placed(&world), [0, 1]);
}

#[test]
fn a_deployment_is_planned_though_another_ones_plan_is_still_computed() {
    // Its priority, how long the other one is computed, and whether it is planned meanwhile.
    let table = [(0, 0, true), (1, 0, true), (-1, 0, false), (-1, 4, false), (-1, 5, true)];
    for (priority, seconds, expected) in table {
        let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.max_sessions = 7);
        world.add_deployment("e", |spec| (spec.max_sessions, spec.priority) = (1, priority));
        round(&mut world, at_problems_of(7));
        world.observed.uptime += Duration::from_secs(seconds);
        round(&mut world, at_problems_of(7));
        assert_eq!(placed(&world), [0, usize::from(expected)], "priority {priority}, after {seconds} s");
        round(&mut world, at_once);
        world.settle();
        assert_eq!(placed(&world), [1, 1]);
    }
}

#[test]
fn several_plans_of_one_deployment_hold_up_another_no_longer_than_one() {
    let set_up = || {
        let first = |spec: &mut polyphony_api::InferenceDeploymentSpec| {
            (spec.replicas, spec.max_sessions, spec.priority) = (3, 7, 2);
        };
        World::new().with_phones(&[300; 4]).with_deployment(first)
    };
    // Each of its plans takes three seconds, in each of which the planner is asked.
    let mut world = set_up();
    world.add_deployment("e", |spec| (spec.replicas, spec.max_sessions, spec.priority) = (1, 1, 0));
    let mut waited = 0;
    for second in 0..9 {
        let is_solved = second % 3 == 2;
        round(&mut world, |question| if is_solved { at_once(question) } else { at_problems_of(7)(question) });
        world.observed.uptime += Duration::from_secs(1);
        if placed(&world)[1] > 0 {
            break;
        }
        waited = second + 1;
    }
    assert_eq!(waited, 5, "it is planned in the round of the sixth second");
    // Nor does a chain of others hold it up for longer: what matters more than it begins to ask when its own turn comes.
    let mut world = set_up();
    world.add_deployment("e", |spec| (spec.replicas, spec.max_sessions, spec.priority) = (1, 1, 0));
    world.add_deployment("f", |spec| spec.priority = 1);
    for _ in 0..6 {
        assert_eq!(placed(&world)[1], 0);
        round(&mut world, at_problems_of(7));
        world.observed.uptime += Duration::from_secs(1);
    }
    assert_eq!(placed(&world)[1], 1);
}

#[test]
fn a_further_replica_that_waits_for_its_turn_keeps_its_phone_from_lower_priorities() {
    let mut world =
        World::new().with_phones(&[300, 300]).with_deployment(|spec| (spec.replicas, spec.priority) = (2, 1));
    world.add_deployment("e", |spec| (spec.replicas, spec.priority) = (1, 0));
    for deployment in world.observed.deployments.values_mut() {
        std::sync::Arc::make_mut(deployment).spec.placement.allow_sharing = false;
    }
    for _ in 0..3 {
        round(&mut world, at_once);
    }
    assert_eq!(placed(&world), [2, 0]);
}

#[test]
fn the_balancer_stands_by_what_it_said_while_the_planner_is_at_it() {
    let mut world = World::new().with_phones(&[100, 100]).with_deployment(|_| ()).serving();
    let before = world.generations();
    world.measure("a", 0.002);
    world.wait(60);
    world.settle();
    world.measure("a", 0.020);
    world.settle();
    assert_eq!(world.condition("Balanced"), "False Imbalanced");
    world.wait(1);
    round(&mut world, at_problems_of(1));
    assert_eq!(world.condition("Balanced"), "False Imbalanced");
    world.wait(1);
    world.settle();
    assert_ne!(world.generations(), before, "it has lasted since it was said first");
}
