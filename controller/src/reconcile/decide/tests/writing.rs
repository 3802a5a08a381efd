//! Tables of decisions: what of all that phones say is written to the API.
#![allow(clippy::unwrap_used)]

use polyphony_protocol::hub::{Heartbeat, LinkReport};

use super::super::fixtures::World;
use super::super::{Action, decide};

/// A deployment that serves, on phones that have said all that they have to say.
fn at_rest() -> World {
    let mut world =
        World::new().with_phones(&[100, 100]).with_deployment(|spec| spec.placement.min_phones = 2).serving();
    say(&mut world, 0.0);
    for _ in 0..2 {
        world.wait(60);
        world.settle();
    }
    world
}

/// What each phone says, off by this part of what it said before.
fn say(world: &mut World, off: f64) {
    for (name, peer) in [("a", "b"), ("b", "a")] {
        let heartbeat: &mut Heartbeat = world.phone(name).heartbeat.as_mut().unwrap();
        heartbeat.battery_percent = Some((80.0 - 80.0 * off) as u8);
        heartbeat.charging = Some(false);
        heartbeat.temperature_celsius = Some(35.0 + 35.0 * off);
        let (round_trip_seconds, bytes_per_second) = (0.004 * (1.0 + off), Some(1e7 * (1.0 - off)));
        heartbeat.links =
            vec![LinkReport { peer: peer.into(), round_trip_seconds, bytes_per_second, is_relayed: false }];
    }
    for name in ["a", "b"] {
        world.measure(name, 0.002 * (1.0 + off));
    }
}

#[test]
fn a_heartbeat_whose_figures_are_within_a_step_writes_nothing() {
    let mut world = at_rest();
    for (seconds, off) in [(1, 0.01), (1, -0.03), (30, 0.04), (60, -0.05), (60, 0.05)] {
        world.wait(seconds);
        say(&mut world, off);
        assert_eq!(decide(&world.observed), [], "{off} off");
    }
}

#[test]
fn a_figure_that_has_left_its_step_is_written_once_in_a_while_with_the_others() {
    let mut world = at_rest();
    world.wait(30);
    let written = |world: &mut World| {
        let actions = decide(&world.observed);
        actions.iter().for_each(|action| world.carry_out(action));
        let of_phone = |action: &&Action| matches!(action, Action::SetPhoneStatus { name, .. } if name == "a");
        let of_placement = |action: &&Action| matches!(action, Action::SetPlacementStatus { .. });
        (actions.iter().filter(of_phone).count(), actions.iter().filter(of_placement).count())
    };
    say(&mut world, 0.15);
    assert_eq!(written(&mut world), (1, 2), "nothing was written of late");
    for second in 1..30 {
        world.wait(1);
        say(&mut world, if second % 2 == 0 { 0.15 } else { -0.15 });
        assert_eq!(written(&mut world), (0, 0), "{second} s after the last writing");
    }
    world.wait(1);
    say(&mut world, -0.15);
    assert_eq!(written(&mut world), (1, 2));
    // A condition waits for nothing.
    world.wait(1);
    world.phone("a").heartbeat.as_mut().unwrap().battery_percent = Some(10);
    assert_eq!(written(&mut world).0, 1);
    let status = world.observed.phones["a"].object.as_ref().unwrap().status.clone().unwrap();
    assert!(polyphony_api::condition::is_true(&status.conditions, "BatteryLow"));
}
