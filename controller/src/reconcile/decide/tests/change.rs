//! Tables of decisions: what a person changes or deletes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use polyphony_api::inference_deployment::Objective;
use polyphony_api::segment_placement::Phase;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{MIB, World, key};
use super::super::{Action, decide};
use super::three_phones;
use crate::models::{Progress, Reason, Refusal, Resolved};
use crate::routes;

#[test]
fn the_old_generation_goes_when_the_new_one_is_ready() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.settle();
    assert_eq!(world.generations().len(), 2, "both fit, so the old one serves on: {:?}", world.generations());
    assert_eq!(world.condition("Available"), "True Serving");
    world.busy(1);
    world.report(SegmentPhase::Ready);
    let actions = world.settle();
    assert!(actions.iter().any(|action| matches!(action, Action::DeletePlacement { .. })));
    assert_eq!(world.generations().len(), 1);
    let draining =
        world.observed.placements.values().filter(|placement| placement.metadata.deletion_timestamp.is_some());
    let phases: Vec<_> = draining.map(|placement| placement.status.as_ref().unwrap().phase).collect();
    assert!(
        !phases.is_empty() && phases.iter().all(|phase| *phase == Phase::Draining),
        "a session is still in it: {phases:?}"
    );
    assert_eq!(routes::table(&world.observed).deployments["d"].rings[0].generation.0, 2);
    world.busy(0);
    world.settle();
    assert_eq!(
        world.observed.placements.len(),
        world.generations()[0].split(' ').count() - 1,
        "the last session has ended"
    );
}

#[test]
fn an_old_generation_makes_room_when_two_do_not_fit() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.context_length = 128);
    world.settle();
    let generations = world.generations();
    assert_eq!(generations.len(), 1, "{generations:?}");
    assert!(generations[0].starts_with("g2"), "{generations:?}");
}

#[test]
fn a_drain_has_an_end_even_if_a_session_has_none() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.replicas = 0);
    world.busy(1);
    world.settle();
    assert_eq!(world.observed.placements.len(), 1);
    assert_eq!(world.condition("Available"), "False ScaledToZero");
    world.wait(601);
    world.settle();
    assert_eq!(world.observed.placements.len(), 0);
}

/// A deployment that was scaled to zero while an answer runs, on the one phone that there is.
fn draining() -> World {
    let mut world = World::new().with_phones(&[120]).with_deployment(|_| ()).serving();
    world.busy(1);
    world.edit_deployment(|deployment| deployment.spec.replicas = 0);
    world.settle();
    world
}

#[test]
fn a_plan_that_lacks_only_what_an_earlier_one_gives_back_is_to_come() {
    // Scaled down and up again, or deleted and made again, while an answer runs.
    for is_another in [false, true] {
        let mut world = draining();
        world.edit_deployment(|deployment| {
            deployment.spec.replicas = 1;
            deployment.metadata.generation = Some(2);
            if is_another {
                deployment.metadata.uid = Some("other".into());
                deployment.status = None;
            }
        });
        world.settle();
        assert_eq!(world.generations(), Vec::<String>::new());
        assert_eq!(world.condition("Progressing"), "True Loading");
        assert!(
            world.message("Available").contains("given back when")
                && world.message("Available").contains("default/d on a"),
            "{}",
            world.message("Available")
        );
        assert!(routes::table(&world.observed).deployments["d"].is_planned, "who asks may wait for it");
        world.busy(0);
        world.settle();
        assert_eq!(world.generations().len(), 1);
    }
    // What would not do even so is told.
    let mut world = draining();
    world.edit_deployment(|deployment| {
        deployment.spec.replicas = 1;
        deployment.spec.context_length = 1 << 20;
    });
    world.settle();
    assert!(world.condition("Progressing").starts_with("False"), "{}", world.condition("Progressing"));
}

#[test]
fn a_deleted_deployment_takes_its_placements_with_it() {
    let mut world = three_phones().serving();
    world.observed.deployments.clear();
    world.settle();
    assert_eq!(world.observed.placements.len(), 0);
}

#[test]
fn a_new_deployment_of_an_old_name_does_not_take_over_its_placements() {
    let mut world = three_phones().serving();
    world.edit_deployment(|deployment| {
        deployment.metadata.uid = Some("other".into());
        deployment.status = None;
    });
    world.settle();
    let generations = world.generations();
    assert_eq!(generations.len(), 1);
    assert!(generations[0].starts_with("g2"), "{generations:?}");
}

#[test]
fn a_model_that_is_missing_or_bad_is_named() {
    let mut world = three_phones();
    world.refuse_model(Reason::FileNotFound, "there is no file /m.gguf");
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelNotResolved");
    assert!(world.message("Available").contains("/m.gguf"));
    assert!(world.has_told("FileNotFound"));
    world.observed.models.clear();
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelNotFound");
}

