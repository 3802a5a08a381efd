//! Tests of numerics classes: a deployment's wish decides, phones that have nothing of it are left out, and each class has its own figures.
#![allow(clippy::unwrap_used)]

use polyphony_api::condition::is_true;
use polyphony_api::inference_deployment::ActivationType;
use polyphony_api::numerics::{Arithmetic, KvCache, Prefill};
use polyphony_protocol::hub::{BackendFault, SegmentPhase, Speed};

use super::super::fixtures::World;
use super::three_phones;

fn classes(world: &World) -> Vec<String> {
    let mut classes: Vec<String> =
        world.observed.placements.values().map(|placement| placement.spec.numerics_class.clone()).collect();
    classes.dedup();
    classes
}

/// All phones compute in these, with so many GFLOP/s and GB/s.
fn compute_in(world: &mut World, numerics: &[(&str, f64)]) {
    let names: Vec<String> = world.observed.phones.keys().cloned().collect();
    for name in names {
        let join = world.phone(&name).join.as_mut().unwrap();
        let speed = |(numerics, gflops): &(&str, f64)| Speed {
            backend: numerics.split('-').next().unwrap().into(),
            numerics: (*numerics).into(),
            gflops: *gflops,
            gigabytes_per_second: *gflops,
            ..join.speeds[0].clone()
        };
        join.speeds = numerics.iter().map(speed).collect();
        join.numerics = numerics[0].0.into();
    }
}

const BOTH: [(&str, f64); 4] =
    [("cpu-f32-r1", 8.0), ("cpu-int8-r2", 20.0), ("vulkan-f32-r1-x", 30.0), ("vulkan-int8-r2-x", 15.0)];

#[test]
fn a_deployment_chooses_its_arithmetic_and_the_planner_the_backend() {
    for (arithmetic, expected) in
        [(Arithmetic::Int8, "cpu-int8-r2/f16/kv-f16"), (Arithmetic::F32, "vulkan-f32-r1-x/f16/kv-f16")]
    {
        let mut world =
            World::new().with_phones(&[60, 60, 60]).with_deployment(|spec| spec.numerics.arithmetic = arithmetic);
        compute_in(&mut world, &BOTH);
        world.settle();
        assert_eq!(classes(&world), [expected]);
    }
}

#[test]
fn a_wish_that_changes_makes_another_plan_and_says_which_field_it_was() {
    let mut world = three_phones();
    compute_in(&mut world, &BOTH);
    world.settle();
    let before = world.generations();
    world.edit_deployment(|deployment| deployment.spec.numerics.kv_cache = KvCache::Q8);
    world.settle();
    assert_ne!(world.generations(), before);
    assert!(classes(&world).contains(&"cpu-int8-r2/f16/kv-q8".to_owned()), "{:?}", classes(&world));
    world.edit_deployment(|deployment| deployment.spec.transport.activation_type = Some(ActivationType::Q8));
    world.settle();
    assert!(classes(&world).contains(&"cpu-int8-r2/q8/kv-q8".to_owned()), "{:?}", classes(&world));
}

/// An agent of protocol 2.0 names one class and no types of KV caches.
#[test]
fn an_older_agent_serves_what_it_always_served_and_nothing_else() {
    let older = |world: &mut World, name: &str| {
        let join = world.phone(name).join.as_mut().unwrap();
        join.kv_caches.clear();
        join.speeds[0].numerics.clear();
        join.numerics = "cpu-f32-r1".into();
    };
    let mut world = three_phones();
    ["a", "b", "c"].into_iter().for_each(|name| older(&mut world, name));
    world.settle();
    assert!(world.condition("Available").starts_with("False "));
    let message = world.message("Available");
    assert!(message.contains("spec.numerics asks for"), "{message}");
    world.edit_deployment(|deployment| {
        deployment.spec.numerics.arithmetic = Arithmetic::F32;
        deployment.spec.numerics.kv_cache = KvCache::F32;
    });
    world.settle();
    assert_eq!(classes(&world), ["cpu-f32-r1/f16/kv-f32"]);
}

