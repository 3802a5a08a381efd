//! Previews: what the planner would do for a deployment, from the objects of the API alone. Pure; changes nothing.
//!
//! The world is observed as the controller observes it, and the problem, the ledger and the planner are its own; only the links
//! to phones are missing, so what was written of speeds and times counts in place of what was said last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use polyphony_api::{InferenceDeployment, Phone, SegmentPlacement};
use polyphony_model::Manifest;
pub use polyphony_placement::Plan;
use polyphony_placement::{Infeasible, Strategy, plan_by, time_to_first_token_seconds};

pub use super::problem::brief::expert_costs;
pub use polyphony_placement::{ExpertCosts, Stage};

use super::facts::Profile;
use super::ledger;
use super::observe::{ObjectKey, Observed, PhoneLink, PhoneSeen, Settings};
use super::problem::brief::Brief;
use super::problem::census::Census;
use super::problem::{self, Asked, Planned, Request, Unplanned};

/// What a preview looks at.
pub struct World {
    pub now: Timestamp,
    pub phones: Vec<Phone>,
    pub deployments: Vec<InferenceDeployment>,
    /// Of all deployments.
    pub placements: Vec<SegmentPlacement>,
}

/// What one replica would run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub replica: u32,
    /// Or what leaves no plan.
    pub planned: Result<Planned, Unplanned>,
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
    let observed = observed(world, deployment);
    let own = ObjectKey::of(deployment);
    let own_keys = observed
        .placements
        .iter()
        .filter(|(key, placement)| placement.spec.deployment == own.name && key.namespace == own.namespace);
    let ledger = ledger::of_all(&observed, &own_keys.map(|(key, _)| key).collect());
    let (taken, census) = (ledger.all(), Census::of(&observed));
    let brief = Brief::of(&observed, &census, deployment, manifest, manifest_digest);
    let mut excluded = BTreeSet::new();
    let mut previews = Vec::new();
    for replica in 0..deployment.spec.replicas {
        let request = Request { brief: &brief, census: &census, excluded: &excluded, taken: &taken, within: None };
        let strategy = problem::rule(deployment.spec.placement.strategy);
        let planned = problem::plan(&observed, &request, &problem::at_once);
        let left_out = left_out(&observed, &request, planned.as_ref().ok());
        let mut time_to_first_token = None;
        let mut comparison = Vec::new();
        if let Ok(Planned { plan, asked, .. }) = &planned {
            let seconds = time_to_first_token_seconds(&asked.expected(), plan, prompt.n_tokens, prompt.chunk_tokens);
            time_to_first_token = Some(seconds);
            comparison = compare(asked, strategy, prompt);
            excluded.extend(plan.stages.iter().map(|stage| stage.phone.clone()));
        }
        let time_to_first_token_seconds = time_to_first_token;
        previews.push(Preview { replica, planned, time_to_first_token_seconds, left_out, comparison });
    }
    previews
}

/// Every strategy on the same problem.
fn compare(asked: &Asked, chosen: Strategy, prompt: Prompt) -> Vec<Compared> {
    let problem = asked.expected();
    let plan = |strategy| plan_by(strategy, &asked.problem).map(|plan| asked.as_expected(plan));
    let plans: Vec<_> = Strategy::ALL.into_iter().map(|strategy| (strategy, plan(strategy))).collect();
    let best = plans.iter().find_map(|(strategy, planned)| match planned {
        Ok(plan) if *strategy == Strategy::Optimal => Some(plan.objective_value),
        _ => None,
    });
    let compared = |(strategy, planned): (Strategy, Result<Plan, Infeasible>)| Compared {
        strategy: strategy.name(),
        is_chosen: strategy == chosen,
        time_to_first_token_seconds: (planned.as_ref().ok())
            .map(|plan| time_to_first_token_seconds(&problem, plan, prompt.n_tokens, prompt.chunk_tokens)),
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
        let profile = observed.profile(name);
        let has_class = |profile: &Profile| profile.usable(&request.brief.deployment.spec).next().is_some();
        let by_planner = planned
            .and_then(|planned| planned.plan.left_out.iter().find(|left_out| left_out.phone == *name))
            .map(|left_out| left_out.why.to_string());
        let why = if !observed.health(name).takes_segments() {
            Some("it is not Ready".to_owned())
        } else if request.excluded.contains(name) {
            Some("another replica takes it".to_owned())
        } else if let Some(refusal) = problem::refusal(object, observed.power(name), request.brief.deployment) {
            Some(refusal.to_owned())
        } else if profile.is_none() {
            Some("its agent has not said what it computes with".to_owned())
        } else if !profile.as_ref().is_some_and(has_class) {
            Some(problem::no_class(seen, request.brief.deployment).to_owned())
        } else if by_planner.is_some() {
            by_planner
        } else {
            planned.map(|planned| format!("it has no part in the ring's class, {}", planned.numerics_class))
        };
        found.extend(why.map(|why| (name.clone(), why)));
    }
    found
}

/// The world as the controller would observe it, without links to phones: what was written counts.
fn observed(world: &World, deployment: &InferenceDeployment) -> Observed {
    let placements: BTreeMap<_, _> =
        world.placements.iter().map(|placement| (ObjectKey::of(placement), Arc::new(placement.clone()))).collect();
    let mut deployments: BTreeMap<_, _> =
        world.deployments.iter().map(|one| (ObjectKey::of(one), Arc::new(one.clone()))).collect();
    deployments.insert(ObjectKey::of(deployment), Arc::new(deployment.clone()));
    let seen = |phone: &Phone| PhoneSeen {
        object: Some(Arc::new(phone.clone())),
        link: PhoneLink::Told,
        ..PhoneSeen::default()
    };
    Observed {
        now: world.now,
        uptime: Duration::MAX,
        settings: Settings { grace_period: Duration::MAX, startup_grace: Duration::ZERO, gateway_url: String::new() },
        phones: world.phones.iter().map(|phone| (phone.name_any(), seen(phone))).collect(),
        models: BTreeMap::new(),
        deployments,
        placements,
        sessions: BTreeMap::new(),
        readable_models: BTreeSet::new(),
        tokens_per_second: BTreeMap::new(),
        setbacks: BTreeMap::new(),
        waiting: BTreeMap::new(),
        written: BTreeMap::new(),
    }
}
