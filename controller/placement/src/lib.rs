//! The planner: which phones hold which layers of a model, in what order. Numbers in, plan out: no network, no
//! clock, no randomness, so equal problems give equal plans.
//!
//! A plan is a ring of stages: contiguous layers, the embedding with the first, the output matrix with the
//! last. [`plan`] minimises the time of a token around the ring (Latency) or between tokens of many sessions
//! (Throughput) within every phone's memory; phones that do not help are left out. A local search finds a good
//! ring, an integer linear programme improves it and proves that none is better; with more than ten phones
//! (forty where all links and layers are alike) it does so over the most promising ones only, and the plan
//! states its gap. [`check`] judges plans with code of its own, and no plan that it rejects is ever returned.

mod baselines;
mod bound;
mod check;
mod costs;
mod cuts;
mod diagnose;
mod exact;
mod infeasible;
mod plan;
mod predict;
mod problem;
mod search;
mod tie;

pub use baselines::{Strategy, UnknownStrategy, plan_by, published_balancer_step, published_overlap};
pub use check::{Violation, check};
pub use infeasible::Infeasible;
pub use plan::{Bound, Holds, LeftOut, Method, Plan, Stage, WhyLeftOut};
pub use predict::time_to_first_token_seconds;
pub use problem::{Demand, Link, Links, MAX_SECONDS, MIN_LAYER_SECONDS, ModelCosts, Objective, PhoneCosts, Problem};

use costs::{Costs, Ring, Score};

/// Finds the best plan.
///
/// Among plans of equal objective the previous one is kept, else one with a short round and even stages. All
/// sums are in seconds and bytes; the objective of the plan is computed anew from its whole layers.
///
/// # Errors
/// The constraint that leaves no plan, with its shortfall and what to do.
pub fn plan(problem: &Problem) -> Result<Plan, Infeasible> {
    if let Some(reason) = diagnose::refuse(problem) {
        return Err(reason);
    }
    let costs = Costs::new(problem);
    let previous = problem.previous.as_ref().and_then(|plan| predict::ring_of(&costs, plan));
    let found = search::search(&costs, previous.as_ref());
    let candidates = candidates(&costs, found.as_ref());
    let outcome = exact::solve(&costs, &candidates, found);
    let all = candidates.len() == costs.usable.len();
    let Some((ring, score)) = outcome.best else {
        return Err(diagnose::explain(&costs));
    };

    let ring = match previous {
        Some(previous) if costs.score(&previous).ties(&score) => previous,
        _ => tie::settle(&costs, ring),
    };
    let gap = if all && outcome.proven { 0.0 } else { gap(&costs, score) };
    let method = if gap == 0.0 { Method::Exact } else { Method::Heuristic };
    let plan = predict::plan_of(&costs, &ring, method, gap);
    match check(problem, &plan) {
        Ok(()) => Ok(plan),
        Err(_) => Err(diagnose::explain(&costs)),
    }
}

/// The phones the exact solver works on: all when they are few, else those of the best ring known and the
/// fastest of the others.
fn candidates(costs: &Costs<'_>, found: Option<&(Ring, Score)>) -> Vec<usize> {
    let max_phones = exact::max_phones(costs);
    if costs.usable.len() <= max_phones {
        return costs.usable.clone();
    }
    let mut chosen = found.map(|(ring, _)| ring.phones.clone()).unwrap_or_default();
    for phone in search::by_speed(costs) {
        if chosen.len() >= max_phones {
            break;
        }
        if !chosen.contains(&phone) {
            chosen.push(phone);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// How far a heuristic's objective may be from the best.
fn gap(costs: &Costs<'_>, score: Score) -> f64 {
    let bound = bound::lower_bound(costs);
    let gap = score.objective / bound - 1.0;
    if gap <= costs::TIE { 0.0 } else { gap }
}
