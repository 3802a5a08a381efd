//! The problem: what the planner is asked, from what was observed. Pure.

pub mod brief;
pub mod census;
mod links;
pub mod measured;
mod memory;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use polyphony_api::inference_deployment::{BalancingStrategy, InferenceDeploymentSpec, Strategy};
use polyphony_api::{InferenceDeployment, Phone};
use polyphony_placement::shift::reprice;
use polyphony_placement::{
    Energy, Infeasible, PhoneCosts, Plan, Problem, Strategy as Rule, plan_by, published_overlap,
};

use super::class;
use super::facts::Power;
use super::failures;
use super::ledger::Taken;
use super::observe::{Observed, PhoneSeen};
use super::power;
use brief::Brief;
use census::{Census, Counted};
use measured::Figures;

/// The planner as a function; the reconcile loop passes one that remembers what it was asked, and that lets nobody wait for long.
pub type Planner<'a> = &'a dyn Fn(Question<'_>) -> Result<Plan, Unplanned>;

/// What is asked of the planner, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Namespace and name.
    pub deployment: &'a str,
    pub rule: Rule,
    pub problem: &'a Problem,
}

/// Why there is no plan now.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unplanned {
    /// There is none, and this is what it takes.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
    /// The planner is at it.
    #[error("the plan is being computed")]
    Underway,
}

// === impl Unplanned ===

impl Unplanned {
    /// The reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Infeasible(infeasible) => infeasible.reason(),
            Self::Underway => "Planning",
        }
    }
}

/// The planner that answers at once, however long that takes.
///
/// # Errors
/// As the planner's.
pub fn at_once(question: Question<'_>) -> Result<Plan, Unplanned> {
    Ok(plan_by(question.rule, question.problem)?)
}

/// What the planner is asked, of phones of one arithmetic.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub problem: Problem,
    /// The time of a layer on each of the problem's phones when nobody takes turns with it: what measured times are held against.
    alone: Vec<f64>,
    /// The problem's phones as they are, without what is held against those that leave often; `None` where that is no other.
    plain: Option<Vec<PhoneCosts>>,
}

/// A plan and the arithmetic that all its phones share.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// With the figures that are expected of it.
    pub plan: Plan,
    pub numerics_class: String,
    /// What the plan was made from.
    pub asked: Asked,
}

/// What one replica asks of the phones.
pub struct Request<'a> {
    pub brief: &'a Brief<'a>,
    pub census: &'a Census<'a>,
    /// Phones that other replicas of the deployment use, or that failed just now.
    pub excluded: &'a BTreeSet<String>,
    /// What other placements take of each phone.
    pub taken: &'a Taken<'a>,
    /// Only these phones are asked about, where any are named.
    pub within: Option<&'a [&'a str]>,
}

// === impl Asked ===

impl Asked {
    /// The time of a layer on a phone when nobody takes turns with it.
    pub fn alone(&self, phone: &str) -> Option<f64> {
        let at = self.problem.phones.iter().position(|costs| costs.name == phone)?;
        self.alone.get(at).copied().filter(|seconds| seconds.is_finite())
    }

    /// The problem without what is held against phones that leave often.
    pub fn expected(&self) -> Cow<'_, Problem> {
        match &self.plain {
            Some(phones) => Cow::Owned(Problem { phones: phones.clone(), ..self.problem.clone() }),
            None => Cow::Borrowed(&self.problem),
        }
    }

    /// A plan of the problem, with the figures that are expected of it: phones that leave often are slower in choices, not in truth.
    pub fn as_expected(&self, plan: Plan) -> Plan {
        let plain = self.plain.is_some().then(|| reprice(&self.expected(), &plan)).flatten();
        match plain {
            // What was proven was proven of the choice.
            Some(plain) => Plan { method: plan.method, gap: plan.gap, left_out: plan.left_out, ..plain },
            None => plan,
        }
    }
}

/// The best plan over every numerics class that enough phones share.
///
/// # Errors
/// When no class has a plan: what the class with the most memory falls short of. When the planner is still at one of the classes: which is
/// best is not known then.
pub fn plan(observed: &Observed, request: &Request<'_>, planner: Planner<'_>) -> Result<Planned, Unplanned> {
    let mut best: Option<Planned> = None;
    let mut shortfall: Option<(u64, Infeasible)> = None;
    for (numerics_class, asked) in problems(observed, request, Figures::Settled) {
        let memory = asked.problem.phones.iter().map(|phone| phone.allocatable_bytes).sum();
        match plan_for(request.brief, &asked.problem, planner) {
            Ok(plan) if best.as_ref().is_none_or(|best| plan.objective_value < best.plan.objective_value) => {
                best = Some(Planned { plan, numerics_class, asked });
            }
            Ok(_) => {}
            Err(underway @ Unplanned::Underway) => return Err(underway),
            Err(Unplanned::Infeasible(error)) if shortfall.as_ref().is_none_or(|(most, _)| memory > *most) => {
                shortfall = Some((memory, error))
            }
            Err(Unplanned::Infeasible(_)) => {}
        }
    }
    let best = best.map(|best| Planned { plan: best.asked.as_expected(best.plan), ..best });
    best.ok_or_else(|| shortfall.map_or(Infeasible::NoPhones, |(_, error)| error).into())
}