#[test]
fn a_model_that_is_read_for_the_first_time_is_no_reason_to_warn() {
    let mut world = three_phones();
    world.observed.models.get_mut(&key("m")).unwrap().progress = Some(Progress::Verifying);
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelVerifying");
    for reason in ["ModelNotResolved", "ModelVerifying", "Verifying"] {
        assert!(!world.has_told(reason), "{reason}");
    }
}

#[test]
fn a_source_that_hangs_is_told_of_though_its_model_was_verified_before_and_what_serves_goes_on() {
    let mut world = three_phones().serving();
    let resolved = world.observed.models[&key("m")].progress.clone();
    let said = |world: &World| {
        let status = world.observed.models[&key("m")].object.status.clone().unwrap();
        status.conditions.iter().find(|found| found.type_ == "Resolved").map(|found| found.reason.clone())
    };
    assert_eq!(said(&world).as_deref(), Some("Verified"));
    let steps = [
        (Some(Progress::Verifying), "Verified", "False AsDesired"),
        (Some(Progress::Stalled { path: "/mnt/m.gguf".into() }), "Stalled", "True ModelStalled"),
        (Some(Progress::Verifying), "Verifying", "False AsDesired"),
        (resolved, "Verified", "False AsDesired"),
    ];
    for (progress, of_model, degraded) in steps {
        world.observed.models.get_mut(&key("m")).unwrap().progress = progress;
        world.settle();
        assert_eq!(said(&world).as_deref(), Some(of_model));
        assert_eq!(world.condition("Degraded"), degraded);
        assert_eq!(world.condition("Available"), "True Serving");
    }
}

#[test]
fn what_phones_have_loaded_is_available_only_where_its_text_can_be_read() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    let resolved = world.observed.models[&key("m")].progress.clone();
    let Some(Progress::Resolved(of)) = &resolved else { panic!("it is resolved") };
    let path = "/m.gguf".into();
    let other =
        Resolved { path, manifest: of.manifest.clone(), manifest_json: of.manifest_json.clone(), digest: "0".into() };
    let lost =
        |message: &str| Some(Progress::Refused(Refusal { reason: Reason::FileNotFound, message: message.to_owned() }));
    let mut available = |is_readable: bool, progress: Option<Progress>| {
        let digest = of.digest.clone();
        world.observed.readable_models = is_readable.then_some(digest).into_iter().collect();
        world.observed.models.get_mut(&key("m")).unwrap().progress = progress;
        world.settle();
        let is_available = world.condition("Available").starts_with("True");
        assert!(is_available || world.condition("Ready").starts_with("False"), "{}", world.condition("Ready"));
        let reason = routes::table(&world.observed).deployments["d"].unavailable_reason.clone();
        assert_eq!(reason, Some(world.message("Available")).filter(|_| !is_available));
        (world.condition("Available"), reason.unwrap_or_default())
    };
    // The controller has started again, and looks at the file.
    assert_eq!(available(false, Some(Progress::Verifying)).0, "True Serving");
    let (said, why) = available(false, lost("there is no file /m.gguf"));
    assert_eq!(said, "False ModelUnreadable");
    assert!(why.contains("there is no file /m.gguf") && why.contains("no tokenizer"), "{why}");
    // It is copied, and looked at again and again meanwhile.
    assert_eq!(available(false, Some(Progress::Verifying)), ("False ModelUnreadable".into(), why));
    assert_eq!(available(true, lost("there is no file /m.gguf")).0, "True Serving");
    assert_eq!(available(false, Some(Progress::Stalled { path: "/m.gguf".into() })).0, "False ModelUnreadable");
    assert_eq!(available(false, resolved.clone()).0, "True Serving");
    let (said, why) = available(false, Some(Progress::Resolved(std::sync::Arc::new(other))));
    assert_eq!(said, "False ModelUnreadable");
    assert!(why.contains("another file by now"), "{why}");
    // That one is being loaded, so nothing is wrong.
    assert_eq!(
        (world.condition("Progressing").as_str(), world.condition("Degraded").as_str()),
        ("True Loading", "False AsDesired")
    );
}

#[test]
fn a_file_that_is_copied_back_and_looked_at_meanwhile_makes_no_noise() {
    let mut world = three_phones().serving();
    world.observed.readable_models.clear();
    world.refuse_model(Reason::FileNotFound, "there is no file /m.gguf");
    world.settle();
    for _ in 0..3 {
        world.told.clear();
        world.observed.models.get_mut(&key("m")).unwrap().progress = Some(Progress::Verifying);
        world.settle();
        world.refuse_model(Reason::InvalidFile, "/m.gguf is truncated");
        world.settle();
        for (type_, said) in
            [("Available", "False"), ("Ready", "False"), ("Degraded", "True"), ("Progressing", "False")]
        {
            assert_eq!(world.condition(type_), format!("{said} ModelUnreadable"), "{type_}");
        }
        let of_deployment = ["ModelUnreadable", "ModelNotResolved", "Available", "Unavailable"];
        assert!(!of_deployment.iter().any(|reason| world.has_told(reason)), "{:?}", world.told);
    }
}