#[test]
fn what_is_kept_smaller_takes_less_of_a_phone() {
    let planned = |kv_cache| {
        let mut world = World::new().with_phones(&[300]).with_deployment(|spec| {
            spec.numerics.kv_cache = kv_cache;
            spec.context_length = 4096;
        });
        world.settle();
        world.observed.placements.values().map(|placement| placement.spec.planned_bytes).sum::<u64>()
    };
    let [f32, f16, q8] = [KvCache::F32, KvCache::F16, KvCache::Q8].map(planned);
    // Of caches alone the second is half and the third a little over a quarter.
    assert!(f32 > f16 && f16 > q8 && q8 > 0, "{f32}, {f16}, {q8}");
    let (half, quarter) = (f32 - f16, f32 - q8);
    assert!(quarter * 2 < half * 3 && quarter * 5 > half * 7, "{half} and {quarter} less");
}

#[test]
fn a_phone_tells_the_speed_of_every_class_and_times_are_remembered_by_class() {
    let mut world = three_phones();
    compute_in(&mut world, &BOTH);
    world.settle();
    let status = world.observed.phones["a"].object.clone().unwrap().status.clone().unwrap();
    assert_eq!(status.speeds.as_deref(), Some("cpu-f32 8.00, cpu-int8 20.00, vulkan-f32 30.00, vulkan-int8 15.00"));
    let named: Vec<_> = status.backends.iter().filter_map(|speed| speed.numerics.as_deref()).collect();
    assert_eq!(named, BOTH.map(|(numerics, _)| numerics));
    assert_eq!(status.kv_caches, [KvCache::F32, KvCache::F16, KvCache::Q8]);
}

/// A status is anybody's to edit, and an agent of some later version may say what this controller does not expect.
#[test]
fn a_class_that_is_told_twice_counts_once_and_a_cache_that_nobody_knows_is_none() {
    let mut world = three_phones();
    compute_in(&mut world, &[("cpu-int8-r2", 8.0), ("cpu-int8-r2", 9.0)]);
    world.settle();
    assert_eq!(classes(&world), ["cpu-int8-r2/f16/kv-f16"]);
    let mut world = three_phones();
    ["a", "b", "c"].into_iter().for_each(|name| world.phone(name).join.as_mut().unwrap().kv_caches = vec!["q2".into()]);
    world.edit_deployment(|deployment| deployment.spec.numerics.kv_cache = KvCache::F32);
    world.settle();
    assert!(classes(&world).is_empty(), "{:?}", classes(&world));
}

/// An older version of the agent, or another `--backend`.
#[test]
fn a_phone_that_does_not_compute_in_the_plans_class_any_more_is_replaced() {
    let mut world = three_phones();
    compute_in(&mut world, &BOTH);
    world.settle();
    let before = world.generations();
    compute_in(&mut world, &[("vulkan-int8-r2-x", 15.0)]);
    world.settle();
    assert_ne!(world.generations(), before);
    assert!(classes(&world).contains(&"vulkan-int8-r2-x/f16/kv-f16".to_owned()), "{:?}", classes(&world));
}

