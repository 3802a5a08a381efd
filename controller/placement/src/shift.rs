//! Shifts: what the balancer can reach from a plan in force. Moving boundaries over layers that stand by moves no
//! weights; everything else does.

use crate::costs::Costs;
use crate::cuts;
use crate::infeasible::Infeasible;
use crate::plan::Plan;
use crate::predict;
use crate::problem::{Link, Problem};

/// A plan that could follow the one in force, and what going there is worth and takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    pub plan: Plan,
    /// How much faster the objective gets: the present one ÷ the new one − 1.
    pub gain: f64,
    /// Weights that phones fetch which they do not hold now, embedding and output matrix included.
    pub weight_bytes: u64,
    /// KV cache of the sessions' tokens in layers that change hands.
    pub kv_bytes: u64,
    /// Until everything has arrived: phones fetch weights side by side, each over its own link from the host, which is
    /// taken to be as wide as its own access, or else as the problem's default link; then the old owners send their
    /// caches, each to one new owner after another.
    pub seconds: f64,
}

/// What can be done about a plan, given what phones and links are like now.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebalance {
    /// The plan in force, predicted anew.
    pub now: Plan,
    /// The best that needs no weights: the same phones in the same order, boundaries moved within what stands by.
    /// None when the plan in force is as good.
    pub shift: Option<Move>,
    /// The best plan there is. None when the plan in force is as good.
    pub replan: Option<Move>,
}

/// The plan with the best boundaries that can be reached from `plan` over layers that stand by: the same phones in the
/// same order, each within its `standby`, which stays as it is. Its figures are computed anew from `problem`.
///
/// Equal boundaries come back when nothing better can be reached, and `plan` itself, untouched, when it is no plan of
/// this problem: a phone is gone, say, or has less memory than it takes.
pub fn best_shift(problem: &Problem, plan: &Plan) -> Plan {
    let costs = Costs::new(problem);
    let Some(ring) = predict::ring_of(&costs, plan) else {
        return plan.clone();
    };
    let mut best = (costs.judge(&ring).1, costs.judge(&ring).0.rows, ring.clone());
    let spans = predict::spans_of(plan);
    for groups in costs.groupings() {
        let at = costs.clone().in_groups(groups);
        if let Some((found, score)) = cuts::best_cuts_within(&at, &ring.phones, &spans)
            && score.objective / at.rows < best.0.objective / best.1 * (1.0 - 1e-9)
        {
            best = (score, at.rows, found);
        }
    }
    predict::shifted(&costs, &best.2, plan)
}

/// `plan` with its figures computed anew from what `problem` says now; None when it is no plan of this problem.
pub fn reprice(problem: &Problem, plan: &Plan) -> Option<Plan> {
    let costs = Costs::new(problem);
    let ring = predict::ring_of(&costs, plan)?;
    Some(predict::shifted(&costs, &ring, plan))
}

/// Everything that the balancer weighs: the plan in force under today's figures, the best shift, and the best plan of
/// all, with what each is worth and takes. `live_tokens` are the tokens of all sessions that have a KV cache now.
///
/// # Errors
/// [`Infeasible`] when there is no plan at all. When `plan` is no plan of this problem any more, it cannot be judged,
/// and there is nothing to shift: None.
pub fn rebalance(problem: &Problem, plan: &Plan, live_tokens: u64) -> Result<Option<Rebalance>, Infeasible> {
    let mut asked = problem.clone();
    asked.previous = Some(plan.clone());
    let best = crate::plan(&asked)?;
    let Some(now) = reprice(problem, plan) else {
        return Ok(None);
    };
    let shifted = best_shift(problem, plan);
    let shift = (!shifted.places_like(plan)).then(|| cost_of_move(problem, &now, shifted, live_tokens));
    let replan = (!best.places_like(plan)).then(|| cost_of_move(problem, &now, best, live_tokens));
    Ok(Some(Rebalance { now, shift, replan }))
}

/// What it is worth, and takes, to go from `now` to `then`.
pub fn cost_of_move(problem: &Problem, now: &Plan, then: Plan, live_tokens: u64) -> Move {
    let model = &problem.model;
    let index = |name: &str| problem.phones.iter().position(|phone| phone.name == name);
    let owner =
        |layer: u32| now.stages.iter().find(|stage| (stage.holds.layers_from..stage.holds.layers_to).contains(&layer));
    let kv_bytes_per_layer = model.kv_bytes_per_token_per_layer.saturating_mul(live_tokens);
    let (mut weight_bytes, mut kv_bytes) = (0u64, 0u64);
    let mut fetch_seconds = 0.0f64;
    let mut sent_seconds: Vec<f64> = vec![0.0; problem.phones.len()];
    for stage in &then.stages {
        let held = now.stage_of(&stage.phone);
        let (had_from, had_to) =
            held.map_or((0, 0), |held| held.standby.unwrap_or((held.holds.layers_from, held.holds.layers_to)));
        let mut fetched = 0u64;
        for layer in stage.holds.layers_from..stage.holds.layers_to {
            if !(had_from..had_to).contains(&layer) {
                fetched = fetched.saturating_add(model.layer_bytes[layer as usize]);
            }
            let Some(from) = owner(layer).filter(|from| from.phone != stage.phone) else { continue };
            kv_bytes = kv_bytes.saturating_add(kv_bytes_per_layer);
            if let (Some(from), Some(to)) = (index(&from.phone), index(&stage.phone)) {
                sent_seconds[from] += problem.links.between(from, to).wire_seconds(kv_bytes_per_layer);
            }
        }
        let has = |end: fn(&crate::Holds) -> bool| held.is_some_and(|held| end(&held.holds));
        if stage.holds.embedding && !has(|holds| holds.embedding) {
            fetched = fetched.saturating_add(model.embedding_bytes);
        }
        if stage.holds.head && !has(|holds| holds.head) {
            fetched = fetched.saturating_add(model.head_bytes);
        }
        weight_bytes = weight_bytes.saturating_add(fetched);
        let access = index(&stage.phone).and_then(|phone| problem.links.access_of(phone));
        let host = access.map_or(problem.links.default, |access| Link {
            latency_seconds: access.delay_seconds,
            bytes_per_second: access.bytes_per_second,
        });
        fetch_seconds = fetch_seconds.max(host.wire_seconds(fetched));
    }
    let sent = sent_seconds.into_iter().fold(0.0, f64::max);
    let gain = now.objective_value / then.objective_value - 1.0;
    Move { plan: then, gain, weight_bytes, kv_bytes, seconds: fetch_seconds + sent }
}
