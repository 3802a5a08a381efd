//! Tables of decisions: phones: who may hold segments, objects and leases.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use polyphony_protocol::hub::{SegmentPhase, Withdrawal, WithdrawalReason};

use super::super::fixtures::World;
use super::three_phones;

fn withdraw(world: &mut World, name: &str, reason: WithdrawalReason) {
    let heartbeat = world.phone(name).heartbeat.as_mut().unwrap();
    heartbeat.withdrawal = Some(Withdrawal { reason, message: "at 2 %".into() });
}

#[test]
fn a_phone_s_own_word_is_told_once_and_its_figures_are_not() {
    let mut world = World::new().with_phones(&[60]);
    world.settle();
    withdraw(&mut world, "a", WithdrawalReason::BatteryLow);
    world.settle();
    let withdrawn = |world: &World| {
        let status = world.observed.phones["a"].object.as_ref().unwrap().status.clone().unwrap();
        let found = polyphony_api::condition::find(&status.conditions, "Withdrawn").unwrap().clone();
        (found.status, found.reason, found.message)
    };
    let low = ("True".to_owned(), "BatteryLow".to_owned(), "at 2 %".to_owned());
    assert_eq!(withdrawn(&world), low);
    world.phone("a").heartbeat.as_mut().unwrap().withdrawal.as_mut().unwrap().message = "at 1 %".into();
    assert_eq!((world.settle().len(), withdrawn(&world)), (0, low));
    world.phone("a").heartbeat.as_mut().unwrap().withdrawal = None;
    world.settle();
    assert_eq!(withdrawn(&world).0, "False");
    let told: Vec<&str> = world.told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(told.iter().filter(|reason| ["Withdrawn", "TakesPart"].contains(reason)).count(), 2, "{told:?}");
}

#[test]
fn a_phone_that_said_that_it_leaves_may_go() {
    let mut world = World::new().with_phones(&[60]);
    world.settle();
    withdraw(&mut world, "a", WithdrawalReason::Leaving);
    world.settle();
    world.lose("a");
    world.settle();
    assert_eq!(world.departures("a"), 0, "nobody holds it against it");
}

