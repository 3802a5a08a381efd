//! Tables of decisions: the fewest joules above a floor of speed, and what phones tell of their watts.
#![allow(clippy::unwrap_used)]

use polyphony_api::inference_deployment::Objective;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::World;

/// Two phones of one speed, each with room for the model, and a deployment that is not there yet.
fn two_phones() -> World {
    World::new().with_phones(&[300, 300]).with_deployment(|spec| {
        spec.replicas = 0;
        spec.objective = Objective::Efficiency;
    })
}

fn take(world: &mut World, name: &str, watts: f64) {
    world.edit_phone(name, |phone| phone.status.get_or_insert_default().active_watts = Some(watts));
}

fn planned(mut world: World) -> Vec<String> {
    world.edit_deployment(|deployment| deployment.spec.replicas = 1);
    world.settle();
    world.generations()
}

fn watts_written(world: &World, name: &str) -> Option<f64> {
    world.observed.phones[name].object.as_ref().unwrap().status.clone().unwrap_or_default().active_watts
}

#[test]
fn the_phone_that_takes_less_is_chosen_and_one_that_charges_counts_a_quarter() {
    let mut world = two_phones();
    take(&mut world, "a", 6.0);
    take(&mut world, "b", 2.0);
    assert_eq!(planned(world), ["g1: b"]);
    for (charging, expected) in [(Some(true), "g1: a"), (Some(false), "g1: b"), (None, "g1: b")] {
        let mut world = two_phones();
        take(&mut world, "a", 6.0);
        take(&mut world, "b", 2.0);
        let heartbeat = world.phone("a").heartbeat.as_mut().unwrap();
        (heartbeat.charging, heartbeat.battery_percent) = (charging, Some(80));
        assert_eq!(planned(world), [expected], "charging: {charging:?}");
    }
}

#[test]
fn a_floor_that_no_phone_keeps_is_told_with_the_speed_of_the_fastest() {
    let mut world = two_phones();
    world.edit_deployment(|deployment| {
        deployment.spec.replicas = 1;
        deployment.spec.min_tokens_per_second = Some(1e5);
    });
    world.settle();
    assert_eq!(world.condition("Available"), "False InsufficientSpeed");
    let told = world.message("Available");
    assert!(told.contains("at least 100000 tokens/s are asked for and the fastest plan gives "), "{told}");
}

#[test]
fn a_floor_that_another_objective_has_kept_from_before_means_nothing() {
    let mut world = two_phones();
    world.edit_deployment(|deployment| {
        deployment.spec.objective = Objective::Latency;
        deployment.spec.min_tokens_per_second = Some(1e5);
    });
    assert_eq!(planned(world), ["g1: a"]);
}

#[test]
fn a_plan_that_has_become_too_slow_is_left_for_one_that_takes_more() {
    let mut world = two_phones();
    take(&mut world, "a", 6.0);
    take(&mut world, "b", 2.0);
    world.edit_deployment(|deployment| deployment.spec.replicas = 1);
    let mut world = world.serving();
    assert_eq!(world.generations(), ["g1: b"]);
    world.measure("b", 0.002);
    world.wait(60);
    world.settle();
    let status = |world: &World| {
        let deployment = world.observed.deployments.values().next().unwrap();
        deployment.status.clone().unwrap()
    };
    let speed = status(&world).predicted_tokens_per_second.unwrap();
    assert!(status(&world).plan.unwrap().joules_per_token.is_some_and(|joules| joules > 0.0));
    world.edit_deployment(|deployment| deployment.spec.min_tokens_per_second = Some(speed * 0.6));
    world.settle();
    world.wait(3);
    world.settle();
    assert_eq!(world.generations(), ["g1: b"], "it is fast enough");
    world.measure("b", 0.006);
    world.wait(60);
    world.settle();
    world.wait(3);
    world.settle();
    world.report(SegmentPhase::Ready);
    world.settle();
    let message = world.message("Balanced");
    let generations = world.generations();
    let newest = generations.last().unwrap();
    assert!(newest.starts_with("g2") && newest.contains('a'), "{generations:?}: {message}");
}

#[test]
fn watts_are_written_in_steps_and_stay_while_nothing_is_said_of_them() {
    let mut world = two_phones();
    world.settle();
    let say = |world: &mut World, watts: Option<f64>| {
        world.phone("a").heartbeat.as_mut().unwrap().active_watts = watts;
        world.wait(31);
        world.settle();
        watts_written(world, "a")
    };
    assert_eq!(say(&mut world, None), None);
    assert_eq!(say(&mut world, Some(f64::NAN)), None, "no figure that can be believed");
    assert_eq!(say(&mut world, Some(4.0001)), Some(4.0));
    assert_eq!(say(&mut world, Some(4.7)), Some(4.0), "within a fifth");
    assert_eq!(say(&mut world, Some(5.0)), Some(5.0));
    assert_eq!(say(&mut world, None), Some(5.0), "it charges, or has started anew");
    assert_eq!(say(&mut world, Some(1e9)), Some(5.0));
}
