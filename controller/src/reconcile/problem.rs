//! The problem: what the planner is asked, from what was observed. Pure.

pub mod links;
pub mod measured;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use polyphony_api::inference_deployment::{
    ActivationType, BalancingStrategy, InferenceDeploymentSpec, Objective as ApiObjective, Strategy,
};
use polyphony_api::{InferenceDeployment, Phone};
use polyphony_model::{Holds, LayerRange, Manifest, Room};
use polyphony_placement::{
    Demand, Infeasible, ModelCosts, Objective, PhoneCosts, Plan, Problem, Strategy as Rule, published_overlap,
};
use polyphony_protocol::frame::HEADER_BYTES;

use super::decide::failures;
use super::ledger::Taken;
use super::observe::{ObjectKey, Observed};
use super::power;
use links::Survey;
use measured::Figures;

/// The planner as a function; the reconcile loop passes one that remembers what it was asked.
pub type Planner<'a> = &'a dyn Fn(Rule, &Problem) -> Result<Plan, Infeasible>;

/// What the planner is asked, of phones of one arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub problem: Problem,
    /// The time of a layer on each phone when nobody takes turns with it: what measured times are held against.
    pub alone: BTreeMap<String, f64>,
}

/// A plan and the arithmetic that all its phones share.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub plan: Plan,
    pub numerics_class: String,
    /// What the plan was made from.
    pub asked: Asked,
}

// === impl Planned ===

impl Planned {
    /// The time of a layer that the plan was made with.
    pub fn seconds_per_layer(&self, phone: &str) -> Option<f64> {
        self.asked.alone.get(phone).copied().filter(|seconds| seconds.is_finite())
    }
}

/// What one replica asks of the phones.
pub struct Request<'a> {
    pub deployment: &'a InferenceDeployment,
    pub manifest: &'a Manifest,
    pub manifest_digest: &'a str,
    /// Phones that other replicas of the deployment use, or that failed just now.
    pub excluded: &'a BTreeSet<String>,
    /// What other placements take of each phone.
    pub taken: &'a Taken<'a>,
    /// The links of all phones.
    pub survey: &'a Survey,
    /// Only these phones are asked about, where any are named.
    pub within: Option<&'a [&'a str]>,
}

/// What a segment needs besides, whatever the model.
const SEGMENT_OVERHEAD_BYTES: u64 = 1 << 20;

/// The best plan over every numerics class that enough phones share.
///
/// # Errors
/// When no class has a plan: what the class with the most memory falls short of.
pub fn plan(observed: &Observed, request: &Request<'_>, planner: Planner<'_>) -> Result<Planned, Infeasible> {
    let mut best: Option<Planned> = None;
    let mut shortfall: Option<(u64, Infeasible)> = None;
    for (numerics_class, asked) in problems(observed, request, Figures::Settled) {
        let memory = asked.problem.phones.iter().map(|phone| phone.allocatable_bytes).sum();
        match plan_for(&request.deployment.spec, &asked.problem, planner) {
            Ok(plan) if best.as_ref().is_none_or(|best| plan.objective_value < best.plan.objective_value) => {
                best = Some(Planned { plan, numerics_class, asked });
            }
            Ok(_) => {}
            Err(error) if shortfall.as_ref().is_none_or(|(most, _)| memory > *most) => {
                shortfall = Some((memory, error))
            }
            Err(_) => {}
        }
    }
    best.ok_or_else(|| shortfall.map_or(Infeasible::NoPhones, |(_, error)| error))
}

/// The plan by the deployment's strategy. The published balancer has an overlap of its own.
fn plan_for(spec: &InferenceDeploymentSpec, problem: &Problem, planner: Planner<'_>) -> Result<Plan, Infeasible> {
    let plan = planner(rule(spec.placement.strategy), problem)?;
    let has_overlap = balancer(spec) == BalancingStrategy::LinguaLinked && problem.demand.overlap;
    let overlapped = if has_overlap { published_overlap(problem, &plan) } else { None };
    Ok(overlapped.unwrap_or(plan))
}