#[test]
fn cordoned_hot_low_and_unlabelled_phones_get_nothing() {
    type Edit = fn(&mut World);
    let table: [(&str, Edit); 6] = [
        ("withdrawn", |world| withdraw(world, "a", WithdrawalReason::Paused)),
        ("draining", |world| world.edit_phone("a", |phone| phone.spec.drain = true)),
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
fn a_cordon_moves_nothing_and_a_drain_moves_what_runs() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    let before = world.generations();
    let holder = before[0].split(' ').nth(1).unwrap().to_owned();
    world.edit_phone(&holder, |phone| phone.spec.unschedulable = true);
    assert_eq!((world.settle().len(), world.generations()), (0, before), "cordoned");

    world.edit_phone(&holder, |phone| phone.spec.drain = true);
    world.settle();
    let generations = world.generations();
    assert!(generations.len() == 2 && !generations[1].contains(&holder), "{generations:?}");
    assert_eq!(world.condition("Available"), "True Serving", "the old plan answers until the new one is ready");
    world.report(SegmentPhase::Ready);
    world.settle();
    let generations = world.generations();
    assert!(generations.len() == 1 && generations[0].starts_with("g2: "), "{generations:?}");
    assert!(world.told.iter().any(|(reason, note)| reason == "Replanned" && note.contains("is to be drained")));
}

#[test]
fn heat_charge_and_the_power_policy_drain_a_phone_that_serves() {
    type Edit = fn(&mut World, &str);
    let hot: Edit = |world, name| world.phone(name).heartbeat.as_mut().unwrap().temperature_celsius = Some(50.0);
    let low: Edit = |world, name| world.phone(name).heartbeat.as_mut().unwrap().battery_percent = Some(5);
    let warm: Edit = |world, name| {
        world.edit_deployment(|one| one.spec.placement.power_policy.max_temperature_celsius = Some(40.0));
        world.phone(name).heartbeat.as_mut().unwrap().temperature_celsius = Some(41.0);
    };
    let discharged: Edit = |world, name| {
        world.edit_deployment(|one| one.spec.placement.power_policy.min_battery_percent = Some(20));
        world.phone(name).heartbeat.as_mut().unwrap().battery_percent = Some(19);
    };
    let withdrawn: Edit = |world, name| {
        world.edit_deployment(|one| one.spec.placement.power_policy.min_battery_percent = Some(0));
        withdraw(world, name, WithdrawalReason::BatteryLow);
    };
    let table = [
        (withdrawn, "takes no part any more"),
        (hot, "is too hot"),
        (low, "is low on battery"),
        (warm, "does not meet spec.placement.powerPolicy"),
        (discharged, "does not meet spec.placement.powerPolicy"),
    ];
    for (set, why) in table {
        let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
        let holder = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
        set(&mut world, &holder);
        world.settle();
        let generations = world.generations();
        assert!(generations.len() == 2 && !generations[1].contains(&holder), "{why}: {generations:?}");
        assert_eq!(world.condition("Available"), "True Serving", "{why}");
        let told = world.told.iter().any(|(reason, note)| reason == "Replanned" && note.contains(why));
        assert!(told, "{why}: {:?}", world.told);
    }
}

#[test]
fn a_power_policy_that_is_looser_keeps_segments_on_a_warm_phone_and_on_a_low_one() {
    type Edit = fn(&mut World, &str);
    let hot: Edit = |world, name| {
        world.edit_deployment(|one| one.spec.placement.power_policy.max_temperature_celsius = Some(60.0));
        world.phone(name).heartbeat.as_mut().unwrap().temperature_celsius = Some(50.0);
    };
    let low: Edit = |world, name| {
        world.edit_deployment(|one| one.spec.placement.power_policy.min_battery_percent = Some(5));
        world.edit_phone(name, |phone| phone.spec.min_battery_percent = Some(40));
        world.phone(name).heartbeat.as_mut().unwrap().battery_percent = Some(10);
    };
    for set in [hot, low] {
        let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
        let before = world.generations();
        let holder = before[0].split(' ').nth(1).unwrap().to_owned();
        set(&mut world, &holder);
        world.settle();
        assert_eq!((world.generations(), world.condition("Degraded")), (before, "False AsDesired".to_owned()));
        // Nor is it kept from a first plan.
        let mut world = World::new().with_phones(&[300]).with_deployment(|spec| spec.replicas = 0);
        set(&mut world, "a");
        world.settle();
        world.edit_deployment(|deployment| deployment.spec.replicas = 1);
        world.settle();
        assert_eq!(world.generations(), ["g1: a"]);
    }
}

#[test]
fn a_battery_that_was_low_comes_back_five_points_above() {
    let mut world = World::new().with_phones(&[60]);
    for (percent, low) in [(15, false), (14, true), (15, true), (19, true), (20, false), (15, false)] {
        world.phone("a").heartbeat.as_mut().unwrap().battery_percent = Some(percent);
        world.settle();
        let status = world.observed.phones["a"].object.as_ref().unwrap().status.clone().unwrap();
        assert_eq!(polyphony_api::condition::is_true(&status.conditions, "BatteryLow"), low, "at {percent} %");
    }
}

#[test]
fn a_battery_that_was_low_is_so_on_a_charger_too_until_it_has_charged() {
    let mut world = World::new().with_phones(&[60]);
    let looks = [(14, true, false), (14, false, true), (14, true, true), (19, true, true), (20, true, false)];
    for (percent, charging, low) in looks {
        let heartbeat = world.phone("a").heartbeat.as_mut().unwrap();
        (heartbeat.battery_percent, heartbeat.charging) = (Some(percent), Some(charging));
        world.settle();
        let status = world.observed.phones["a"].object.as_ref().unwrap().status.clone().unwrap();
        let found = polyphony_api::condition::is_true(&status.conditions, "BatteryLow");
        assert_eq!(found, low, "at {percent} %, charging: {charging}");
    }
}

#[test]
fn a_drain_that_no_other_phone_can_take_leaves_the_segment_and_says_so() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    let before = world.generations();
    world.edit_phone("a", |phone| phone.spec.drain = true);
    world.settle();
    assert_eq!((world.generations(), world.condition("Available")), (before, "True Serving".to_owned()));
    assert!(
        world.message("Degraded").starts_with("a is to be drained; no other plan: "),
        "{}",
        world.message("Degraded")
    );
    world.edit_phone("a", |phone| phone.spec.drain = false);
    world.settle();
    assert_eq!(world.condition("Degraded"), "False AsDesired");
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
    world.phone("a").join.as_mut().unwrap().speeds[0].numerics = "vulkan-int8".into();
    world.settle();
    assert_eq!(world.generations(), vec!["g1: b c"]);
    let classes: Vec<_> =
        world.observed.placements.values().map(|placement| placement.spec.numerics_class.clone()).collect();
    assert!(classes.iter().all(|class| class == "cpu-int8/f16/kv-f16"), "{classes:?}");
}

