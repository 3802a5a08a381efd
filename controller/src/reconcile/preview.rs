//! Previews: what the planner would do for a deployment, from the objects of the API alone. Pure; changes nothing.
//!
//! Speeds, links and measured times are those that phones and placements carry in their status, to three figures; the
//! controller itself plans with what its hub heard last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use polyphony_api::{InferenceDeployment, Phone, SegmentPlacement, condition, quantity};
use polyphony_model::Manifest;
use polyphony_placement::{Infeasible, Plan, Problem, Strategy, plan_by, time_to_first_token_seconds};
use polyphony_protocol::hub::{Heartbeat, Join, LinkReport, SegmentPhase, SegmentReport, Speed};
use polyphony_protocol::version;

use super::observe::{ObjectKey, Observed, PhoneLink, PhoneSeen, Settings};
use super::problem::{self, Planned, Request};

/// What a preview looks at.
pub struct World {
    pub phones: Vec<Phone>,
    /// Of all deployments.
    pub placements: Vec<SegmentPlacement>,
}

/// What one replica would run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub replica: u32,
    /// Or what leaves no plan.
    pub planned: Result<Planned, Infeasible>,
    /// Of a prompt of this many tokens, when there is a plan.
    pub time_to_first_token_seconds: Option<f64>,
    /// Phones that hold nothing, and why: those that the planner leaves out, and those that it was not asked about.
    pub left_out: Vec<(String, String)>,
    /// What every strategy makes of the same phones, ours first; empty when there is no plan.
    pub comparison: Vec<Compared>,
}

/// A strategy's plan for the same phones, links and memory, by the same predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// As `spec.placement.strategy` names it.
    pub strategy: &'static str,
    /// Whether it is the deployment's own.
    pub is_chosen: bool,
    /// Or why the strategy has none.
    pub planned: Result<Plan, Infeasible>,
    pub time_to_first_token_seconds: Option<f64>,
    /// By the deployment's objective, how fast it is beside the optimal plan; 1 is as fast.
    pub ratio: Option<f64>,
}

/// A prompt whose time to first token is predicted.
#[derive(Clone, Copy, Debug)]
pub struct Prompt {
    pub n_tokens: u32,
    /// Tokens that go through the ring together.
    pub chunk_tokens: u32,
}

/// One preview a replica, in order. Placements that the deployment has already do not count: new ones would replace them.
pub fn preview(
    world: &World,
    deployment: &InferenceDeployment,
    manifest: &Manifest,
    manifest_digest: &str,
    prompt: Prompt,
) -> Vec<Preview> {
    let observed = observed(world);
    let own = ObjectKey::of(deployment);
    let is_own = |placement: &SegmentPlacement| {
        placement.spec.deployment == own.name && placement.namespace().unwrap_or_default() == own.namespace
    };
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    for placement in world.placements.iter().filter(|placement| !is_own(placement)) {
        *used.entry(placement.spec.phone.clone()).or_default() += placement.spec.planned_bytes;
    }
    let mut taken = BTreeSet::new();
    let mut previews = Vec::new();
    for replica in 0..deployment.spec.replicas {
        let request = Request { deployment, manifest, manifest_digest, excluded: &taken, used: &used };
        let strategy = problem::rule(deployment.spec.placement.strategy);
        let planned = problem::plan(&observed, &request, &|problem: &Problem| plan_by(strategy, problem));
        let left_out = left_out(&observed, &request, planned.as_ref().ok());
        let mut time_to_first_token = None;
        let mut comparison = Vec::new();
        if let Ok(Planned { plan, problem, .. }) = &planned {
            let seconds = time_to_first_token_seconds(problem, plan, prompt.n_tokens, prompt.chunk_tokens);
            time_to_first_token = Some(seconds);
            comparison = compare(problem, strategy, prompt);
            taken.extend(plan.stages.iter().map(|stage| stage.phone.clone()));
        }
        let time_to_first_token_seconds = time_to_first_token;
        previews.push(Preview { replica, planned, time_to_first_token_seconds, left_out, comparison });
    }
    previews
}

/// Every strategy on the same problem.
fn compare(problem: &Problem, chosen: Strategy, prompt: Prompt) -> Vec<Compared> {
    let plans: Vec<_> = Strategy::ALL.into_iter().map(|strategy| (strategy, plan_by(strategy, problem))).collect();
    let best = plans.iter().find_map(|(strategy, planned)| match planned {
        Ok(plan) if *strategy == Strategy::Optimal => Some(plan.objective_value),
        _ => None,
    });
    let compared = |(strategy, planned): (Strategy, Result<Plan, Infeasible>)| Compared {
        strategy: strategy.name(),
        is_chosen: strategy == chosen,
        time_to_first_token_seconds: (planned.as_ref().ok())
            .map(|plan| time_to_first_token_seconds(problem, plan, prompt.n_tokens, prompt.chunk_tokens)),
        ratio: planned.as_ref().ok().and_then(|plan| Some(best? / plan.objective_value)),
        planned,
    };
    plans.into_iter().map(compared).collect()
}

