//! Tables of decisions: hops of phones that cannot dial each other go over the hub, where that is measured and nothing better is.
#![allow(clippy::unwrap_used)]

use polyphony_api::segment_placement::RelayedHop;
use polyphony_protocol::hub::{SegmentPhase, Way};

use super::super::fixtures::World;
use crate::hub::assignments;

const SLOW: Option<f64> = Some(0.040);

/// Two phones that hold the model together, neither of which can dial the other.
fn two_apart() -> World {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ());
    world.set_link("a", "b", false);
    world.set_link("b", "a", false);
    world
}

/// Who reaches whom over the hub in that generation.
fn hops(world: &World, generation: u64) -> Vec<(String, u32)> {
    let hops = world.generation(generation).into_iter().flat_map(|from| {
        from.spec.relayed.iter().map(|RelayedHop { to, .. }| (from.spec.phone.clone(), *to)).collect::<Vec<_>>()
    });
    hops.collect()
}

#[test]
fn two_phones_that_cannot_dial_each_other_make_a_ring_over_the_hub() {
    let mut world = two_apart();
    world.settle();
    assert_eq!(world.condition("Available"), "False PhonesUnreachable");
    world.set_relayed("a", "b", SLOW);
    world.set_relayed("b", "a", SLOW);
    world.settle();
    assert_eq!(world.generations(), ["g1: a b"]);
    assert_eq!(hops(&world, 1), [("a".into(), 1), ("b".into(), 0)]);
    assert_eq!(world.generation(1)[0].spec.relayed[0].reason, "connection refused");
    // It costs what was measured.
    let step = world.generation(1).iter().map(|stage| stage.spec.predicted_step_microseconds).sum::<u64>();
    assert!(step >= 40_000, "{step} µs with 20 ms each way");
    let placements = world.observed.placements.values().map(AsRef::as_ref);
    let assigned = assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys());
    let ways = |phone: &str, stage: usize| assigned[phone][0].peers[stage].ways.clone();
    assert_eq!(ways("a", 1), [Way::Relayed]);
    assert_eq!(ways("b", 0), [Way::Relayed]);
    // While it connects, that they still cannot dial each other is no news.
    world.report(SegmentPhase::Connecting);
    world.settle();
    assert_eq!(world.generations(), ["g1: a b"]);
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
}

#[test]
fn of_a_phone_behind_a_nat_one_way_is_dialled_and_the_other_is_led() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ());
    world.set_link("a", "b", true);
    world.set_relayed("b", "a", SLOW);
    world.settle();
    let (generations, hops) = (world.generations(), hops(&world, 1));
    assert_eq!(hops.iter().map(|(from, _)| from.as_str()).collect::<Vec<_>>(), ["b"], "{generations:?}");
    world.report(SegmentPhase::Connecting);
    world.settle();
    assert_eq!(world.generations(), generations, "it is made once");
}

#[test]
fn a_third_phone_that_can_be_dialled_is_better_than_the_hub() {
    let mut world = World::new().with_phones(&[60, 60, 60]).with_deployment(|_| ());
    for (from, to) in [("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")] {
        world.set_link(from, to, true);
    }
    world.set_relayed("a", "b", SLOW);
    world.set_relayed("b", "a", SLOW);
    world.settle();
    let generations = world.generations();
    assert!(generations.len() == 1 && generations[0].contains('c'), "{generations:?}");
    assert_eq!(hops(&world, 1), []);
}

#[test]
fn a_hop_that_breaks_is_led_over_the_hub_when_that_is_measured_and_not_when_it_leads_nowhere_either() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    world.report(SegmentPhase::Connecting);
    world.set_link("a", "b", false);
    world.set_link("b", "a", false);
    world.settle();
    assert_eq!(world.condition("Available"), "False LinkDown");
    world.set_relayed("a", "b", SLOW);
    world.set_relayed("b", "a", SLOW);
    world.settle();
    assert_eq!(world.generations(), ["g2: a b"]);
    assert_eq!(hops(&world, 2).len(), 2);
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    // A probe that failed once is no reason to leave what serves.
    world.set_relayed("a", "b", None);
    world.set_relayed("b", "a", None);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    world.report(SegmentPhase::Connecting);
    world.settle();
    assert_eq!(world.condition("Available"), "False LinkDown");
    assert_eq!(world.generations(), ["g2: a b"], "there is no other");
}