#[test]
fn a_phone_of_which_a_backend_failed_goes_on_with_another_and_has_not_failed_itself() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|spec| spec.numerics.arithmetic = Arithmetic::F32);
    compute_in(&mut world, &BOTH);
    world.settle();
    assert_eq!(classes(&world), ["vulkan-f32-r1-x/f16/kv-f16"]);
    let say = |world: &mut World, name: &str, faults: &[&str]| {
        let fault = |numerics: &&str| BackendFault {
            backend: "vulkan".into(),
            device: "a GPU".into(),
            numerics: (*numerics).into(),
            reason: "a layer gives 2 where 1 is right".into(),
        };
        world.phone(name).heartbeat.get_or_insert_default().faults = Some(faults.iter().map(fault).collect());
    };
    say(&mut world, "a", &[]);
    world.report(SegmentPhase::Ready);
    world.settle();
    let status =
        |world: &World, name: &str| world.observed.phones[name].object.clone().unwrap().status.clone().unwrap();
    assert!(status(&world, "a").backends.iter().all(|backend| backend.verified == Some(true)));
    assert!(!is_true(&status(&world, "a").conditions, "BackendFaulty"));

    say(&mut world, "a", &["vulkan-f32-r1-x", "vulkan-int8-r2-x"]);
    world.report(SegmentPhase::Failed);
    world.settle();
    assert_eq!(classes(&world), ["cpu-f32-r1/f16/kv-f16"]);
    assert_eq!(world.failures("a"), [], "the phone has not failed");
    let after = status(&world, "a");
    assert_eq!(
        after.backends.iter().map(|backend| backend.verified.unwrap()).collect::<Vec<_>>(),
        [true, true, false, false]
    );
    assert!(after.backends[2].fault.as_ref().unwrap().contains("2 where 1"));
    assert!(is_true(&after.conditions, "BackendFaulty") && world.has_told("BackendFaulty"));

    // A controller that starts anew has the word of its Phone until it hears of it again.
    world.phone("a").heartbeat = None;
    assert_eq!(world.phone("a").fault_of("vulkan-f32-r1-x"), Some("a layer gives 2 where 1 is right"));
    assert_eq!(world.phone("a").fault_of("cpu-f32-r1"), None);
    // Another life of the agent has asked anew.
    world.phone("a").join.as_mut().unwrap().instance = "another".into();
    assert_eq!(world.phone("a").fault_of("vulkan-f32-r1-x"), None);
}

/// What it keeps of sessions may be as wrong as what it computes.
#[test]
fn no_kv_cache_of_a_faulty_device_is_taken_over() {
    for (is_faulty, expected) in [(true, None), (false, Some(1))] {
        let mut world = World::new().with_phones(&[100, 100, 100, 100]).with_deployment(|spec| {
            spec.numerics.arithmetic = Arithmetic::F32;
        });
        compute_in(&mut world, &[("vulkan-f32-r1-x", 30.0)]);
        world.settle();
        world.report(SegmentPhase::Ready);
        world.settle();
        let phone = world.generation(1)[0].spec.phone.clone();
        if is_faulty {
            let fault = BackendFault {
                backend: "vulkan".into(),
                device: "a GPU".into(),
                numerics: "vulkan-f32-r1-x".into(),
                reason: "a layer gives 2 where 1 is right".into(),
            };
            world.phone(&phone).heartbeat.get_or_insert_default().faults = Some(vec![fault]);
        } else {
            world.edit_phone(&phone, |phone| phone.spec.drain = true);
        }
        world.settle();
        let next = world.generation(2);
        assert!(!next.is_empty() && next.iter().all(|one| one.spec.phone != phone), "{next:?}");
        assert!(next.iter().all(|one| one.spec.follows == expected), "{next:?}");
    }
}

/// A device that came to nothing has no class, and no speed to plan with.
#[test]
fn a_gpu_that_does_not_open_is_told_beside_what_the_phone_has() {
    let mut world = three_phones();
    let fault = BackendFault {
        backend: "vulkan".into(),
        device: String::new(),
        numerics: String::new(),
        reason: "it was not measured within 60s".into(),
    };
    world.phone("a").heartbeat.get_or_insert_default().faults = Some(vec![fault]);
    world.settle();
    let status = world.observed.phones["a"].object.clone().unwrap().status.clone().unwrap();
    let gpu = status.backends.last().unwrap();
    assert_eq!((gpu.name.as_str(), gpu.numerics.as_ref(), gpu.verified), ("vulkan", None, Some(false)));
    assert!(is_true(&status.conditions, "BackendFaulty"));
    assert!(world.phone("a").fault_of("cpu-f32-r1").is_none());
}

