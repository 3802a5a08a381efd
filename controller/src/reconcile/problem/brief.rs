//! The brief: what a deployment asks of whatever phones, and what is known of them with its model. Made once a round. Pure.

use std::collections::{BTreeMap, BTreeSet};

use polyphony_api::inference_deployment::{ActivationType, Objective as ApiObjective};
use polyphony_api::{InferenceDeployment, SegmentPlacement};
use polyphony_model::{EngineForm, Holds, KvType, LayerRange, Manifest, Room, STEP_ROWS};
use polyphony_placement::{Demand, ExpertCosts, ModelCosts, Objective, Prompt};
use polyphony_protocol::frame::HEADER_BYTES;

use super::census::Census;
use super::measured::Known;
use super::memory;
use crate::reconcile::class;
use crate::reconcile::observe::{ObjectKey, Observed};

pub struct Brief<'a> {
    pub deployment: &'a InferenceDeployment,
    pub manifest_digest: &'a str,
    /// As ledgers call the deployment.
    pub(super) own: String,
    /// What the model costs in time.
    pub(super) weights: ModelCosts,
    /// What it costs in memory, by the form that an engine gives it.
    model: [ModelCosts; EngineForm::ALL.len()],
    pub(super) demand: Demand,
    /// What is known of phones with the model, by the first part of the class and by phone.
    pub(super) known: BTreeMap<&'a str, BTreeMap<&'a str, Known>>,
    /// Classes and phones in which a segment of the deployment has timed its layers, with the turns of others in it.
    pub(super) timed: BTreeSet<(&'a str, &'a str)>,
}

// === impl Brief ===

impl<'a> Brief<'a> {
    pub fn of(
        observed: &'a Observed,
        census: &Census<'a>,
        deployment: &'a InferenceDeployment,
        manifest: &Manifest,
        manifest_digest: &'a str,
    ) -> Self {
        let spec = &deployment.spec;
        let room = Room { n_sessions: spec.max_sessions, context_length: spec.context_length };
        let kv_type = class::kv_type(spec.numerics.kv_cache);
        let weights = model_costs(manifest, spec.activation_type(), kv_type);
        let model = EngineForm::ALL.map(|form| memory::in_memory(&weights, manifest, room, form, kv_type));
        let (mut timed, mut by_class) = (BTreeSet::new(), BTreeMap::<&str, (Vec<_>, Vec<_>)>::new());
        for (placement, measured) in census.segments_of(manifest_digest) {
            let (own, others) = by_class.entry(class::numerics(&placement.spec.numerics_class)).or_default();
            let is_own = is_own(placement, deployment);
            if is_own && measured.is_some() {
                timed.insert((class::numerics(&placement.spec.numerics_class), placement.spec.phone.as_str()));
            }
            let of = if is_own { own } else { others };
            of.push((placement, measured));
        }
        let known =
            |(numerics, (own, others))| (numerics, Known::of_all(observed, (manifest_digest, numerics), own, others));
        Self {
            deployment,
            manifest_digest,
            own: ObjectKey::of(deployment).to_string(),
            weights,
            model,
            demand: demand(deployment, manifest),
            timed,
            known: by_class.into_iter().map(known).collect(),
        }
    }
}

impl Brief<'_> {
    /// What the model costs in memory on phones that compute in this.
    pub(super) fn model_on(&self, numerics: &str) -> &ModelCosts {
        &self.model[EngineForm::of(numerics) as usize]
    }
}

fn is_own(placement: &SegmentPlacement, deployment: &InferenceDeployment) -> bool {
    Some(&placement.spec.deployment) == deployment.metadata.name.as_ref()
        && placement.metadata.namespace == deployment.metadata.namespace
}

/// What the model's weights cost, from its manifest.
fn model_costs(manifest: &Manifest, dtype: ActivationType, kv_type: KvType) -> ModelCosts {
    let of = &manifest.hyperparameters;
    let part = |embedding, head| manifest.bytes_of(&Holds { embedding, layers: LayerRange::default(), head });
    let hidden = u64::from(of.hidden_size);
    let (embedding_bytes, head_bytes) = (part(true, false), part(false, true));
    let row_bytes = match dtype {
        ActivationType::F32 => 4 * hidden,
        ActivationType::F16 => 2 + 2 * hidden,
        ActivationType::Q8 => hidden + 2 * hidden.div_ceil(32),
    };
    ModelCosts {
        layer_bytes: crate::models::layer_bytes(manifest),
        embedding_bytes,
        head_bytes,
        shared_bytes: (embedding_bytes + head_bytes).saturating_sub(part(true, true)),
        kv_bytes_per_token_per_layer: of.kv_bytes_per_layer(Room { n_sessions: 1, context_length: 1 }, kv_type),
        // Of no weight.
        activation_bytes: 0,
        hop_bytes: HEADER_BYTES as u64 + row_bytes,
        second_embedding: of.encoder.map(|encoder| encoder.n_layers),
        experts: expert_costs(manifest),
        layer_multiply_adds: of.multiply_adds_per_layer(),
        head_multiply_adds: of.multiply_adds_of_head(),
        logits_bytes: 4 * u64::from(of.vocab_size),
    }
}

/// What the model's experts cost, where it has some.
pub fn expert_costs(manifest: &Manifest) -> Option<ExpertCosts> {
    let of = &manifest.hyperparameters;
    of.experts.map(|experts| ExpertCosts {
        n_experts: experts.n_experts,
        n_chosen: experts.n_chosen,
        layer_bytes: manifest.expert_bytes() / u64::from(of.n_layers),
        chunk_tokens: STEP_ROWS,
    })
}

fn demand(deployment: &InferenceDeployment, manifest: &Manifest) -> Demand {
    let spec = &deployment.spec;
    Demand {
        context_length: spec.context_length,
        max_sessions: spec.max_sessions,
        // A replaced plan makes room for the next one: phones are too small to hold two as a rule.
        generations_in_memory: 1.0,
        objective: match spec.objective {
            ApiObjective::Latency => Objective::Latency,
            ApiObjective::Throughput => Objective::Throughput,
            ApiObjective::Efficiency => Objective::Efficiency,
        },
        // What an older API has stored beside another objective means nothing.
        min_tokens_per_second: spec.min_tokens_per_second.filter(|_| spec.objective == ApiObjective::Efficiency),
        min_phones: spec.placement.min_phones,
        max_phones: spec.placement.max_phones.unwrap_or(u32::MAX),
        memory_fraction: spec.placement.memory_fraction,
        // Nobody shifts layers of a deployment that is not balanced, or whose sessions do not move.
        overlap: spec.load_balancing.enabled
            && spec.load_balancing.overlap
            && manifest.hyperparameters.encoder.is_none(),
        prompt: spec.prompt_tokens.map(|n_tokens| Prompt {
            n_tokens: n_tokens.min(spec.context_length),
            chunk_tokens: STEP_ROWS,
            weight: spec.time_to_first_token_weight.unwrap_or(1.0) / ANSWER_TOKENS,
        }),
    }
}

/// Tokens of an answer over which the reading of its prompt is spread.
const ANSWER_TOKENS: f64 = 128.0;
