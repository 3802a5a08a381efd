//! The optimal plan: the search for a good ring, the programme that improves on it, and the proof.

use crate::bound;
use crate::check::check;
use crate::costs::{Costs, Ring, Score, TIE};
use crate::infeasible::Infeasible;
use crate::plan::{Method, Plan};
use crate::problem::{Demand, Objective, Problem};
use crate::{diagnose, exact, predict, search, standby, tie};

/// A plan this near to a bound is proven best: bounds are found by halving.
const PROVEN: f64 = 1e-8;
/// Searches at most, each with the sessions in other groups and from the best ring so far.
const MAX_SEARCHES: usize = 8;

/// Finds the best plan.
///
/// Among plans of equal objective the previous one is kept, else one with a short round and even stages. All
/// sums are in seconds and bytes; the objective of the plan is computed anew from its whole layers. Where
/// `Demand::overlap` asks for it, memory that is left holds layers of neighbours on standby.
///
/// # Errors
/// The constraint that leaves no plan, with its shortfall and what to do; [`Infeasible::Rejected`] where the checker does not
/// agree with what was found, which is a fault of this crate.
pub fn plan(problem: &Problem) -> Result<Plan, Infeasible> {
    if let Some(reason) = diagnose::refuse(problem) {
        return Err(reason);
    }
    let all = Costs::new(problem);
    let previous = problem.previous.as_ref().and_then(|plan| predict::ring_of(&all, plan));
    let costs = search::narrow(&all, previous.as_ref());
    let found = heuristic(&costs, previous.as_ref()).or_else(|| first(&costs));
    let found = match found.filter(|found| found.objective.is_finite()) {
        Some(found) => found,
        None => fastest(&all, &costs)?,
    };
    let are_all = costs.usable.len() == all.usable.len();
    let (best, gap) = if are_all {
        let (best, least) = proven(&costs, found);
        let gap = gap_above(least, best.objective);
        (best, gap)
    } else {
        let gap = gap_of(&all, found.objective);
        (found, gap)
    };
    let best = quicker(&costs, best);
    let kept = previous.map(|ring| Found::of(&costs, ring)).filter(|previous| previous.ties(&best));
    let ring = match kept {
        Some(previous) => previous.ring,
        None => tie::settle(&best.costs, best.ring),
    };
    let method = if gap == 0.0 { Method::Exact } else { Method::Heuristic };
    let plan = standby::keep_ready(&all, predict::plan_of(&all, &ring, method, gap));
    match check(problem, &plan) {
        Ok(()) => Ok(plan),
        Err(violation) => Err(Infeasible::Rejected { violation: violation.to_string() }),
    }
}

/// How far an objective, in seconds a token, may be from the best; 0 when it meets a bound.
pub(crate) fn gap_of(costs: &Costs<'_>, objective: f64) -> f64 {
    if !objective.is_finite() {
        return f64::INFINITY;
    }
    gap_above(bound::lower_bound(costs, objective), objective)
}

fn gap_above(bound: f64, objective: f64) -> f64 {
    let gap = objective / bound - 1.0;
    if gap <= PROVEN { 0.0 } else { gap }
}

/// A ring, and the grouping of the sessions that suits it best.
struct Found<'a> {
    costs: Costs<'a>,
    ring: Ring,
    score: Score,
    /// Seconds a token, or joules.
    objective: f64,
}

// === impl Found ===

impl<'a> Found<'a> {
    fn of(costs: &Costs<'a>, ring: Ring) -> Self {
        let (costs, score) = costs.judge(&ring);
        let objective = score.objective / costs.rows;
        Self { costs, ring, score, objective }
    }

    fn beats(&self, other: &Found<'_>) -> bool {
        if self.costs.rows == other.costs.rows {
            return self.score.beats(&other.score);
        }
        self.objective < other.objective * (1.0 - TIE)
    }

    fn ties(&self, other: &Found<'_>) -> bool {
        (self.objective - other.objective).abs() <= TIE * other.objective
    }
}

/// The best ring of local searches: in one, two, four, … groups, and in those that suit what was found.
fn heuristic<'a>(costs: &Costs<'a>, previous: Option<&Ring>) -> Option<Found<'a>> {
    let groupings = costs.groupings();
    let mut to_try: Vec<u32> = groupings.iter().copied().filter(|groups| groups.is_power_of_two()).collect();
    if to_try.is_empty() {
        to_try = groupings;
    }
    to_try.reverse();
    let mut best: Option<Found<'a>> = None;
    let mut tried = Vec::new();
    while let Some(groups) = to_try.pop() {
        if tried.contains(&groups) || tried.len() == MAX_SEARCHES {
            continue;
        }
        tried.push(groups);
        let at = costs.clone().in_groups(groups);
        let start = best.as_ref().map(|found| &found.ring).or(previous);
        let Some((ring, _)) = search::search(&at, start) else { continue };
        let found = Found::of(costs, ring);
        if best.as_ref().is_none_or(|best| found.beats(best)) {
            to_try.push(found.costs.n_groups() as u32);
            best = Some(found);
        }
    }
    best
}

