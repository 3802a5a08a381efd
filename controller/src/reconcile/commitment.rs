//! Commitment: which plans are written to their end. Phones take up no other. Pure.
//!
//! A plan is many objects, and a controller may die between two of them, or be refused the second. So a plan counts when the
//! status of its deployment names it, which is written last; what it names is told by a digest, since names alone carry no plan.

use kube::ResourceExt;
use polyphony_api::{InferenceDeployment, SegmentPlacement};

use super::observe::{ObjectKey, Observed};
use crate::hub::assignments::owner;

/// Whether the plan of this placement is written to its end, as far as its deployment says.
pub fn is_committed(observed: &Observed, placement: &SegmentPlacement) -> bool {
    let Some(owner) = owner(placement) else {
        // Made by hand: it is of no plan.
        return false;
    };
    let key = ObjectKey::new(placement.namespace().unwrap_or_default(), &placement.spec.deployment);
    let deployment = observed.deployments.get(&key);
    match deployment.filter(|deployment| deployment.uid().as_ref() == Some(&owner.uid)) {
        Some(deployment) => is_committed_by(deployment, placement),
        // Its deployment is gone, and its sessions run on until they end.
        None => true,
    }
}

/// Whether `deployment` says so.
pub fn is_committed_by(deployment: &InferenceDeployment, placement: &SegmentPlacement) -> bool {
    let Some(status) = &deployment.status else { return false };
    let generation = placement.spec.plan_generation;
    match (&placement.spec.plan_digest, &status.plan) {
        (Some(digest), Some(plan)) => {
            // A later plan is committed only after the ones before it.
            generation < plan.generation || (generation == plan.generation && plan.digest.as_ref() == Some(digest))
        }
        (Some(_), None) => false,
        // Made before plans had digests.
        (None, _) => status.plan_generation.is_some_and(|newest| generation <= newest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_api::InferenceDeploymentStatus;
    use polyphony_api::inference_deployment::PlanSummary;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_counts_when_its_deployment_names_its_digest() {
        let placement = |generation: u64, digest: Option<&str>| -> SegmentPlacement {
            let spec = serde_json::from_value(json!({
                "deployment": "d", "model": "m", "manifestDigest": "", "replica": 0, "planGeneration": generation, "planDigest": digest,
                "stage": 0, "stages": 1, "phone": "a", "holds": { "embedding": true, "from": 0, "to": 1, "head": true, "summary": "" },
                "edges": [], "contextLength": 16, "maxSessions": 1, "activationType": "f16", "numericsClass": "", "plannedBytes": 0,
                "predictedStepMicroseconds": 0,
            }))
            .unwrap();
            SegmentPlacement::new("d-0-g1-0", spec)
        };
        let deployment = |newest: Option<u64>, plan: Option<(u64, Option<&str>)>| {
            let mut deployment =
                InferenceDeployment::new("d", serde_json::from_value(json!({ "model": "m" })).unwrap());
            let plan = plan.map(|(generation, digest)| PlanSummary {
                generation,
                digest: digest.map(str::to_owned),
                ..PlanSummary::default()
            });
            let status = InferenceDeploymentStatus { plan_generation: newest, plan, ..Default::default() };
            deployment.status = Some(status);
            deployment
        };
        let table = [
            ("named", placement(2, Some("x")), deployment(Some(2), Some((2, Some("x")))), true),
            ("another plan of that number", placement(2, Some("y")), deployment(Some(2), Some((2, Some("x")))), false),
            ("not yet", placement(3, Some("x")), deployment(Some(2), Some((2, Some("x")))), false),
            ("before", placement(1, Some("w")), deployment(Some(2), Some((2, Some("x")))), true),
            ("of nothing", placement(1, Some("w")), deployment(None, None), false),
            ("of old", placement(2, None), deployment(Some(2), Some((2, None))), true),
            ("of old, not told", placement(3, None), deployment(Some(2), None), false),
        ];
        for (what, placement, deployment, expected) in table {
            assert_eq!(is_committed_by(&deployment, &placement), expected, "{what}");
        }
    }
}
