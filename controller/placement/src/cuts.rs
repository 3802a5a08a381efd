//! The best cuts for phones in a given order, by dynamic programming over the layer boundaries.

use crate::costs::{Costs, Ring, Score, TIE};
use crate::problem::Objective;

/// The best way to cut the layers among `phones` in this order, or None when no cut fits their memory or two
/// neighbours cannot reach each other.
///
/// Latency: a shortest path over boundaries. Throughput: the objective is max(slowest stage, slowest wire,
/// round ÷ sessions); as the limit on the stages rises, the shortest round falls, so the best limit lies where
/// the two meet, which a binary search over the possible stage times finds.
pub(crate) fn best_cuts(costs: &Costs<'_>, phones: &[usize]) -> Option<(Ring, Score)> {
    if phones.is_empty() || phones.len() > costs.n_layers {
        return None;
    }
    let hops = costs.hops_seconds(phones);
    if !hops.is_finite() {
        return None;
    }
    let limit = match costs.problem.demand.objective {
        Objective::Latency => f64::INFINITY,
        Objective::Throughput => best_limit(costs, phones, hops)?,
    };
    let (ends, _) = shortest(costs, phones, limit)?;
    let ring = Ring { phones: phones.to_vec(), ends };
    let score = costs.score(&ring);
    Some((ring, score))
}

/// Of all cuts that make the round no longer than `ring`'s, the one whose slowest stage is the fastest: it
/// answers prompts and several sessions sooner, at no cost to one.
pub(crate) fn balance(costs: &Costs<'_>, ring: Ring) -> Ring {
    let hops = costs.hops_seconds(&ring.phones);
    let round = costs.score(&ring).round * (1.0 + TIE);
    let within =
        |limit: f64| shortest(costs, &ring.phones, limit * (1.0 + TIE)).filter(|(_, stages)| stages + hops <= round);
    let times = stage_times(costs, &ring.phones);
    let first = times.partition_point(|&limit| within(limit).is_none());
    match times.get(first).and_then(|&limit| within(limit)) {
        Some((ends, _)) => Ring { ends, ..ring },
        None => ring,
    }
}

/// Every time that a stage of these phones can take, rising.
fn stage_times(costs: &Costs<'_>, phones: &[usize]) -> Vec<f64> {
    let mut times = Vec::new();
    for (stage, &phone) in phones.iter().enumerate() {
        let p = &costs.problem.phones[phone];
        let mut ends = 0.0;
        if stage == 0 {
            ends += p.seconds_embedding;
        }
        if stage + 1 == phones.len() {
            ends += p.seconds_head;
        }
        // Every other stage holds a layer at least.
        times.extend((1..=costs.n_layers + 1 - phones.len()).map(|n| n as f64 * p.seconds_per_layer + ends));
    }
    times.sort_by(f64::total_cmp);
    times.dedup();
    times
}

/// The objective that can be reached, to be used as the limit of every stage.
fn best_limit(costs: &Costs<'_>, phones: &[usize], hops: f64) -> Option<f64> {
    let times = stage_times(costs, phones);
    let n_sessions = costs.n_sessions();
    let shared_round = |limit: f64| shortest(costs, phones, limit * (1.0 + TIE)).map(|(_, s)| (s + hops) / n_sessions);
    // The first limit that the shared round does not exceed.
    let meet = times.partition_point(|&limit| shared_round(limit).is_none_or(|shared| shared > limit));
    let above = times.get(meet).copied();
    let below = meet.checked_sub(1).and_then(|i| shared_round(times[i]));
    let best = match (above, below) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    Some(best.max(costs.slowest_wire(phones)) * (1.0 + TIE))
}

/// The cut with the least sum of stage times, no stage over `limit`, and that sum.
fn shortest(costs: &Costs<'_>, phones: &[usize], limit: f64) -> Option<(Vec<usize>, f64)> {
    let n = costs.n_layers;
    let k = phones.len();
    // sums[b]: the least sum when the stages so far end at boundary b; came[s][b]: where stage s then began.
    let mut sums = vec![f64::INFINITY; n + 1];
    sums[0] = 0.0;
    let mut came = vec![vec![0usize; n + 1]; k];
    for (stage, &phone) in phones.iter().enumerate() {
        let after = k - 1 - stage;
        let mut next = vec![f64::INFINITY; n + 1];
        for (from, &so_far) in sums.iter().enumerate().take(n).skip(stage) {
            if so_far.is_infinite() {
                continue;
            }
            // The last stage reaches the end in one piece; the others leave a layer for each that follows.
            let ends = if after == 0 { n..=n } else { from + 1..=n - after };
            for to in ends {
                let seconds = costs.stage_seconds(phone, from, to);
                if seconds > limit || !costs.fits(phone, from, to) {
                    break;
                }
                let sum = so_far + seconds;
                if sum < next[to] {
                    next[to] = sum;
                    came[stage][to] = from;
                }
            }
        }
        sums = next;
    }
    if sums[n].is_infinite() {
        return None;
    }
    let mut ends = vec![n; k];
    for stage in (1..k).rev() {
        ends[stage - 1] = came[stage][ends[stage]];
    }
    Some((ends, sums[n]))
}