/// The GPU reads prompts four times as fast and decodes a little slower, as phones' GPUs do with small models.
#[test]
fn whoever_has_long_prompts_gets_the_backend_that_reads_them_fast() {
    let planned = |prompt_tokens, weight| {
        let mut world = World::new().with_phones(&[300]).with_deployment(|spec| {
            spec.numerics.arithmetic = Arithmetic::F32;
            spec.context_length = 4096;
            spec.prompt_tokens = prompt_tokens;
            spec.time_to_first_token_weight = weight;
        });
        compute_in(&mut world, &[("cpu-f32-r1", 30.0), ("vulkan-f32-r1-x", 29.0)]);
        for speed in &mut world.phone("a").join.as_mut().unwrap().speeds {
            speed.prefill_gflops = if speed.backend == "cpu" { 60.0 } else { 240.0 };
        }
        world.settle();
        let placement = world.observed.placements.values().next().unwrap().spec.clone();
        let status = world.observed.deployments.values().next().unwrap().status.clone().unwrap();
        let seconds = status.time_to_first_token_seconds.unwrap();
        (placement.numerics_class, placement.predicted_step_microseconds, seconds)
    };
    let (class, cpu_step, _) = planned(None, None);
    assert!(class.starts_with("cpu-f32-r1/"), "{class}");
    let (class, gpu_step, _) = planned(Some(4000), None);
    assert!(class.starts_with("vulkan-f32-r1-x/"), "{class}");
    // What is told of a plan is what a token takes, without the prompt that it was weighed with.
    let ratio = gpu_step as f64 / cpu_step as f64;
    assert!((1.0..1.3).contains(&ratio), "{gpu_step} µs beside {cpu_step} µs");
    assert!(planned(Some(4000), Some(0.0)).0.starts_with("cpu-f32-r1/"), "it is to count for nothing");
    assert!(planned(Some(2), None).0.starts_with("cpu-f32-r1/"), "a prompt of two tokens is read soon");
    // And it is of the prompt that was named.
    assert!(planned(Some(512), Some(0.0)).2 < planned(Some(1024), Some(0.0)).2);
}

/// However fast the GPU reads: bits that a replay may change are for those who ask for them.
#[test]
fn prompts_are_read_on_gpus_where_a_deployment_asks_for_it_alone() {
    let planned = |prefill, numerics: &[(&str, f64)]| {
        let mut world = World::new().with_phones(&[300]).with_deployment(|spec| {
            spec.context_length = 4096;
            spec.prompt_tokens = Some(4000);
            spec.numerics.prefill = prefill;
        });
        compute_in(&mut world, numerics);
        for speed in &mut world.phone("a").join.as_mut().unwrap().speeds {
            speed.prefill_gflops = if speed.backend == "cpu" { 40.0 } else { 400.0 };
        }
        world.settle();
        world
    };
    let all = [("cpu-int8-r2", 20.0), ("vulkan-int8-r2-x", 1.0), ("mixed-int8-r2", 20.0), ("mixed-f32-r1", 20.0)];
    assert_eq!(classes(&planned(Some(Prefill::Gpu), &all)), ["mixed-int8-r2/f16/kv-f16"]);
    assert!(!classes(&planned(None, &all))[0].starts_with("mixed"));
    let mut without = planned(Some(Prefill::Gpu), &all[..2]);
    let message = without.message("Available");
    assert!(message.contains("for `prefill: Gpu` it needs a GPU"), "{message}");
    let fault = BackendFault {
        backend: "vulkan".into(),
        device: "a GPU".into(),
        numerics: "vulkan-int8-r2-x".into(),
        reason: "it hangs".into(),
    };
    without.phone("a").heartbeat.get_or_insert_default().faults = Some(vec![fault]);
    without.settle();
    let message = without.message("Available");
    assert!(message.contains("is set aside"), "{message}");
    // A wish that is taken back makes another plan.
    without.edit_deployment(|deployment| deployment.spec.numerics.prefill = None);
    without.settle();
    assert_eq!(classes(&without).len(), 1);
}

#[test]
fn where_every_backend_failed_the_deployment_says_so_and_what_helps() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|spec| spec.numerics.arithmetic = Arithmetic::F32);
    compute_in(&mut world, &BOTH);
    let fault = |(numerics, _): &(&str, f64)| BackendFault {
        backend: numerics.split('-').next().unwrap().into(),
        device: "a device".into(),
        numerics: (*numerics).into(),
        reason: "it hangs".into(),
    };
    world.phone("a").heartbeat.get_or_insert_default().faults = Some(BOTH.iter().map(fault).collect());
    world.settle();
    let message = world.message("Available");
    assert!(message.contains("set aside") && message.contains("start its agent anew"), "{message}");
}