#[test]
fn a_phone_that_returns_keeps_its_spec_and_one_that_was_deleted_is_not_made_anew() {
    let mut world = World::new().with_phones(&[60, 60]);
    world.phone("b").object = None;
    world.settle();
    assert!(world.has_told("Joined") && world.observed.phones["b"].object.is_none());
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
fn layers_that_see_text_are_on_trusted_phones_alone() {
    let label = |is_own: bool| is_own.then(|| BTreeMap::from([("trust.polyphony.dev/own".to_owned(), String::new())]));
    let selector = r#"{"matchExpressions": [{"key": "trust.polyphony.dev/own", "operator": "Exists"}]}"#;
    for has_encoder in [false, true] {
        let world = World::new().with_phones(&[100, 100, 100, 100, 100]);
        let world = if has_encoder { world.with_encoder() } else { world };
        let mut world = world.with_deployment(|spec| {
            (spec.placement.min_phones, spec.placement.max_phones) = (4, Some(4));
            spec.placement.trusted_phones = serde_json::from_str(selector).unwrap();
        });
        world.settle();
        assert_eq!(world.condition("Available"), "False NoTrustedPhones");
        let remedy = world.message("Available");
        assert!(remedy.contains("spec.placement.trustedPhones"), "{remedy}");

        // The phones that have layers which see text, kept ready ones among them.
        let seeing = |world: &World, number: u64| {
            let stages = world.generation(number);
            assert_eq!(stages.len(), 4);
            let sees = |from: u32, to: u32| from == 0 || to == 6 || (has_encoder && (from..to).contains(&3));
            let mut names: Vec<String> = Vec::new();
            for stage in stages {
                let holds = (stage.spec.holds.from, stage.spec.holds.to);
                let kept = stage.spec.standby.as_ref().map_or(holds, |kept| (kept.from, kept.to));
                names.extend(sees(kept.0, kept.1).then(|| stage.spec.phone.clone()));
            }
            names.sort();
            names.dedup();
            names
        };
        for name in ["b", "d", "e"] {
            world.edit_phone(name, |phone| phone.metadata.labels = label(true));
        }
        world.settle();
        let first = seeing(&world, 1);
        assert!(first.iter().all(|name| ["b", "d", "e"].contains(&name.as_str())), "{first:?}");

        world.report(SegmentPhase::Ready);
        world.settle();
        assert_eq!(world.condition("Available"), "True Serving");
        world.edit_phone(&first[0], |phone| phone.metadata.labels = label(false));
        world.edit_phone("a", |phone| phone.metadata.labels = label(true));
        world.settle();
        assert!(world.told.iter().any(|(_, note)| note.contains("layers that see text")), "{:?}", world.told);
        let second = seeing(&world, 2);
        assert!(!second.contains(&first[0]), "{second:?}");
    }
}
