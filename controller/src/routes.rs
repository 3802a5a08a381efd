//! The route table: where the gateway can send sessions, from what was observed. Pure.

use std::collections::BTreeSet;

use polyphony_api::InferenceDeployment;
use polyphony_api::condition;
use polyphony_api::inference_deployment::BalancingStrategy;
use polyphony_gateway::{DeploymentRoute, RingRoute, RouteTable};

use crate::models::Progress;
use crate::reconcile::generations::{Generation, of_deployment};
use crate::reconcile::observe::{Health, ObjectKey, Observed, model_id};
use crate::reconcile::problem::balancer;

/// Every deployment with the rings that can take its sessions.
pub fn table(observed: &Observed) -> RouteTable {
    let is_there = |deployment: &&std::sync::Arc<InferenceDeployment>| deployment.metadata.deletion_timestamp.is_none();
    let deployments = observed.deployments.iter().filter(|(_, deployment)| is_there(deployment));
    let deployments =
        deployments.map(|(key, deployment)| (model_id(&key.namespace, &key.name), route(observed, key, deployment)));
    RouteTable { deployments: deployments.collect() }
}

fn route(observed: &Observed, key: &ObjectKey, deployment: &InferenceDeployment) -> DeploymentRoute {
    let model = observed.models.get(&ObjectKey::new(&key.namespace, &deployment.spec.model));
    let resolved = match model.and_then(|model| model.progress.as_ref()) {
        Some(Progress::Resolved(resolved)) => Some(resolved),
        _ => None,
    };
    let rings = rings(observed, deployment);
    let status = deployment.status.as_ref();
    let available = status.and_then(|status| condition::find(&status.conditions, "Available"));
    let why_not = available.filter(|available| available.status != "True").map(|available| available.message.clone());
    DeploymentRoute {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        created_seconds: deployment.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        model_path: resolved.map(|resolved| resolved.path.clone()),
        manifest_digest: resolved.map(|resolved| resolved.digest.clone()).unwrap_or_default(),
        context_length: deployment.spec.context_length,
        max_sessions: deployment.spec.max_sessions,
        is_planned: is_planned(observed, deployment),
        unavailable_reason: why_not.filter(|_| rings.is_empty()),
        rings,
    }
}

/// Whether a plan is on phones, or on its way there, and nothing is known that keeps it from serving.
fn is_planned(observed: &Observed, deployment: &InferenceDeployment) -> bool {
    of_deployment(observed, deployment).iter().any(|generation| {
        let is_lost = !generation.lost_phones(observed).is_empty() || !generation.failures(observed).is_empty();
        generation.is_whole() && !generation.is_leaving() && !is_lost
    })
}

/// The newest ready generation of each replica. A ring with a suspected phone is left out where another is well.
fn rings(observed: &Observed, deployment: &InferenceDeployment) -> Vec<RingRoute> {
    let generations = of_deployment(observed, deployment);
    let served: Vec<&Generation<'_>> = generations.iter().filter(|generation| generation.is_served(observed)).collect();
    let replicas: BTreeSet<u32> = served.iter().map(|generation| generation.replica).collect();
    let newest = |replica: u32| {
        served.iter().filter(|generation| generation.replica == replica).max_by_key(|generation| generation.number)
    };
    let rings: Vec<_> = replicas.into_iter().filter_map(newest).collect();
    let is_well =
        |generation: &Generation<'_>| generation.phones().iter().all(|phone| observed.health(phone) == Health::Well);
    let some_are_well = rings.iter().any(|generation| is_well(generation));
    rings
        .into_iter()
        .filter(|generation| !some_are_well || is_well(generation))
        .map(|generation| ring(generation, &generations, deployment))
        .collect()
}

fn ring(generation: &Generation<'_>, all: &[Generation<'_>], deployment: &InferenceDeployment) -> RingRoute {
    let (ring, number) = generation.ring();
    // Sessions can be fetched from it for as long as all of it is there.
    let is_followed = |other: &&Generation<'_>| {
        other.replica == generation.replica && Some(other.number) == generation.follows() && other.is_whole()
    };
    RingRoute {
        ring,
        replica: generation.replica,
        generation: number,
        phones: generation.phones().into_iter().map(str::to_owned).collect(),
        numerics_class: generation.numerics_class().to_owned(),
        follows: all.iter().find(is_followed).map(|followed| followed.ring().1),
        // The published balancer moves no session: who is in the middle of an answer stays where he is.
        moves_sessions: balancer(&deployment.spec) != BalancingStrategy::LinguaLinked,
    }
}
