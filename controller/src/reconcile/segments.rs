//! Segments: a plan as SegmentPlacement objects. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use polyphony_api::segment_placement::{Edge, EdgeKind, Holds, Standby};
use polyphony_api::{DEPLOYMENT_LABEL, DRAIN_FINALIZER, InferenceDeployment, SegmentPlacement, SegmentPlacementSpec};
use polyphony_model::LayerRange;
use sha2::{Digest, Sha256};

use super::problem::Planned;
use crate::models::Resolved;

/// The longest value of a label.
const MAX_LABEL: usize = 63;

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
            name: Some(format!("{name}-{replica}-g{generation}-{stage}")),
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
            stage,
            stages: n_stages,
            phone: planned_stage.phone.clone(),
            holds: holds(&planned_stage.holds),
            standby: planned_stage.standby.map(|(from, to)| Standby::new(from, to)),
            follows,
            moves: 0,
            strategy: spec.placement.strategy,
            edges: edges.iter().filter(|edge| edge.from == stage as usize).map(edge_of).collect(),
            encoder_layers: of.encoder.map(|encoder| encoder.n_layers),
            context_length: spec.context_length,
            max_sessions: spec.max_sessions,
            session_groups: planned.plan.session_groups,
            activation_type: spec.transport.activation_type,
            numerics_class: planned.numerics_class.clone(),
            planned_bytes: planned_stage.bytes.saturating_add(planned_stage.standby_bytes),
            predicted_step_microseconds: microseconds(step_seconds),
            planned_layer_microseconds: planned.seconds_per_layer(&planned_stage.phone).map_or(0, microseconds),
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

/// A deployment's name as a label: names may be longer than labels, and are cut with a digest then.
pub fn label_value(name: &str) -> String {
    if name.len() <= MAX_LABEL {
        return name.to_owned();
    }
    let digest = hex::encode(&Sha256::digest(name)[..8]);
    let start: String = name.chars().take(MAX_LABEL - digest.len() - 1).collect();
    format!("{start}-{digest}")
}
