//! Tables of decisions: a planner that is still at a plan. What there is goes on, and others do not wait for it.
#![allow(clippy::unwrap_used)]

use polyphony_placement::{Plan, Problem, Strategy};
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{World, key};
use super::super::{at_once, decide_with};
use crate::reconcile::problem::Unplanned;

/// A planner that is at problems with that many sessions, and answers all others.
fn at_problems_of(max_sessions: u32, is_long: bool) -> impl Fn(Strategy, &Problem) -> Result<Plan, Unplanned> {
    move |strategy, problem| match problem.demand.max_sessions == max_sessions {
        true => Err(Unplanned::Underway { is_long }),
        false => at_once(strategy, problem),
    }
}

fn round(world: &mut World, planner: impl Fn(Strategy, &Problem) -> Result<Plan, Unplanned>) {
    decide_with(&world.observed, &planner).actions().for_each(|action| world.carry_out(action));
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
            round(&mut world, at_problems_of(2, false));
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
fn a_deployment_is_planned_though_another_ones_plan_is_still_computed() {
    // Its priority, whether the other one is computed for long, and whether it is planned meanwhile.
    let table = [(0, false, true), (1, false, true), (-1, false, false), (-1, true, true)];
    for (priority, is_long, expected) in table {
        let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.max_sessions = 7);
        world.add_deployment("e", |spec| (spec.max_sessions, spec.priority) = (1, priority));
        round(&mut world, at_problems_of(7, is_long));
        assert_eq!(placed(&world), [0, usize::from(expected)], "priority {priority}, long: {is_long}");
        round(&mut world, at_once);
        world.settle();
        assert_eq!(placed(&world), [1, 1]);
    }
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
    round(&mut world, at_problems_of(1, false));
    assert_eq!(world.condition("Balanced"), "False Imbalanced");
    world.wait(1);
    world.settle();
    assert_ne!(world.generations(), before, "it has lasted since it was said first");
}
