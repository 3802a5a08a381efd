//! A bound that no plan over all phones can beat, for the gap that a heuristic plan states.

use crate::costs::Costs;
use crate::problem::Objective;
use crate::search::by_speed;

/// Seconds that the objective cannot be below.
///
/// Memory is relaxed to the most layers each phone could hold in any place, order and links to the cheapest
/// hop: layers go to the fastest phones first, and there are at least as many hops as the roomiest phones need.
pub(crate) fn lower_bound(costs: &Costs<'_>) -> f64 {
    let phones: Vec<(f64, usize)> = by_speed(costs)
        .into_iter()
        .map(|i| (costs.problem.phones[i].seconds_per_layer, most_layers(costs, i)))
        .collect();
    let round = shortest_round(costs, &phones);
    if costs.problem.demand.objective == Objective::Latency {
        return round;
    }
    // The slowest stage: the least time in which the phones together get through all layers.
    let enough = |limit: f64| {
        let within = |&(seconds, most): &(f64, usize)| ((limit / seconds + 1e-9) as usize).min(most);
        phones.iter().map(within).fold(0usize, usize::saturating_add) >= costs.n_layers
    };
    let slowest = phones.iter().map(|&(seconds, _)| seconds).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, slowest * costs.n_layers as f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if enough(middle) { high = middle } else { low = middle }
    }
    low.max(round / costs.n_sessions())
}

fn shortest_round(costs: &Costs<'_>, phones: &[(f64, usize)]) -> f64 {
    let all = &costs.problem.phones;
    let least = |value: &dyn Fn(usize) -> f64| costs.usable.iter().map(|&i| value(i)).fold(f64::INFINITY, f64::min);
    let mut left = costs.n_layers;
    let mut round = least(&|i| all[i].seconds_embedding) + least(&|i| all[i].seconds_head);
    for &(seconds, most) in phones {
        let here = most.min(left);
        round += here as f64 * seconds;
        left -= here;
    }
    let mut roomy: Vec<usize> = phones.iter().map(|&(_, most)| most).collect();
    roomy.sort_unstable_by(|a, b| b.cmp(a));
    let mut held = 0;
    let mut n_stages = costs.min_stages();
    for (n, most) in roomy.into_iter().enumerate() {
        if held >= costs.n_layers {
            break;
        }
        held += most;
        n_stages = n_stages.max(n + 1);
    }
    if n_stages > 1 {
        let apart = |i: usize, cost: &dyn Fn(usize, usize) -> f64| {
            costs.usable.iter().filter(|&&j| j != i).map(|&j| cost(i, j)).fold(f64::INFINITY, f64::min)
        };
        let hop = least(&|i| apart(i, &|i, j| costs.hop_seconds(i, j)));
        let back = least(&|i| apart(i, &|i, j| costs.back_seconds(i, j)));
        round += (n_stages - 1) as f64 * hop + back;
    }
    round
}

/// The most layers a phone can hold in any place of a ring.
fn most_layers(costs: &Costs<'_>, phone: usize) -> usize {
    let n = costs.n_layers;
    if costs.fits(phone, 0, n) {
        return n;
    }
    let tail = (1..n).find(|&from| costs.fits(phone, from, n)).map_or(0, |from| n - from);
    (0..n).map(|from| costs.reach(phone, from)).max().unwrap_or(0).max(tail)
}
