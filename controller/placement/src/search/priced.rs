//! The search where a round has a limit: by prices of a second, from the ring with the fewest joules to the fastest one.
//!
//! Each price makes a sum again of what a ring costs, for which the search is made. The price that two rings agree on is the next one
//! (Handler and Zang 1980); the orders that are met on the way are cut within the limit, and the best of these is the answer.

use super::search_sum;
use crate::costs::{Costs, Ring, Score, TIE};
use crate::cuts::best_cuts;

/// Prices that are asked for at most, besides none and the fastest ring.
const MAX_PRICES: usize = 8;

/// What a second counts where it decides between rings of as many joules alone, as a part of the least watts.
const HARDLY: f64 = 1e-7;

/// A ring of as few joules as `known` that is faster, or what else comes next to it.
pub(super) fn quicker(costs: &Costs<'_>, known: &Ring) -> Option<(Ring, Score)> {
    let (least_watts, _) = costs.watts_within();
    let (ring, _) = search_sum(&costs.at_price(least_watts * HARDLY), Some(known))?;
    let score = costs.score(&ring);
    Some((ring, score))
}

/// A ring in joules and seconds.
struct Corner {
    joules: f64,
    seconds: f64,
}

/// The best ring found that keeps the limit, None when none was found.
pub(super) fn search(costs: &Costs<'_>, previous: Option<&Ring>, limit: f64) -> Option<(Ring, Score)> {
    let free = costs.at_price(0.0);
    let corner = |ring: &Ring| {
        let score = free.score(ring);
        Corner { joules: score.objective, seconds: score.round }
    };
    let is_kept = |corner: &Corner| corner.seconds <= limit * (1.0 + TIE);
    let mut best: Option<(Ring, Score)> = None;
    let take = |best: &mut Option<(Ring, Score)>, phones: &[usize]| {
        if let Some((ring, score)) = best_cuts(costs, phones)
            && best.as_ref().is_none_or(|(_, known)| score.beats(known))
        {
            *best = Some((ring, score));
        }
    };
    if let Some(previous) = previous {
        take(&mut best, &previous.phones);
    }
    let (ring, _) = search_sum(costs.in_seconds(), previous)?;
    let mut fast = corner(&ring);
    take(&mut best, &ring.phones);
    if !is_kept(&fast) {
        return best;
    }
    let (ring, _) = search_sum(&free, best.as_ref().map(|(ring, _)| ring))?;
    let mut cheap = corner(&ring);
    take(&mut best, &ring.phones);
    if is_kept(&cheap) {
        return best;
    }
    for _ in 0..MAX_PRICES {
        let price = (fast.joules - cheap.joules) / (cheap.seconds - fast.seconds);
        if !(price.is_finite() && price > 0.0) {
            break;
        }
        let priced = |corner: &Corner| corner.joules + price * corner.seconds;
        let start = best.as_ref().map(|(ring, _)| ring);
        let Some((ring, _)) = search_sum(&costs.at_price(price), start) else { break };
        let found = corner(&ring);
        take(&mut best, &ring.phones);
        if priced(&found) >= priced(&fast).min(priced(&cheap)) * (1.0 - TIE) {
            break;
        }
        if is_kept(&found) { fast = found } else { cheap = found }
    }
    best
}
