//! Tables of decisions: who uses which phone, and what previews say of that.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polyphony_api::inference_deployment::Objective;
use polyphony_model::STEP_ROWS;
use polyphony_placement::Infeasible;
use polyphony_protocol::hub::SegmentPhase;

use super::super::decide_with;
use super::super::fixtures::{World, key};
use crate::models::Progress;
use crate::reconcile::preview::{self, Prompt, preview};

/// Another deployment like the first.
fn and_another(world: &mut World, name: &str) {
    let mut other = world.observed.deployments[&key("d")].as_ref().clone();
    other.metadata.name = Some(name.to_owned());
    other.metadata.uid = Some(format!("{name}-uid"));
    other.status = None;
    world.observed.deployments.insert(key(name), Arc::new(other));
}

/// Phones by deployment.
fn phones(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for placement in world.observed.placements.values() {
        found.entry(placement.spec.deployment.clone()).or_default().insert(placement.spec.phone.clone());
    }
    found
}

#[test]
fn two_small_deployments_on_idle_phones_do_not_share_one() {
    let mut world = World::new().with_phones(&[300, 300, 300, 300]).with_deployment(|_| ());
    and_another(&mut world, "e");
    world.settle();
    let phones = phones(&world);
    assert!(phones["d"].is_disjoint(&phones["e"]), "{phones:?}");
}

#[test]
fn a_deployment_that_takes_others_for_idle_is_placed_as_if_it_were_alone() {
    let mut world = World::new().with_phones(&[300, 300, 300, 300]).with_deployment(|_| ());
    world.settle();
    let alone = phones(&world)["d"].clone();
    and_another(&mut world, "e");
    let other = world.observed.deployments.get_mut(&key("e")).unwrap();
    Arc::make_mut(other).spec.placement.assume_others_idle = true;
    world.settle();
    assert_eq!(phones(&world)["e"], alone, "the best phones are taken, and good all the same");
}

#[test]
fn deployments_share_the_only_phone_there_is_where_both_allow_it() {
    for (allows, expected) in [(true, 2), (false, 1)] {
        let mut world = World::new().with_phones(&[300]).with_deployment(|_| ());
        and_another(&mut world, "e");
        world.edit_deployment(|deployment| deployment.spec.placement.allow_sharing = allows);
        world.settle();
        assert_eq!(phones(&world).len(), expected, "sharing allowed: {allows}");
    }
}

#[test]
fn what_a_person_changes_is_applied_with_the_balancer_off_too() {
    type Edit = fn(&mut polyphony_api::InferenceDeploymentSpec);
    let table: [(&str, Edit); 2] = [
        ("spec.objective is now Throughput", |spec| spec.objective = Objective::Throughput),
        ("allowSharing is now false", |spec| spec.placement.allow_sharing = false),
    ];
    for (why, edit) in table {
        let mut world = World::new().with_phones(&[300]).with_deployment(|spec| spec.load_balancing.enabled = false);
        and_another(&mut world, "e");
        world.settle();
        assert_eq!(phones(&world)["d"], phones(&world)["e"], "one phone is all there is");
        // Others come, and nothing moves by itself.
        for name in ["b", "c"] {
            world.join(name, 300);
        }
        world.report(SegmentPhase::Ready);
        world.settle();
        assert_eq!(world.generations().len(), 1, "{:?}", world.generations());
        world.told.clear();
        world.edit_deployment(|deployment| edit(&mut deployment.spec));
        world.settle();
        let told = world.told.iter().any(|(reason, note)| reason == "Replanned" && note.contains(why));
        assert!(told, "{why}: {:?}", world.told);
        world.report(SegmentPhase::Ready);
        world.settle();
        assert_eq!(world.condition("Degraded"), "False AsDesired", "{why}");
        world.told.clear();
        world.settle();
        assert!(world.told.is_empty(), "{why}: once is enough: {:?}", world.told);
    }
}

#[test]
fn a_preview_is_what_the_controller_then_does() {
    let mut world = World::new().with_phones(&[60, 45, 60, 300]).with_deployment(|_| ());
    for (name, gflops) in [("a", 12.3456), ("b", 7.6543), ("c", 11.1111), ("d", 9.8765)] {
        let speed = &mut world.phone(name).join.as_mut().unwrap().speeds[0];
        (speed.gflops, speed.batch_gflops, speed.gigabytes_per_second) = (gflops, gflops * 1.5, gflops / 3.0);
    }
    // One that serves already, on the roomy phone, as phones and ledger have to know.
    world.settle();
    and_another(&mut world, "e");
    let placements = world.observed.placements.values().map(|placement| placement.as_ref().clone()).collect();
    let known = preview::World {
        now: world.observed.now,
        phones: world.observed.phones.values().map(|seen| seen.object.as_ref().unwrap().as_ref().clone()).collect(),
        deployments: world.observed.deployments.values().map(|one| one.as_ref().clone()).collect(),
        placements,
    };
    let Some(Progress::Resolved(resolved)) = &world.observed.models[&key("m")].progress else { panic!("not resolved") };
    let prompt = Prompt { n_tokens: 128, chunk_tokens: STEP_ROWS };
    let previews =
        preview(&known, &world.observed.deployments[&key("e")], &resolved.manifest, &resolved.digest, prompt);
    let planned = previews[0].planned.as_ref().unwrap();
    world.settle();
    let mut made: Vec<_> =
        world.observed.placements.values().filter(|placement| placement.spec.deployment == "e").collect();
    made.sort_by_key(|placement| placement.spec.stage);
    assert_eq!(made.len(), planned.plan.stages.len());
    for (placement, stage) in made.iter().zip(&planned.plan.stages) {
        let step = ((stage.predicted_seconds + stage.predicted_hop_seconds) * 1e6).round() as u64;
        let of_stage = (&stage.phone, stage.holds.layers_from, stage.holds.layers_to, step);
        let spec = &placement.spec;
        assert_eq!(
            (&spec.phone, spec.holds.from, spec.holds.to, spec.predicted_step_microseconds),
            of_stage,
            "the controller does otherwise than was told"
        );
    }
}

#[test]
fn a_plan_that_the_checker_rejects_is_told_as_a_fault_of_ours() {
    let mut world = World::new().with_phones(&[300, 20]).with_deployment(|_| ());
    world.edit_phone("b", |phone| phone.spec.unschedulable = true);
    for _ in 0..3 {
        let rejected = || Infeasible::Rejected { violation: "the plan has no stages".into() };
        let decision = decide_with(&world.observed, &|_| Err(rejected().into()));
        decision.actions().for_each(|action| world.carry_out(action));
    }
    assert_eq!(world.condition("Available"), "False PlanRejected");
    let message = world.message("Available");
    assert!(message.contains("a fault of Polyphony") && message.contains("no stages"), "{message}");
    assert!(!message.contains("add phones") && !message.contains("not counted"), "{message}");
}
