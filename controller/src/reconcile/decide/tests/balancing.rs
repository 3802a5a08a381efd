//! Tables of decisions: layers that move because it pays, and those that stay.
#![allow(clippy::unwrap_used)]

use polyphony_api::inference_deployment::{BalancingStrategy, InferenceDeploymentSpec, Objective, Strategy};
use polyphony_protocol::PlanGeneration;
use polyphony_protocol::hub::{Assignment, SegmentPhase};

use super::super::Action;
use super::super::fixtures::World;
use crate::hub::assignments;
use crate::routes;

/// Two phones that share a model and have each measured what was planned, some time ago.
fn steady() -> World {
    steady_with(|_| ())
}

fn steady_with(edit: impl FnOnce(&mut polyphony_api::InferenceDeploymentSpec)) -> World {
    let mut world = World::new().with_phones(&[100, 100]).with_deployment(|spec| {
        spec.placement.min_phones = 2;
        edit(spec);
    });
    world = world.serving();
    world.measure("a", 0.002);
    world.measure("b", 0.002);
    world.wait(60);
    world.settle();
    world.told.clear();
    world
}

/// Rounds until a better plan has lasted.
fn persist(world: &mut World) -> Vec<Action> {
    world.settle();
    world.wait(3);
    world.settle()
}

fn layers(world: &World, generation: u64) -> Vec<(String, u32, u32)> {
    let of = world.generation(generation);
    of.iter().map(|one| (one.spec.phone.clone(), one.spec.holds.from, one.spec.holds.to)).collect()
}

#[test]
fn a_slowed_phone_gives_away_layers_that_stand_by() {
    let mut world = steady();
    assert_eq!(world.condition("Balanced"), "True NoGain");
    let before = layers(&world, 1);
    assert!(world.generation(1).iter().all(|one| one.spec.standby.is_some()), "both have room for more");
    world.measure("b", 0.006);
    world.settle();
    assert_eq!(world.condition("Balanced"), "False Imbalanced");
    assert_eq!(world.generations().len(), 1, "not at once");
    world.busy(1);
    let actions = persist(&mut world);
    assert!(actions.iter().any(|action| matches!(action, Action::CreatePlacement(_))), "{actions:?}");
    let after = layers(&world, 2);
    let count = |of: &[(String, u32, u32)], phone: &str| of.iter().find(|one| one.0 == phone).map(|one| one.2 - one.1);
    assert!(count(&after, "b") < count(&before, "b"), "{before:?} {after:?}");
    assert!(world.generation(2).iter().all(|one| one.spec.follows == Some(1)));
    let (_, note) = world.told.iter().find(|(reason, _)| reason == "Rebalanced").unwrap();
    assert!(note.contains("b takes") && note.contains("tokens/s expected instead of"), "{note}");

    // The next generation attaches to what is loaded; then the old one drains, and its sessions are fetched.
    world.report(SegmentPhase::Ready);
    world.settle();
    let ring = routes::table(&world.observed).deployments["d"].rings[0].clone();
    assert_eq!((ring.generation, ring.follows), (PlanGeneration(2), Some(PlanGeneration(1))));
    let placements = world.observed.placements.values().map(AsRef::as_ref);
    let assigned = assignments::derive(placements, &world.observed.ring_addresses(), &world.observed.keys());
    for (phone, segments) in &assigned {
        let next = segments.iter().find(|segment| segment.generation == PlanGeneration(2)).unwrap();
        let followed = next.follows.as_ref().unwrap();
        let old = segments.iter().find(|segment| segment.generation == PlanGeneration(1)).unwrap();
        assert_eq!(followed.generation, PlanGeneration(1), "{phone}");
        let successors: Vec<_> = old.successors.iter().map(|one| one.phone.clone()).collect();
        assert_eq!(successors, ["a", "b"], "who goes on may fetch what {phone} has");
        let own: Vec<_> =
            old.successors.iter().map(|one| (one.phone.clone(), one.layers.from, one.layers.to)).collect();
        assert!(own != before && own[1].2 == 6, "each in the layers that it has then: {own:?}");
        assert!(old.successors.iter().all(|one| one.key == format!("key-{}", one.phone)) && next.successors.is_empty());
        let owners: Vec<_> =
            followed.owners.iter().map(|one| (one.phone.clone(), one.layers.from, one.layers.to)).collect();
        assert_eq!(owners, before);
        let loaded = |one: &Assignment| one.standby.map_or((one.holds.from, one.holds.to), |kept| (kept.from, kept.to));
        assert_eq!(loaded(next), loaded(old), "what is loaded stays loaded");
    }
    world.busy(0);
    world.settle();
    assert_eq!(world.generations().len(), 1);
    assert_eq!(routes::table(&world.observed).deployments["d"].rings[0].follows, None, "nothing is left to fetch");
    assert_eq!(world.condition("Balanced"), "True NoGain");
}