/// The plan by the deployment's strategy. The published balancer has an overlap of its own.
fn plan_for(brief: &Brief<'_>, problem: &Problem, planner: Planner<'_>) -> Result<Plan, Unplanned> {
    let spec = &brief.deployment.spec;
    let plan = planner(Question { deployment: &brief.own, rule: rule(spec.placement.strategy), problem })?;
    let has_overlap = balancer(spec) == BalancingStrategy::LinguaLinked && problem.demand.overlap;
    let overlapped = if has_overlap { published_overlap(problem, &plan) } else { None };
    Ok(overlapped.unwrap_or(plan))
}

/// What the planner is asked, by numerics class: phones of different arithmetic make no ring. Of a phone's classes those count that the
/// deployment asks for, so that one with a processor and a GPU is in two.
pub fn problems(observed: &Observed, request: &Request<'_>, figures: Figures) -> BTreeMap<String, Asked> {
    let Request { brief, census, .. } = request;
    let mut classes: BTreeMap<&str, (Vec<&Counted<'_>>, Vec<PhoneCosts>)> = BTreeMap::new();
    for counted in census.phones(request.within) {
        let Some(allocatable_bytes) = bytes_for(observed, request, counted) else { continue };
        for rate in counted.profile.usable(&brief.deployment.spec) {
            let (phones, estimates) = classes.entry(&rate.numerics).or_default();
            phones.push(counted);
            let costs = PhoneCosts::from_speed(counted.name, allocatable_bytes, &rate.speed, &brief.weights);
            let is_trusted = brief.deployment.spec.placement.trusts(counted.object.labels());
            estimates.push(PhoneCosts { is_trusted, energy: energy(counted.power), ..costs });
        }
    }
    let nothing = BTreeMap::new();
    // What nobody has measured in a class is held to what speed tests were worth in another.
    let typical = classes.iter().filter_map(|(numerics, (counted, estimates))| {
        measured::typical_factor((brief.manifest_digest, numerics), counted, estimates)
    });
    let typical = typical.reduce(f64::min).unwrap_or(1.0);
    // What a phone's own segment measures has the turns of others in it.
    let in_turns = |numerics: &str, costs: PhoneCosts| {
        let assumes_none = brief.deployment.spec.placement.assume_others_idle;
        let counts = !assumes_none && !brief.timed.contains(&(numerics, costs.name.as_str()));
        let turns = if counts { request.taken.turns(&costs.name, &brief.own) } else { 1 };
        costs.in_turns(turns)
    };
    let problem = |(numerics, (counted, estimates)): (&str, (Vec<&Counted<'_>>, Vec<PhoneCosts>))| {
        let known = brief.known.get(numerics).unwrap_or(&nothing);
        let phones = measured::costs(
            observed.now,
            (brief.manifest_digest, numerics, known),
            &counted,
            (&estimates, typical),
            figures,
        );
        let alone = phones.iter().map(|costs| costs.seconds_per_layer).collect();
        let mut phones: Vec<PhoneCosts> = phones.into_iter().map(|costs| in_turns(numerics, costs)).collect();
        let is_weighed = counted.iter().any(|counted| counted.slowness > 1.0);
        let plain = (figures == Figures::Settled && is_weighed).then(|| phones.clone());
        if plain.is_some() {
            let weighed = phones.into_iter().zip(&counted);
            phones = weighed.map(|(costs, counted)| costs.slower(counted.slowness)).collect();
        }
        let numerics_class = class::of(numerics, &brief.deployment.spec);
        let (model, demand) = (brief.model_on(numerics).clone(), brief.demand.clone());
        let problem = Problem { model, phones, links: census.links(&counted), demand, previous: None };
        (numerics_class, Asked { problem, alone, plain })
    };
    classes.into_iter().map(problem).collect()
}

/// What a joule of a phone that charges counts beside one out of a battery: it costs money, and neither somebody's charge nor a battery's
/// life. A choice, no measurement; a fifth or a third would choose much the same.
const CHARGING_JOULE_WEIGHT: f64 = 0.25;

/// What the planner is told of a phone's battery. One that says nothing of charging counts as on battery.
fn energy(power: Power) -> Energy {
    let joule_weight = if power.charging == Some(true) { CHARGING_JOULE_WEIGHT } else { 1.0 };
    Energy { active_watts: power.active_watts, joule_weight, ..Energy::default() }
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

/// What a phone that may take a segment of the deployment now has for it.
fn bytes_for(observed: &Observed, request: &Request<'_>, counted: &Counted<'_>) -> Option<u64> {
    let Counted { name, object, profile, power, .. } = counted;
    let brief = request.brief;
    if request.excluded.contains(*name)
        || !is_admitted(request, name)
        || failures::of_model(object, brief.manifest_digest, observed.now).is_some()
        || refusal(object, *power, brief.deployment).is_some()
    {
        return None;
    }
    Some(request.taken.bytes_left(name, profile.allocatable_bytes, &brief.demand))
}

/// Whether those that use the phone, and the deployment, share it.
fn is_admitted(request: &Request<'_>, phone: &str) -> bool {
    let brief = request.brief;
    request.taken.admits(phone, &brief.own, brief.deployment.spec.placement.allow_sharing)
}

/// Why a phone that has none of the classes which a deployment asks for is none of its ring.
const NO_CLASS: &str = "it does not compute in what spec.numerics asks for: update its agent, start it with another --backend, or ask for another arithmetic or kvCache; for `prefill: Gpu` it needs a GPU, and --backend auto";

/// The same of one that had such a class, and whose backend failed.
const CLASS_ASIDE: &str = "the backend that computes in what spec.numerics asks for is set aside: its condition BackendFaulty says why; start its agent anew, or ask for another arithmetic or prefill";

/// Why a phone has none of the classes that a deployment asks for.
pub fn no_class(seen: &PhoneSeen, deployment: &InferenceDeployment) -> &'static str {
    // A class of two is not there where one of them has failed before it was.
    let asked = deployment.spec.numerics;
    let concerns = |numerics: &str| {
        class::arithmetic(numerics) == Some(asked.arithmetic)
            && (asked.prefill.is_some() || class::prefill(numerics).is_none())
    };
    let has_failed = seen.faulty().any(|(numerics, _)| concerns(numerics));
    if has_failed { CLASS_ASIDE } else { NO_CLASS }
}

/// The phones that the planner is not asked about, and why.
pub fn refusals(observed: &Observed, request: &Request<'_>) -> Vec<(String, &'static str)> {
    let brief = request.brief;
    let why = |name: &String| {
        let seen = observed.phones.get(name)?;
        let profile = observed.profile(name);
        let (Some(object), Some(profile), true) = (&seen.object, profile, observed.health(name).takes_segments())
        else {
            return Some("it is not there");
        };
        if profile.usable(&brief.deployment.spec).next().is_none() {
            return Some(no_class(seen, brief.deployment));
        }
        if request.excluded.contains(name) || !is_admitted(request, name) {
            return Some("it is another deployment's or replica's, or has just failed");
        }
        if failures::of_model(object, brief.manifest_digest, observed.now).is_some() {
            return Some(
                "it could not load this model of late: `polyctl describe phone` says why, `polyctl phone forgive` lets it try again at once",
            );
        }
        refusal(object, observed.power(name), brief.deployment)
    };
    observed.phones.keys().filter_map(|name| Some((name.clone(), why(name)?))).collect()
}

/// Why a person, or its heat or battery, keeps segments of the deployment off this phone.
pub fn refusal(phone: &Phone, power: Power, deployment: &InferenceDeployment) -> Option<&'static str> {
    let reasons = [
        (phone.metadata.deletion_timestamp.is_some(), "it is being deleted"),
        (phone.spec.drain, "it is to be drained"),
        (phone.spec.unschedulable, "it is cordoned"),
        (!matches_selector(phone, deployment), "its labels are not those of spec.placement.selector"),
    ];
    let of_phone = reasons.into_iter().find_map(|(holds, why)| holds.then_some(why));
    of_phone.or_else(|| {
        let policy = &deployment.spec.placement.power_policy;
        power::refusal(phone, power, policy, power::Side::Outside).map(power::Refusal::why_not)
    })
}

/// Whether the phone has the labels that the deployment asks for.
pub fn matches_selector(phone: &Phone, deployment: &InferenceDeployment) -> bool {
    deployment.spec.placement.selects(phone.labels())
}
