//! Segments: a plan as SegmentPlacement objects. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use polyphony_api::segment_placement::{Edge, EdgeKind, Holds, RelayedHop, Standby};
use polyphony_api::{DEPLOYMENT_LABEL, DRAIN_FINALIZER, InferenceDeployment, SegmentPlacement, SegmentPlacementSpec};
use polyphony_model::LayerRange;
use sha2::{Digest, Sha256};

use super::problem::Planned;
use super::ways::{Reach, Ways};
use crate::hub::assignments::dialling;
use crate::models::Resolved;

/// The longest value of a label, and the part of a deployment's name that names of placements begin with.
const MAX_LABEL: usize = 63;
const MAX_STEM: usize = 40;
/// Letters of why a hop is relayed.
const MAX_REASON: usize = 200;

/// The objects of one generation, by stage. `follows` is the generation whose sessions move to this one.
pub fn placements(
    deployment: &InferenceDeployment,
    replica: u32,
    generation: u64,
    planned: &Planned,
    resolved: &Resolved,
    follows: Option<u64>,
) -> Vec<SegmentPlacement> {
    let name = deployment.name_any();
    let spec = &deployment.spec;
    let stages = &planned.plan.stages;
    let n_stages = u32::try_from(stages.len()).unwrap_or(u32::MAX);
    let of = &resolved.manifest.hyperparameters;
    let edges = of.edges(&stages.iter().map(|stage| model_holds(&stage.holds)).collect::<Vec<_>>());
    let of_stage = |(stage, planned_stage): (u32, &polyphony_placement::Stage)| {
        let step_seconds = planned_stage.predicted_seconds + planned_stage.predicted_hop_seconds;
        let metadata = ObjectMeta {
            name: Some(name_of(&name, replica, generation, stage)),
            namespace: deployment.namespace(),
            labels: Some(BTreeMap::from([(DEPLOYMENT_LABEL.to_owned(), label_value(&name))])),
            finalizers: Some(vec![DRAIN_FINALIZER.to_owned()]),
            owner_references: deployment.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let spec = SegmentPlacementSpec {
            deployment: name.clone(),
            model: spec.model.clone(),
            manifest_digest: resolved.digest.clone(),
            replica,
            plan_generation: generation,
            plan_digest: None,
            stage,
            stages: n_stages,
            phone: planned_stage.phone.clone(),
            holds: holds(&planned_stage.holds),
            standby: planned_stage.standby.map(|(from, to)| Standby::new(from, to)),
            follows,
            moves: 0,
            strategy: spec.placement.strategy,
            objective: Some(spec.objective),
            edges: edges.iter().filter(|edge| edge.from == stage as usize).map(edge_of).collect(),
            relayed: Vec::new(),
            encoder_layers: of.encoder.map(|encoder| encoder.n_layers),
            context_length: spec.context_length,
            max_sessions: spec.max_sessions,
            session_groups: planned.plan.session_groups,
            activation_type: spec.activation_type(),
            numerics_class: planned.numerics_class.clone(),
            planned_bytes: planned_stage.bytes.saturating_add(planned_stage.standby_bytes),
            predicted_step_microseconds: microseconds(step_seconds),
            planned_layer_microseconds: planned.asked.alone(&planned_stage.phone).map_or(0, microseconds),
        };
        SegmentPlacement { metadata, spec, status: None }
    };
    (0..n_stages).zip(stages).map(of_stage).collect()
}

fn model_holds(planned: &polyphony_placement::Holds) -> polyphony_model::Holds {
    let layers = LayerRange { from: planned.layers_from, to: planned.layers_to };
    polyphony_model::Holds { embedding: planned.embedding, layers, head: planned.head }
}

fn edge_of(edge: &polyphony_model::Edge) -> Edge {
    let kind = match edge.kind {
        polyphony_model::EdgeKind::Sequential => EdgeKind::Sequential,
        polyphony_model::EdgeKind::Skip => EdgeKind::Skip,
    };
    Edge { to: u32::try_from(edge.to).unwrap_or(u32::MAX), kind }
}

fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// What a stage holds, as the API says it.
pub fn holds(planned: &polyphony_placement::Holds) -> Holds {
    Holds::new(planned.embedding, planned.layers_from, planned.layers_to, planned.head)
}

/// The name of a placement; it says of which plan it is, and not which plan that is.
pub fn name_of(deployment: &str, replica: u32, generation: u64, stage: u32) -> String {
    format!("{}-{replica}-g{generation}-{stage}", shortened(deployment, MAX_STEM, 4))
}

/// Says which stages of a plan reach which over the hub, and why.
pub fn lead(made: &mut [SegmentPlacement], ways: &Ways<'_>) {
    let pairs = dialling(&made.iter().collect::<Vec<_>>());
    for (from, to) in pairs {
        if let Reach::Relayed(why) = ways.between(&made[from].spec.phone, &made[to].spec.phone) {
            let reason = why.chars().take(MAX_REASON).collect();
            let to = made[to].spec.stage;
            made[from].spec.relayed.push(RelayedHop { to, reason });
        }
    }
}

/// Marks the stages of one plan as such.
pub fn seal(made: &mut [SegmentPlacement]) {
    let mut hasher = Sha256::new();
    for placement in made.iter() {
        // The owner is part of it: a plan of an earlier deployment of this name is another one.
        let owner = placement.owner_references().first().map(|owner| owner.uid.as_str()).unwrap_or_default();
        let plain = SegmentPlacementSpec { plan_digest: None, ..placement.spec.clone() };
        let spec = serde_json::to_vec(&plain).expect("a spec is plain data with names as keys");
        hasher.update(owner);
        hasher.update((spec.len() as u64).to_le_bytes());
        hasher.update(spec);
    }
    let digest = hex::encode(hasher.finalize());
    made.iter_mut().for_each(|placement| placement.spec.plan_digest = Some(digest.clone()));
}

/// A deployment's name as a label: names may be longer than labels, and are cut with a digest then.
pub fn label_value(name: &str) -> String {
    if name.len() <= MAX_LABEL { name.to_owned() } else { shortened(name, MAX_LABEL - 17, 8) }
}

/// The name itself where it has at most `limit` bytes, else its start and a digest.
fn shortened(name: &str, limit: usize, n_digest_bytes: usize) -> String {
    if name.len() <= limit {
        return name.to_owned();
    }
    let digest = hex::encode(&Sha256::digest(name)[..n_digest_bytes]);
    let start: String = name.chars().take(limit).collect();
    // What a name ends with is a letter or digit, also between dots.
    format!("{}-{digest}", start.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_placements_are_names_whatever_the_deployment_is_called() {
        assert_eq!(name_of("chat", 0, 3, 1), "chat-0-g3-1");
        assert_eq!(name_of(&"x".repeat(40), 0, 3, 1), format!("{}-0-g3-1", "x".repeat(40)));
        let cut = name_of(&format!("{}.{}", "x".repeat(39), "y".repeat(200)), 99, u64::MAX, 1023);
        assert!(cut.starts_with(&format!("{}-", "x".repeat(39))) && cut.len() < 90, "{cut}");
        assert_ne!(name_of(&"x".repeat(41), 0, 1, 0), name_of(&"x".repeat(42), 0, 1, 0));
        for name in ["a".repeat(63), "b".repeat(64), format!("{}.-{}", "c".repeat(45), "d".repeat(100))] {
            assert!(label_value(&name).len() <= MAX_LABEL, "{name}");
        }
    }
}