#[test]
fn what_was_said_of_a_plan_that_no_longer_serves_is_taken_back() {
    let mut world = steady();
    assert_eq!(world.condition("Balanced"), "True NoGain");
    for phone in ["a", "b"] {
        world.lose(phone);
    }
    world.settle();
    assert!(world.condition("Available").starts_with("False"), "{}", world.condition("Available"));
    assert_eq!(world.condition("Balanced"), "Unknown NotMeasured");
}

#[test]
fn layers_that_stand_by_cost_their_phone_nothing_twice() {
    let mut world = steady();
    world.measure("b", 0.006);
    persist(&mut world);
    assert_eq!(world.generations().len(), 2, "both are there beside each other: {:?}", world.generations());
    let taken: u64 = world.generation(1).iter().map(|one| one.spec.planned_bytes).sum();
    assert!(taken * 2 > 180 << 20, "two generations of that size would not fit into 180 MiB");
}

#[test]
fn what_is_told_to_stay_stays() {
    type Edit = fn(&mut polyphony_api::InferenceDeploymentSpec);
    let table: [(&str, Edit, &str); 4] = [
        ("off", |spec| spec.load_balancing.enabled = false, "Unknown Disabled"),
        ("another strategy", |spec| spec.placement.strategy = Strategy::EqualSplit, "Unknown Disabled"),
        ("a higher wish", |spec| spec.load_balancing.minimum_gain_percent = 900, "True NoGain"),
        ("a long cool-down", |spec| spec.load_balancing.cool_down_seconds = 3600, "False CoolingDown"),
    ];
    for (what, edit, condition) in table {
        let mut world = steady_with(edit);
        world.measure("b", 0.006);
        persist(&mut world);
        assert_eq!(world.generations().len(), 1, "{what}");
        assert_eq!(world.condition("Balanced"), condition, "{what}");
    }
}

#[test]
fn layers_move_to_a_phone_that_is_far_better_where_there_is_room() {
    let mut world = steady_with(|spec| spec.placement.min_phones = 1);
    assert_eq!(world.generations(), vec!["g1: a"]);
    world.measure("a", 0.020);
    persist(&mut world);
    assert_eq!(world.generations(), vec!["g1: a", "g2: b"]);
    assert!(world.has_told("Rebalanced") && !world.has_told("Replanned"));
    assert_eq!(world.condition("Available"), "True Serving", "the old plan answers meanwhile");
}

#[test]
fn noise_moves_layers_once_at_most_and_a_real_change_moves_them() {
    for seed in 1..=20 {
        let mut world = steady();
        let mut random = Random(seed);
        let mut noise = |world: &mut World, a: f64, b: f64| {
            for (name, seconds) in [("a", a), ("b", b)] {
                world.measure(name, seconds * (0.85 + 0.3 * random.next()));
            }
            world.wait(1);
            world.settle();
            world.report(SegmentPhase::Ready);
            world.settle();
        };
        let newest = |world: &World| world.observed.placements.values().map(|one| one.spec.plan_generation).max();
        for _ in 0..120 {
            noise(&mut world, 0.002, 0.002);
        }
        assert_eq!(newest(&world), Some(1), "seed {seed}: noise alone moves nothing");
        let mut moved_at = None;
        for second in 0..240 {
            noise(&mut world, 0.002, 0.006);
            if newest(&world) > Some(1) && moved_at.is_none() {
                moved_at = Some(second);
            }
        }
        assert!(moved_at.is_some_and(|second| second <= 10), "seed {seed}: moved at {moved_at:?}");
        assert!(newest(&world) <= Some(3), "seed {seed}: {:?} generations in four minutes", newest(&world));
    }
}

#[test]
fn layers_come_back_when_the_other_phone_becomes_the_slow_one() {
    let mut world = steady();
    world.measure("b", 0.006);
    persist(&mut world);
    world.report(SegmentPhase::Ready);
    world.settle();
    world.measure("b", 0.002);
    world.wait(130);
    persist(&mut world);
    assert_eq!(layers(&world, 3), vec![], "for one session equal phones are as good either way");
    world.measure("a", 0.006);
    persist(&mut world);
    assert_eq!(layers(&world, 3), vec![("a".to_owned(), 0, 1), ("b".to_owned(), 1, 6)]);
}

#[test]
fn phones_that_are_slow_only_while_they_hold_much_do_not_make_layers_swing() {
    let mut world = steady();
    let newest = |world: &World| world.observed.placements.values().map(|one| one.spec.plan_generation).max().unwrap();
    world.measure("b", 0.006);
    for _ in 0..600 {
        let held = layers(&world, newest(&world));
        for (phone, from, to) in held {
            world.measure(&phone, if to - from > 2 { 0.006 } else { 0.002 });
        }
        world.wait(1);
        world.settle();
        world.report(SegmentPhase::Ready);
        world.settle();
    }
    assert!(newest(&world) <= 6, "{} plans in ten minutes", newest(&world));
}

#[test]
fn a_restart_forgets_nothing_that_the_balancer_needs() {
    let mut world = steady();
    world.measure("b", 0.006);
    world.settle();
    assert_eq!(world.condition("Balanced"), "False Imbalanced");
    world.restart();
    for name in ["a", "b"] {
        world.join(name, 100);
    }
    world.report(SegmentPhase::Ready);
    world.measure("a", 0.002);
    world.measure("b", 0.006);
    world.settle();
    world.wait(3);
    world.settle();
    assert!(world.has_told("Rebalanced"), "{:?}", world.told);
}

