//! The route table: where the gateway can send sessions, from what was observed. Pure.

use std::collections::BTreeSet;

use polyphony_api::inference_deployment::BalancingStrategy;
use polyphony_api::segment_placement::SegmentPlacementSpec;
use polyphony_api::{InferenceDeployment, condition};
use polyphony_gateway::{DeploymentRoute, RingRoute, RouteTable};

use crate::models::{Progress, Resolved};
use crate::reconcile::generations::{Generation, of_deployment};
use crate::reconcile::observe::{Health, ObjectKey, Observed, model_id};
use crate::reconcile::problem::balancer;
use crate::reconcile::setbacks::Cause;

/// Every deployment with the rings that can take its sessions. One that is being deleted takes none any more, and says so.
pub fn table(observed: &Observed) -> RouteTable {
    let deployments = observed.deployments.iter();
    let deployments =
        deployments.map(|(key, deployment)| (model_id(&key.namespace, &key.name), route(observed, key, deployment)));
    RouteTable { deployments: deployments.collect() }
}

fn route(observed: &Observed, key: &ObjectKey, deployment: &InferenceDeployment) -> DeploymentRoute {
    let generations = of_deployment(observed, deployment);
    let is_leaving = deployment.metadata.deletion_timestamp.is_some();
    let serving = if is_leaving { Vec::new() } else { serving(observed, &generations) };
    // What serves is not always what is wanted: a changed deployment is answered by the plan before until the next is ready.
    let served: Vec<&SegmentPlacementSpec> =
        serving.iter().filter_map(|generation| Some(&generation.segments.first()?.spec)).collect();
    let model = match served.first() {
        Some(spec) => resolved_as(observed, &spec.manifest_digest),
        None => resolved_of(observed, &ObjectKey::new(&key.namespace, &deployment.spec.model)),
    };
    let digest = served.first().map(|spec| &spec.manifest_digest).or(model.map(|model| &model.digest));
    let least = |of: fn(&SegmentPlacementSpec) -> u32| served.iter().map(|spec| of(spec)).min();
    let rings: Vec<_> = serving.into_iter().map(|generation| ring(generation, &generations, deployment)).collect();
    let status = deployment.status.as_ref();
    let available = status.and_then(|status| condition::find(&status.conditions, "Available"));
    let said = available.filter(|available| available.status != "True").map(|available| available.message.clone());
    let why_not = if is_leaving { Some("it is being deleted".to_owned()) } else { said };
    DeploymentRoute {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        created_seconds: deployment.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        model_path: model.map(|model| model.path.clone()),
        manifest_digest: digest.cloned().unwrap_or_default(),
        context_length: least(|spec| spec.context_length).unwrap_or(deployment.spec.context_length),
        max_sessions: least(|spec| spec.max_sessions).unwrap_or(deployment.spec.max_sessions),
        is_planned: !is_leaving && is_planned(observed, deployment),
        unavailable_reason: why_not.filter(|_| rings.is_empty() || model.is_none()),
        rings,
    }
}

/// Whether a plan is on phones, or on its way there, and nothing is known that keeps it from serving.
fn is_planned(observed: &Observed, deployment: &InferenceDeployment) -> bool {
    let is_placed = of_deployment(observed, deployment).iter().any(|generation| {
        let is_lost = !generation.lost_phones(observed).is_empty() || !generation.failures(observed).is_empty();
        generation.is_whole() && !generation.is_leaving() && !is_lost
    });
    is_placed || is_promised(observed, deployment)
}

/// Whether its status lets hope for a plan: it tells of progress, or nothing yet of what is asked for now, or still of a ring that has just
/// been lost.
fn is_promised(observed: &Observed, deployment: &InferenceDeployment) -> bool {
    // While the API takes no placements, a status is not written either.
    let key = Cause::PlanUnwritten.whose(ObjectKey::of(deployment), None);
    let unwritten = observed.setbacks.get(&key).filter(|setback| setback.cause == Cause::PlanUnwritten);
    if unwritten.is_some_and(|setback| setback.holds(deployment.metadata.generation, observed.uptime)) {
        return false;
    }
    let Some(status) = &deployment.status else { return true };
    let is_true = |type_| condition::find(&status.conditions, type_).is_some_and(|found| found.status == "True");
    status.observed_generation != deployment.metadata.generation || is_true("Available") || is_true("Progressing")
}