/// Any ring at all, where the search found none.
fn first<'a>(costs: &Costs<'a>) -> Option<Found<'a>> {
    let groups = *costs.groupings().first()?;
    let at = costs.clone().in_groups(groups);
    let outcome = exact::solve(&at, &candidates(&at, None), None);
    outcome.best.map(|(ring, _)| Found::of(costs, ring))
}

/// Of rings with as few joules, which way they are ordered costs none: a faster one.
fn quicker<'a>(costs: &Costs<'a>, found: Found<'a>) -> Found<'a> {
    let faster = search::quicker(&found.costs, &found.ring).map(|(ring, _)| Found::of(costs, ring));
    faster.filter(|faster| faster.beats(&found)).unwrap_or(found)
}

/// The fastest ring, where nothing was found that keeps the floor and it does.
///
/// # Errors
/// Why there is no plan.
fn fastest<'a>(all: &Costs<'a>, costs: &Costs<'a>) -> Result<Found<'a>, Infeasible> {
    let problem = all.problem;
    let Some(wanted_tokens_per_second) = problem.demand.min_tokens_per_second else {
        return Err(diagnose::explain(all));
    };
    let demand = Demand {
        objective: Objective::Latency,
        min_tokens_per_second: None,
        prompt: None,
        overlap: false,
        ..problem.demand.clone()
    };
    let fastest = plan(&Problem { demand, previous: None, ..problem.clone() })?;
    let found = predict::ring_of(all, &fastest).map(|ring| Found::of(costs, ring));
    found.filter(|found| found.objective.is_finite()).ok_or_else(|| {
        let reachable_tokens_per_second = 1.0 / fastest.predicted_inter_token_seconds;
        let most_tokens_per_second = reachable_tokens_per_second * (1.0 + fastest.gap);
        Infeasible::Floor { wanted_tokens_per_second, reachable_tokens_per_second, most_tokens_per_second }
    })
}

/// Improves on `found` in every grouping, as far as there are means; with the objective, in seconds a token, that
/// nothing over these phones is below.
fn proven<'a>(costs: &Costs<'a>, found: Found<'a>) -> (Found<'a>, f64) {
    let mut best = found;
    let n_exact = exact::max_phones(costs);
    if costs.usable.len() > n_exact
        && bound::bound_at(&best.costs, best.score.objective) < best.score.objective * (1.0 - PROVEN)
        && let Some((ring, _)) = search::shake(&best.costs, &best.ring)
    {
        let shaken = Found::of(costs, ring);
        if shaken.beats(&best) {
            best = shaken;
        }
    }
    let mut groupings = costs.groupings();
    // Where the best so far is, something better is likeliest.
    let home = best.costs.n_groups() as u32;
    groupings.sort_by_key(|&groups| (groups.abs_diff(home), groups));
    let mut nodes_left = exact::node_limit(costs);
    let mut least = f64::INFINITY;
    for groups in groupings {
        let at = costs.clone().in_groups(groups);
        let known = best.objective * at.rows;
        let bound = bound::bound_at(&at, known);
        if bound >= known * (1.0 - PROVEN) {
            continue;
        }
        let candidates = candidates(&at, Some(&best.ring));
        let is_home = at.rows == best.costs.rows;
        let score = if is_home { best.score } else { Score { objective: known, round: at.score(&best.ring).round } };
        let outcome = exact::solve_within(&at, &candidates, Some((best.ring.clone(), score)), &mut nodes_left);
        if !(outcome.proven && candidates.len() == costs.usable.len()) {
            least = least.min(bound / at.rows);
        }
        if let Some((ring, _)) = outcome.best {
            let found = Found::of(costs, ring);
            if found.beats(&best) {
                best = found;
            }
        }
    }
    let least = least.min(best.objective);
    (best, least)
}

/// The phones the exact solver works on: all when they are few, else those of the best ring known and the
/// fastest of the others.
fn candidates(costs: &Costs<'_>, found: Option<&Ring>) -> Vec<usize> {
    let max_phones = exact::max_phones(costs);
    if costs.usable.len() <= max_phones {
        return costs.usable.clone();
    }
    let mut chosen = found.map(|ring| ring.phones.clone()).unwrap_or_default();
    for phone in search::ends_first(costs, &search::by_speed(costs)) {
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