#[test]
fn a_clock_that_was_set_back_does_not_cool_down_for_years() {
    let mut world = steady();
    world.wait(-365 * 24 * 3600);
    world.measure("b", 0.006);
    persist(&mut world);
    assert_eq!(world.generations().len(), 2, "{}", world.condition("Balanced"));
}

#[test]
fn a_plan_for_another_reason_does_not_end_a_row_of_moves() {
    let mut world = World::new().with_phones(&[100, 100, 100]).with_deployment(|spec| {
        spec.placement.min_phones = 2;
        spec.placement.max_phones = Some(2);
    });
    world = world.serving();
    for name in ["a", "b", "c"] {
        world.measure(name, 0.002);
    }
    world.wait(60);
    world.settle();
    world.measure("b", 0.006);
    persist(&mut world);
    let moves = |world: &World, generation| world.generation(generation)[0].spec.moves;
    assert_eq!(moves(&world, 2), 1);
    world.report(SegmentPhase::Ready);
    world.settle();
    let lost = world.generation(2)[0].spec.phone.clone();
    world.lose(&lost);
    world.settle();
    assert_eq!(moves(&world, 3), 1);
}

#[test]
fn each_replica_has_been_out_of_balance_for_a_time_of_its_own() {
    let mut world = World::new().with_phones(&[100, 100, 100, 100]).with_deployment(|spec| {
        spec.replicas = 2;
        spec.placement.min_phones = 2;
        spec.placement.max_phones = Some(2);
    });
    world = world.serving();
    for name in ["a", "b", "c", "d"] {
        world.measure(name, 0.002);
    }
    world.wait(60);
    world.settle();
    let ring = |world: &World, generation| -> Vec<String> {
        world.generation(generation).iter().map(|one| one.spec.phone.clone()).collect()
    };
    let (first, second) = (ring(&world, 1), ring(&world, 2));
    // The first cannot be helped for its cool-down; the second becomes imbalanced only now.
    for placement in world.observed.placements.values_mut().filter(|one| one.spec.plan_generation == 1) {
        let placement: &mut polyphony_api::SegmentPlacement = std::sync::Arc::make_mut(placement);
        placement.spec.moves = 7;
    }
    world.measure(&first[1], 0.006);
    world.settle();
    assert_eq!(world.condition("Balanced"), "False CoolingDown");
    world.wait(100);
    world.measure(&second[1], 0.006);
    world.settle();
    assert_eq!(ring(&world, 3), [] as [&str; 0], "what the first has waited is not the second's");
    world.wait(3);
    world.settle();
    assert_eq!(ring(&world, 3).len(), 2);
}

#[test]
fn a_drained_phones_sessions_move_with_their_kv_cache() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    let holder = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
    world.edit_phone(&holder, |phone| phone.spec.drain = true);
    world.settle();
    assert!(world.generation(2).iter().all(|one| one.spec.follows == Some(1)));
    // Another shape of KV cache cannot be taken over.
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.settle();
    assert!(world.generation(2).iter().all(|one| one.spec.follows.is_none()));
}

#[test]
fn the_published_balancer_gives_one_layer_away_and_moves_no_session() {
    type Edit = fn(&mut InferenceDeploymentSpec);
    let published_plan: Edit = |spec| spec.placement.strategy = Strategy::LinguaLinked;
    let optimal_plan: Edit = |spec| {
        spec.placement.min_phones = 2;
        spec.objective = Objective::Throughput;
        spec.load_balancing.strategy = BalancingStrategy::LinguaLinked;
    };
    gives_one_layer_away(80, published_plan);
    gives_one_layer_away(100, optimal_plan);
}

fn gives_one_layer_away(mib: u64, is_published: fn(&mut InferenceDeploymentSpec)) {
    let mut world = World::new().with_phones(&[mib, mib]).with_deployment(is_published).serving();
    world.measure("a", 0.002);
    world.measure("b", 0.006);
    world.wait(60);
    let count = |world: &World, generation: u64| -> Vec<u32> {
        layers(world, generation).iter().map(|(_, from, to)| to - from).collect()
    };
    let before = count(&world, 1);
    persist(&mut world);
    let after = count(&world, 2);
    assert_eq!((before[0] + 1, before[1] - 1), (after[0], after[1]), "{before:?} {after:?}");
    // What is loaded is shared, and so is its room for sessions; yet none of them moves.
    assert!(world.generation(2).iter().all(|one| one.spec.follows == Some(1)));
    world.report(SegmentPhase::Ready);
    world.settle();
    let table = routes::table(&world.observed);
    let rings: Vec<_> = table.deployments.values().flat_map(|route| &route.rings).collect();
    assert!(rings.iter().all(|ring| ring.generation.0 == 2 && !ring.moves_sessions), "{rings:?}");
}

/// A small generator of numbers in [0, 1) (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