/// What the planner is asked, by numerics class: phones of different arithmetic make no ring.
pub fn problems(observed: &Observed, request: &Request<'_>, figures: Figures) -> BTreeMap<String, Asked> {
    let spec = &request.deployment.spec;
    let room = Room { n_sessions: spec.max_sessions, context_length: spec.context_length };
    let weights = model_costs(request.manifest, spec.transport.activation_type, room);
    // Logits take memory as the output matrix does, but no time to read.
    let of = &request.manifest.hyperparameters;
    let logits = of.activation_bytes(true, room) - of.activation_bytes(false, room);
    let mut model = ModelCosts { head_bytes: weights.head_bytes + logits, ..weights.clone() };
    // A decoder after an encoder embeds its tokens itself, wherever its first layer is.
    let first_decoding = of.encoder.and_then(|encoder| model.layer_bytes.get_mut(encoder.n_layers as usize));
    if let Some(bytes) = first_decoding {
        *bytes += weights.embedding_bytes;
    }
    let mut classes: BTreeMap<String, Vec<PhoneCosts>> = BTreeMap::new();
    let demand = demand(request.deployment, request.manifest);
    let own = ObjectKey::of(request.deployment).to_string();
    for name in
        observed.phones.keys().filter(|name| request.within.is_none_or(|within| within.contains(&name.as_str())))
    {
        if let Some((numerics, estimate)) = estimated_costs(observed, (request, &own), name, &weights, &demand) {
            classes.entry(numerics).or_default().push(estimate);
        }
    }
    let timed = timed_phones(observed, request.deployment);
    // What a phone's own segment measures has the turns of others in it.
    let in_turns = |costs: PhoneCosts| {
        let counts = !spec.placement.assume_others_idle && !timed.contains(costs.name.as_str());
        let turns = if counts { request.taken.turns(&costs.name, &own) } else { 1 };
        costs.in_turns(turns)
    };
    let problem = |(numerics, estimates): (String, Vec<PhoneCosts>)| {
        let phones = measured::costs(observed, request.deployment, request.manifest_digest, &estimates, figures);
        let alone = phones.iter().map(|costs| (costs.name.clone(), costs.seconds_per_layer)).collect();
        let links = request.survey.between(&phones);
        let phones = phones.into_iter().map(in_turns).collect();
        let numerics_class = format!("{numerics}/{}/kv-f32", type_name(spec.transport.activation_type));
        let problem = Problem { model: model.clone(), phones, links, demand: demand.clone(), previous: None };
        (numerics_class, Asked { problem, alone })
    };
    classes.into_iter().map(problem).collect()
}

/// Phones on which a segment of the deployment has timed its layers.
fn timed_phones<'a>(observed: &'a Observed, deployment: &InferenceDeployment) -> BTreeSet<&'a str> {
    let own = ObjectKey::of(deployment);
    let is_own = |key: &ObjectKey, of: &str| key.namespace == own.namespace && of == own.name;
    let own_placements = observed.placements.iter().filter(|(key, placement)| is_own(key, &placement.spec.deployment));
    let timed = own_placements.filter(|(_, placement)| observed.measured(placement).is_some());
    timed.map(|(_, placement)| placement.spec.phone.as_str()).collect()
}

/// The planner's name of a strategy.
pub fn rule(strategy: Strategy) -> Rule {
    match strategy {
        Strategy::Optimal => Rule::Optimal,
        Strategy::EqualSplit => Rule::EqualSplit,
        Strategy::MemoryProportional => Rule::MemoryProportional,
        Strategy::MinMax => Rule::MinMax,
        Strategy::LinguaLinked => Rule::LinguaLinked,
        Strategy::LinguaLinkedBestFirst => Rule::LinguaLinkedBestFirst,
    }
}

/// Who moves layers of a deployment: under the published programme, the balancer that was published with it.
pub fn balancer(spec: &InferenceDeploymentSpec) -> BalancingStrategy {
    match spec.placement.strategy {
        Strategy::LinguaLinked | Strategy::LinguaLinkedBestFirst => BalancingStrategy::LinguaLinked,
        _ => spec.load_balancing.strategy,
    }
}

