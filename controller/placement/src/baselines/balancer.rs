//! The published balancer: between requests, the slowest stage gives one overlapped layer to its faster neighbour.
//!
//! LinguaLinked's paper says that ownership of overlapping modules moves to the neighbour; what triggers it is not in
//! its public code, so the plain reading is taken. It never moves a session: whoever is in the middle of an answer
//! waits until it ends.

use crate::costs::Costs;
use crate::plan::Plan;
use crate::predict;
use crate::problem::Problem;

/// The plan after one step of the published balancer, with `problem`'s figures being what was just measured and the
/// plan's standby layers being its overlap. None when nothing is to change: the slowest stage has one layer, or no
/// neighbour faster than itself holds its layer at that boundary.
pub fn published_balancer_step(problem: &Problem, plan: &Plan) -> Option<Plan> {
    let costs = Costs::new(problem);
    let mut ring = predict::ring_of(&costs, plan)?;
    // What it measures is what tokens take.
    let of_tokens = costs.clone().of_tokens_alone();
    let seconds: Vec<f64> = ring.stages().map(|(phone, from, to)| of_tokens.stage_seconds(phone, from, to)).collect();
    let (slowest, _) = seconds.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)))?;
    let (_, from, to) = ring.stages().nth(slowest)?;
    if to - from < 2 {
        return None;
    }
    let holds = |at: usize, layer: usize| {
        plan.stages[at].standby.is_some_and(|(from, to)| (from as usize..to as usize).contains(&layer))
    };
    let left = slowest.checked_sub(1).filter(|&at| holds(at, from));
    let right = Some(slowest + 1).filter(|&at| at < ring.phones.len() && holds(at, to - 1));
    let faster = [left, right].into_iter().flatten().filter(|&at| seconds[at] < seconds[slowest]);
    let taker = faster.min_by(|&a, &b| seconds[a].total_cmp(&seconds[b]))?;
    if taker < slowest {
        ring.ends[taker] += 1;
    } else {
        ring.ends[slowest] -= 1;
    }
    Some(predict::shifted(&costs, &ring, plan))
}