#[test]
fn the_model_that_serves_is_the_one_whose_text_is_looked_for() {
    let mut world = World::new().with_phones(&[60, 60]).with_deployment(|_| ()).serving();
    let mut other = world.observed.models[&key("m")].clone();
    other.progress = Some(Progress::Verifying);
    world.observed.models.clear();
    world.observed.models.insert(key("m2"), other);
    world.observed.readable_models.clear();
    world.edit_deployment(|deployment| deployment.spec.model = "m2".into());
    world.settle();
    assert_eq!(world.condition("Available"), "False ModelUnreadable");
    assert!(world.message("Available").contains("there is no Model m in"), "{}", world.message("Available"));
}

#[test]
fn a_model_that_answered_nonsense_is_told_of_until_its_file_is_another() {
    let mut world = three_phones();
    world.settle();
    let sound = |world: &World| {
        let status = world.observed.models[&key("m")].object.status.clone().unwrap();
        status
            .conditions
            .iter()
            .find(|found| found.type_ == "Sound")
            .map(|found| (found.status.clone(), found.reason.clone()))
    };
    assert_eq!(sound(&world), None);
    world.observed.models.get_mut(&key("m")).unwrap().unsound = Some("a logit was NaN".into());
    world.settle();
    assert_eq!(sound(&world), Some(("False".into(), "NonFinite".into())));
    assert!(world.has_told("NonFinite"));
    // Another life of the controller has not seen it, and yet the file is the same.
    world.observed.models.get_mut(&key("m")).unwrap().unsound = None;
    world.settle();
    assert_eq!(sound(&world), Some(("False".into(), "NonFinite".into())));
    let seen = world.observed.models.get_mut(&key("m")).unwrap();
    let Some(Progress::Resolved(resolved)) = &seen.progress else { panic!("it is resolved") };
    let other = Resolved {
        path: resolved.path.clone(),
        manifest: resolved.manifest.clone(),
        manifest_json: resolved.manifest_json.clone(),
        digest: "other".into(),
    };
    seen.progress = Some(Progress::Resolved(std::sync::Arc::new(other)));
    world.settle();
    assert_eq!(sound(&world), None);
}

#[test]
fn a_bad_model_does_not_stop_what_already_runs() {
    let mut world = three_phones().serving();
    world.refuse_model(Reason::FileNotFound, "there is no file /m.gguf");
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.generations().len(), 1);
    assert_eq!(world.condition("Degraded"), "True ModelNotResolved", "the next plan would fail");
}

#[test]
fn a_changed_deployment_is_answered_by_what_serves_until_the_next_plan_does() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|_| ()).serving();
    let before = routes::table(&world.observed).deployments["d"].clone();
    let mut other = World::new().with_encoder().observed.models.remove(&key("m")).unwrap();
    std::sync::Arc::make_mut(&mut other.object).metadata.name = Some("n".into());
    world.observed.models.insert(key("n"), other);
    world.edit_deployment(|deployment| {
        deployment.spec.model = "n".into();
        deployment.spec.context_length = 128;
        deployment.spec.max_sessions = 2;
    });
    world.settle();
    let meanwhile = routes::table(&world.observed).deployments["d"].clone();
    assert_eq!(world.generations().len(), 2, "both are there: {:?}", world.generations());
    let of = |route: &polyphony_gateway::DeploymentRoute| {
        (route.manifest_digest.clone(), route.model_path.clone(), route.context_length, route.max_sessions)
    };
    assert_eq!(of(&meanwhile), of(&before));
    world.report(SegmentPhase::Ready);
    world.settle();
    let after = routes::table(&world.observed).deployments["d"].clone();
    assert_eq!((after.context_length, after.max_sessions, after.rings.len()), (128, 2, 1));
    assert_ne!(after.manifest_digest, before.manifest_digest);
}

#[test]
fn scaling_down_keeps_the_replica_that_answers() {
    let mut world = World::new().with_phones(&[300, 300]).with_deployment(|spec| spec.replicas = 2).serving();
    world.lose("a");
    world.settle();
    world.edit_deployment(|deployment| deployment.spec.replicas = 1);
    world.settle();
    let left: Vec<_> =
        world.observed.placements.values().map(|one| (one.spec.replica, one.spec.phone.clone())).collect();
    assert_eq!(left, [(1, "b".to_owned())]);
    assert_eq!(world.condition("Available"), "True Serving");
    // A further one takes the free place.
    world.join("c", 300);
    world.edit_deployment(|deployment| deployment.spec.replicas = 2);
    world.settle();
    let mut replicas: Vec<_> = world.observed.placements.values().map(|one| one.spec.replica).collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [0, 1]);
}