/// What the model's weights cost, from its manifest.
pub fn model_costs(manifest: &Manifest, dtype: ActivationType, room: Room) -> ModelCosts {
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
        kv_bytes_per_token_per_layer: of.kv_bytes_per_layer(Room { n_sessions: 1, context_length: 1 }),
        activation_bytes: SEGMENT_OVERHEAD_BYTES + of.activation_bytes(false, room),
        hop_bytes: HEADER_BYTES as u64 + row_bytes,
        layer_multiply_adds: of.multiply_adds_per_layer(),
        head_multiply_adds: of.multiply_adds_of_head(),
        logits_bytes: 4 * u64::from(of.vocab_size),
    }
}

/// A phone that may take a segment now, with its numerics, as its speed test tells its times.
fn estimated_costs(
    observed: &Observed,
    (request, own): (&Request<'_>, &str),
    name: &str,
    model: &ModelCosts,
    demand: &Demand,
) -> Option<(String, PhoneCosts)> {
    let object = observed.phones.get(name)?.object.as_ref()?;
    let profile = observed.profile(name)?;
    if !observed.health(name).takes_segments()
        || request.excluded.contains(name)
        || !is_admitted(request, own, name)
        || failures::of_model(observed, name, request.manifest_digest).is_some()
        || refusal(observed, object, request.deployment).is_some()
    {
        return None;
    }
    let allocatable_bytes = request.taken.bytes_left(name, profile.allocatable_bytes, demand);
    let costs = PhoneCosts::from_speed(name, allocatable_bytes, &profile.speed, model);
    Some((profile.numerics, costs))
}

/// Whether those that use the phone, and the deployment, whose key is `own`, share it.
fn is_admitted(request: &Request<'_>, own: &str, phone: &str) -> bool {
    request.taken.admits(phone, own, request.deployment.spec.placement.allow_sharing)
}

/// The phones that the planner is not asked about, and why.
pub fn refusals(observed: &Observed, request: &Request<'_>) -> Vec<(String, &'static str)> {
    let own = ObjectKey::of(request.deployment).to_string();
    let why = |name: &String| {
        let seen = observed.phones.get(name)?;
        let has_profile = observed.profile(name).is_some();
        let (Some(object), true, true) = (&seen.object, has_profile, observed.health(name).takes_segments()) else {
            return Some("it is not there");
        };
        if request.excluded.contains(name) || !is_admitted(request, &own, name) {
            return Some("it is another deployment's or replica's, or has just failed");
        }
        if failures::of_model(observed, name, request.manifest_digest).is_some() {
            return Some(
                "it could not load this model of late: `polyctl describe phone` says why, `polyctl phone forgive` lets it try again at once",
            );
        }
        refusal(observed, object, request.deployment)
    };
    observed.phones.keys().filter_map(|name| Some((name.clone(), why(name)?))).collect()
}

/// Why a person, or its heat or battery, keeps segments of the deployment off this phone.
pub fn refusal(observed: &Observed, phone: &Phone, deployment: &InferenceDeployment) -> Option<&'static str> {
    let reasons = [
        (phone.metadata.deletion_timestamp.is_some(), "it is being deleted"),
        (phone.spec.drain, "it is to be drained"),
        (phone.spec.unschedulable, "it is cordoned"),
        (!matches_selector(phone, deployment), "its labels are not those of spec.placement.selector"),
    ];
    let of_phone = reasons.into_iter().find_map(|(holds, why)| holds.then_some(why));
    of_phone.or_else(|| {
        let (power, policy) = (observed.power(&phone.name_any()), &deployment.spec.placement.power_policy);
        power::refusal(phone, power, policy, power::Side::Outside).map(power::Refusal::why_not)
    })
}

/// Whether the phone has the labels that the deployment asks for.
pub fn matches_selector(phone: &Phone, deployment: &InferenceDeployment) -> bool {
    deployment.spec.placement.selects(phone.labels())
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
        },
        min_phones: spec.placement.min_phones,
        max_phones: spec.placement.max_phones.unwrap_or(u32::MAX),
        memory_fraction: spec.placement.memory_fraction,
        // Nobody shifts layers of a deployment that is not balanced, or whose sessions do not move.
        overlap: spec.load_balancing.enabled
            && spec.load_balancing.overlap
            && manifest.hyperparameters.encoder.is_none(),
    }
}

fn type_name(dtype: ActivationType) -> &'static str {
    match dtype {
        ActivationType::F32 => "f32",
        ActivationType::F16 => "f16",
        ActivationType::Q8 => "q8",
    }
}
