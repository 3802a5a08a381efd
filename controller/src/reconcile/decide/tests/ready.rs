//! Tables of decisions: the condition that other tools look for (kstatus, Flux, Argo CD), on deployments and on models.
#![allow(clippy::unwrap_used)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use polyphony_api::condition;
use polyphony_protocol::hub::SegmentPhase;

use super::super::fixtures::{World, key};
use super::three_phones;
use crate::models::{Progress, Reason};

fn ready_of_deployment(world: &World) -> Condition {
    let status = world.observed.deployments[&key("d")].status.clone().unwrap();
    condition::find(&status.conditions, "Ready").cloned().unwrap()
}

#[test]
fn a_deployment_is_ready_when_what_runs_is_what_its_spec_asks_for() {
    let mut world = World::new().with_phones(&[50, 50]).with_deployment(|_| ());
    world.settle();
    assert_eq!(world.condition("Ready"), "False Loading");
    world = world.serving();
    assert_eq!(world.condition("Ready"), "True AsDesired");

    // The phones have no room for a second replica: the first one answers on, and it is not what was asked for.
    let mut ask_for = |replicas: u32, generation: i64| {
        world.edit_deployment(|deployment| {
            deployment.spec.replicas = replicas;
            deployment.metadata.generation = Some(generation);
        });
        world.settle();
        world.report(SegmentPhase::Ready);
        world.settle();
        let ready = ready_of_deployment(&world);
        assert_eq!(ready.observed_generation, Some(generation), "whoever waits for it knows what it is said of");
        (world.condition("Available"), ready.status)
    };
    assert_eq!(ask_for(2, 2), ("True Serving".into(), "False".into()));
    assert_eq!(ask_for(1, 3), ("True Serving".into(), "True".into()));
    assert_eq!(ask_for(0, 4), ("False ScaledToZero".into(), "True".into()));
}

#[test]
fn a_deployment_that_lost_a_phone_is_not_ready_until_another_has_its_layers() {
    let mut world = three_phones().serving();
    let lost = world.generations()[0].split(' ').nth(1).unwrap().to_owned();
    world.lose(&lost);
    world.settle();
    assert_eq!(ready_of_deployment(&world).status, "False");
    world.report(SegmentPhase::Ready);
    world.settle();
    assert_eq!(world.condition("Ready"), "True AsDesired");
}

#[test]
fn a_model_is_ready_as_it_is_resolved() {
    let ready = |world: &World| {
        let model = world.observed.models[&key("m")].object.clone();
        let conditions = model.status.clone().unwrap().conditions;
        let of = |type_| {
            let found = condition::find(&conditions, type_).unwrap();
            (found.status.clone(), found.reason.clone(), found.observed_generation)
        };
        assert_eq!(of("Ready"), of("Resolved"));
        of("Ready")
    };
    let said = |status: &str, reason: &str| (status.to_owned(), reason.to_owned(), Some(1));
    let mut world = World::new();
    let resolved = world.observed.models[&key("m")].progress.clone();
    let read_as = |world: &mut World, progress: Option<Progress>| {
        world.observed.models.get_mut(&key("m")).unwrap().progress = progress;
        world.settle();
    };
    read_as(&mut world, Some(Progress::Verifying));
    assert_eq!(ready(&world), said("Unknown", "Verifying"));
    read_as(&mut world, resolved);
    assert_eq!(ready(&world), said("True", "Verified"));
    world.refuse_model(Reason::FileNotFound, "/m.gguf is not there");
    world.settle();
    assert_eq!(ready(&world), said("False", "FileNotFound"));
}