#[test]
fn what_a_person_changes_of_placement_and_objective_is_applied() {
    type Edit = fn(&mut polyphony_api::InferenceDeploymentSpec);
    let table: [(&str, Edit, &str); 2] = [
        ("less memory", |spec| spec.placement.memory_fraction = 0.3, "memoryFraction"),
        ("another objective", |spec| spec.objective = Objective::Throughput, "spec.objective is now Throughput"),
    ];
    for (what, edit, told) in table {
        let mut world =
            World::new().with_phones(&[200, 200]).with_deployment(|spec| spec.load_balancing.enabled = false).serving();
        world.edit_deployment(|deployment| edit(&mut deployment.spec));
        world.settle();
        world.report(SegmentPhase::Ready);
        world.settle();
        let serving: Vec<_> = world.observed.placements.values().collect();
        let fraction = world.observed.deployments[&key("d")].spec.placement.memory_fraction;
        assert!(serving.iter().all(|one| one.spec.plan_generation == 2), "{what}: {:?}", world.generations());
        assert!(serving.iter().all(|one| one.spec.planned_bytes as f64 <= 200.0 * MIB as f64 * fraction), "{what}");
        let notes: Vec<_> = world.told.iter().map(|(_, note)| note.as_str()).chain([]).collect();
        let is_said = notes.iter().any(|note| note.contains(told)) || what == "less memory";
        assert!(is_said, "{what}: {notes:?}");
        assert_eq!(world.settle(), [], "{what}: and that is that");
    }
}

#[test]
fn a_plan_that_takes_more_than_it_may_by_now_serves_until_its_successor_on_other_phones_does() {
    let mut world = World::new().with_phones(&[100, 100, 100]).with_deployment(|_| ()).serving();
    assert_eq!(world.generations(), ["g1: a"]);
    world.edit_deployment(|deployment| deployment.spec.placement.memory_fraction = 0.45);
    world.settle();
    assert_eq!(world.generations(), ["g1: a", "g2: b c"]);
    assert_eq!(world.condition("Available"), "True Serving");
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.generations(), ["g2: b c"]);
    assert_eq!(world.condition("Available"), "True Serving");
    assert!(!world.has_told("Unavailable"), "at no time: {:?}", world.told);
}

#[test]
fn memory_that_cannot_be_given_back_is_said_and_what_serves_goes_on() {
    let mut world = World::new().with_phones(&[100]).with_deployment(|_| ()).serving();
    world.edit_deployment(|deployment| deployment.spec.placement.memory_fraction = 0.3);
    world.settle();
    assert_eq!(world.condition("Available"), "True Serving");
    assert_eq!(world.condition("Degraded"), "True InsufficientMemory");
    assert!(world.message("Degraded").contains("memoryFraction"), "{}", world.message("Degraded"));
}

#[test]
fn a_deployment_that_shares_no_longer_leaves_the_phones_of_others() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    world.add_deployment("e", |_| ());
    world.settle();
    world.report(SegmentPhase::Ready);
    world.join("b", 300);
    world.settle();
    world.edit_deployment(|deployment| deployment.spec.placement.allow_sharing = false);
    world.settle();
    world.report(SegmentPhase::Ready);
    world.settle();
    let phones: Vec<_> =
        world.observed.placements.values().map(|one| (one.spec.deployment.as_str(), one.spec.phone.as_str())).collect();
    assert_eq!(phones, [("d", "b"), ("e", "a")]);
}

#[test]
fn a_number_of_sessions_alone_is_written_now_and_then() {
    let mut world = World::new().with_phones(&[300]).with_deployment(|_| ()).serving();
    let name = world.generation(1)[0].metadata.name.clone().unwrap();
    let sessions = |world: &mut World, sessions| {
        world.phone("a").heartbeat.as_mut().unwrap().segments[0].sessions = sessions;
        let written = decide(&world.observed);
        written.iter().any(|action| matches!(action, Action::SetPlacementStatus { .. }))
    };
    let start = world.observed.uptime;
    world.observed.written.insert(key(&name), start);
    assert!(!sessions(&mut world, 1), "not with every request");
    world.observed.uptime = start + Duration::from_secs(29);
    assert!(!sessions(&mut world, 2));
    world.observed.uptime = start + Duration::from_secs(30);
    assert!(sessions(&mut world, 2));
    world.observed.uptime = start;
    world.report(SegmentPhase::Failed);
    assert!(sessions(&mut world, 3), "what is news is written at once");
}