fn left_out(observed: &Observed, request: &Request<'_>, planned: Option<&Planned>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, seen) in &observed.phones {
        let Some(object) = &seen.object else { continue };
        if planned.is_some_and(|planned| planned.plan.stage_of(name).is_some()) {
            continue;
        }
        let numerics = seen.join.as_ref().map(|join| join.numerics.as_str()).unwrap_or_default();
        let by_planner = planned
            .and_then(|planned| planned.plan.left_out.iter().find(|left_out| left_out.phone == *name))
            .map(|left_out| left_out.why.to_string());
        let why = if !observed.health(name).takes_segments() {
            Some("it is not Ready".to_owned())
        } else if request.excluded.contains(name) {
            Some("another replica takes it".to_owned())
        } else if let Some(refusal) = problem::refusal(object, request.deployment) {
            Some(refusal.to_owned())
        } else if seen.join.is_none() {
            Some("its agent has not said what it computes with".to_owned())
        } else if by_planner.is_some() {
            by_planner
        } else {
            planned.map(|_| format!("its arithmetic, {numerics}, is another one than the ring's"))
        };
        found.extend(why.map(|why| (name.clone(), why)));
    }
    found
}

/// The world as the controller would observe it, from what it wrote into the API.
fn observed(world: &World) -> Observed {
    let placements: BTreeMap<_, _> =
        world.placements.iter().map(|placement| (ObjectKey::of(placement), Arc::new(placement.clone()))).collect();
    Observed {
        now: Timestamp::UNIX_EPOCH,
        uptime: Duration::MAX,
        settings: Settings { grace_period: Duration::MAX, startup_grace: Duration::ZERO, gateway_url: String::new() },
        phones: world.phones.iter().map(|phone| (phone.name_any(), seen(phone, &world.placements))).collect(),
        models: BTreeMap::new(),
        deployments: BTreeMap::new(),
        placements,
        sessions: BTreeMap::new(),
        tokens_per_second: BTreeMap::new(),
        setbacks: BTreeMap::new(),
        behind: BTreeSet::new(),
        written: BTreeMap::new(),
    }
}

fn seen(phone: &Phone, placements: &[SegmentPlacement]) -> PhoneSeen {
    let status = phone.status.clone().unwrap_or_default();
    let is_ready = condition::is_true(&status.conditions, "Ready");
    let bytes = |memory: Option<&polyphony_api::phone::Memory>| {
        memory.and_then(|memory| quantity::parse_bytes(&memory.memory).ok()).unwrap_or(0)
    };
    let speed = |speed: &polyphony_api::phone::BackendSpeed| Speed {
        backend: speed.name.clone(),
        device: speed.device.clone(),
        gflops: speed.gflops,
        batch_gflops: speed.batch_gflops.unwrap_or_default(),
        gigabytes_per_second: speed.gigabytes_per_second,
    };
    let name = phone.name_any();
    let join = status.numerics.clone().map(|numerics| Join {
        version: version::CURRENT,
        phone: name.clone(),
        token: String::new(),
        agent_version: status.agent_version.clone().unwrap_or_default(),
        ring_address: status.ring_address.clone().unwrap_or_default(),
        capacity_bytes: bytes(status.capacity.as_ref()),
        allocatable_bytes: bytes(status.allocatable.as_ref()),
        backend: status.backend.clone().unwrap_or_default(),
        device: status.device.clone().unwrap_or_default(),
        numerics,
        speeds: status.backends.iter().map(speed).collect(),
        metrics_address: String::new(),
        instance: String::new(),
    });
    let link = |link: &polyphony_api::phone::Link| LinkReport {
        peer: link.peer.clone(),
        round_trip_seconds: link.round_trip_milliseconds / 1e3,
        bytes_per_second: link.megabits_per_second.map(|megabits| megabits * 1e6 / 8.0),
    };
    let heartbeat = Heartbeat {
        segments: placements.iter().filter(|placement| placement.spec.phone == name).filter_map(report).collect(),
        links: status.links.iter().map(link).collect(),
        ..Heartbeat::default()
    };
    let link = if is_ready {
        PhoneLink::Up { silent_for: Duration::ZERO, suspected_after: Duration::MAX }
    } else {
        PhoneLink::Down
    };
    PhoneSeen { object: Some(Arc::new(phone.clone())), link, join, heartbeat: Some(heartbeat), lease_renewed: None }
}

/// What a phone measured of a segment, where it did.
fn report(placement: &SegmentPlacement) -> Option<SegmentReport> {
    let status = placement.status.as_ref()?;
    let milliseconds: f64 = status.milliseconds_per_layer.as_ref()?.parse().ok()?;
    Some(SegmentReport {
        namespace: placement.namespace().unwrap_or_default(),
        name: placement.name_any(),
        phase: SegmentPhase::Ready,
        bytes_loaded: status.bytes_loaded,
        bytes_total: status.bytes_total,
        seconds_per_layer: Some(milliseconds / 1e3),
        prefill_seconds_per_layer_per_token: None,
        seconds_besides_layers: None,
        layers_timed: 0,
        queued_rows: 0,
        sessions: status.sessions.unwrap_or(0),
        message: None,
    })
}
