//! LinguaLinked's secondary assignment: which modules of its neighbours a device holds besides its own, so that they
//! can change hands between requests.
//!
//! Given the primary plan, max Σ_j w_j Σ_i (l_ij + r_ij), where l and r say that device i also holds module j of its
//! left or right neighbour; at most one extra copy of a module; blocks stay contiguous; weights within 0.7 A_i.

use super::lingua_linked::MEMORY_SHARE;
use crate::costs::{Costs, Ring};
use crate::plan::Plan;
use crate::predict;
use crate::problem::Problem;

/// `plan` with the published overlap as its standby layers, and its figures computed anew. None when `plan` is not
/// one of this problem.
///
/// A giver keeps at least one layer, since a stage without layers is none. A phone's budget holds as well as 0.7 of
/// its memory.
pub fn published_overlap(problem: &Problem, plan: &Plan) -> Option<Plan> {
    let costs = Costs::new(problem);
    let ring = predict::ring_of(&costs, plan)?;
    let spans = spans(&costs, &ring);
    let priced = predict::plan_of(&costs, &ring, plan.method, plan.gap);
    Some(predict::with_standby(&costs, priced, &spans))
}

/// What each stage holds with its overlap.
fn spans(costs: &Costs<'_>, ring: &Ring) -> Vec<(usize, usize)> {
    let k = ring.phones.len();
    let own: Vec<(usize, usize)> = ring.stages().map(|(_, from, to)| (from, to)).collect();
    let count = |at: usize| own[at].1 - own[at].0;
    // Extra layers to the right of the stage before the last one seen, and of the last one seen → the best weight so
    // far and how it was reached. What a stage takes on its left is the most that is left to take: nothing else of it
    // depends on that.
    let mut states = vec![State { taken: 0, right: 0, weight: 0, spans: Vec::new() }];
    for (at, &mine) in own.iter().enumerate() {
        let mut next: Vec<State> = Vec::new();
        for state in &states {
            let most_right = if at + 1 < k { count(at + 1) - 1 } else { 0 };
            for right in 0..=most_right {
                let to = mine.1 + right;
                let most_left = if at > 0 { (count(at - 1) - 1).saturating_sub(state.taken) } else { 0 };
                let fits = |from: usize| fits(costs, ring.phones[at], mine, (from, to));
                let Some(from) = (mine.0 - most_left..=mine.0).find(|&from| fits(from)) else { break };
                let bytes = |from, to| costs.layer_weight_bytes(from, to);
                let weight = state.weight + bytes(from, mine.0) + bytes(mine.1, to);
                let mut spans = state.spans.clone();
                spans.push((from, to));
                next.push(State { taken: state.right, right, weight, spans });
            }
        }
        states = best_of_each(next);
    }
    states.into_iter().max_by_key(|state| state.weight).map(|state| state.spans).unwrap_or(own)
}

#[derive(Clone)]
struct State {
    /// Layers of the last stage seen that the one before it holds besides.
    taken: usize,
    /// Layers of the next stage that the last one seen holds besides.
    right: usize,
    weight: u64,
    spans: Vec<(usize, usize)>,
}

/// The heaviest of all that leave the same to the stages that follow.
fn best_of_each(mut states: Vec<State>) -> Vec<State> {
    states.sort_by_key(|state| (state.taken, state.right, std::cmp::Reverse(state.weight)));
    states.dedup_by_key(|state| (state.taken, state.right));
    states
}

fn fits(costs: &Costs<'_>, phone: usize, own: (usize, usize), span: (usize, usize)) -> bool {
    if own == span {
        return true;
    }
    let limit = MEMORY_SHARE * costs.problem.phones[phone].allocatable_bytes as f64;
    let weights = costs.weight_bytes(own.0, own.1)
        + costs.layer_weight_bytes(span.0, own.0)
        + costs.layer_weight_bytes(own.1, span.1);
    weights as f64 <= limit && costs.span_fits(phone, own, span)
}