fn resolved_of<'a>(observed: &'a Observed, model: &ObjectKey) -> Option<&'a Resolved> {
    match &observed.models.get(model)?.progress {
        Some(Progress::Resolved(resolved)) => Some(resolved),
        _ => None,
    }
}

/// The model file of this content, whatever the object is called that names it now.
fn resolved_as<'a>(observed: &'a Observed, digest: &str) -> Option<&'a Resolved> {
    observed.models.keys().filter_map(|key| resolved_of(observed, key)).find(|resolved| resolved.digest == digest)
}

/// The newest ready generation of each replica, all of one model: where they differ, of the newest plan's. A ring with a
/// suspected phone is left out where another is well.
fn serving<'a, 'b>(observed: &Observed, generations: &'b [Generation<'a>]) -> Vec<&'b Generation<'a>> {
    let served: Vec<&Generation<'_>> = generations.iter().filter(|generation| generation.is_served(observed)).collect();
    let replicas: BTreeSet<u32> = served.iter().map(|generation| generation.replica).collect();
    let newest = |replica: u32| {
        served.iter().filter(|generation| generation.replica == replica).max_by_key(|generation| generation.number)
    };
    let mut rings: Vec<_> = replicas.into_iter().filter_map(newest).copied().collect();
    if let Some(model) = rings.iter().max_by_key(|generation| generation.number).map(|newest| newest.manifest_digest())
    {
        rings.retain(|generation| generation.manifest_digest() == model);
    }
    let is_well =
        |generation: &Generation<'_>| generation.phones().iter().all(|phone| observed.health(phone) == Health::Well);
    let some_are_well = rings.iter().any(|generation| is_well(generation));
    rings.into_iter().filter(|generation| !some_are_well || is_well(generation)).collect()
}

fn ring(generation: &Generation<'_>, all: &[Generation<'_>], deployment: &InferenceDeployment) -> RingRoute {
    let (ring, number) = generation.ring();
    // Sessions can be fetched from it for as long as all of it is there.
    let is_followed = |other: &&Generation<'_>| {
        other.replica == generation.replica && Some(other.number) == generation.follows() && other.is_whole()
    };
    // Sessions of a model with an encoder end where they are, in slots that a phone of both generations has once.
    let is_shared_with = |other: &&Generation<'_>| {
        other.replica == generation.replica && other.number < generation.number && have_one_room(other, generation)
    };
    let has_encoder = generation.segments.iter().any(|segment| segment.spec.encoder_layers.is_some());
    let shared = || all.iter().rev().find(is_shared_with).filter(|_| has_encoder);
    RingRoute {
        ring,
        replica: generation.replica,
        generation: number,
        phones: generation.phones().into_iter().map(str::to_owned).collect(),
        numerics_class: generation.numerics_class().to_owned(),
        follows: all.iter().find(is_followed).or_else(shared).map(|followed| followed.ring().1),
        // The published balancer moves no session: who is in the middle of an answer stays where he is.
        moves_sessions: !has_encoder && balancer(&deployment.spec) != BalancingStrategy::LinguaLinked,
    }
}

/// Whether a phone of both keeps the sessions of both in one segment.
fn have_one_room(a: &Generation<'_>, b: &Generation<'_>) -> bool {
    let room = |generation: &Generation<'_>| {
        generation.segments.first().map(|segment| {
            let spec = &segment.spec;
            (spec.manifest_digest.clone(), spec.context_length, spec.max_sessions, spec.activation_type)
        })
    };
    room(a) == room(b) && a.numerics_class() == b.numerics_class()
}
