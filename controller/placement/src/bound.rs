//! A bound that no plan over all phones can beat, for the gap that a plan states.
//!
//! Every stage of a ring has one way in and one way out, so a ring is a choice of phones, of their layers, and of a way
//! in for each. Relaxed, each phone takes the cheapest way in wherever it comes from, and layers are counted instead of
//! placed; what is left is a knapsack with a charge for each phone used, which a dynamic programme solves in whole
//! layers. Ways out are then priced: a multiplier u_i is paid by i for being used and given to whoever takes its way
//! in from i (Held and Karp 1970). Any u gives a bound; a fixed number of subgradient steps looks for a good one.

mod floor;
mod knapsack;
mod many;
mod ways;

use crate::costs::{Costs, MAX_TABLE};
use crate::limits::least;
use knapsack::Knapsack;
use ways::Ways;

/// Subgradient steps.
const MAX_STEPS: usize = 40;
/// Halvings at most of the interval in which the objective of Throughput lies.
const HALVINGS: usize = 40;
/// The part of the objective to which that interval is narrowed.
const PRECISION: f64 = 1e-9;
/// The same over more phones than a table of hops is made of.
const PRECISION_OF_MANY: f64 = 1e-3;
/// Paces of prompts that are asked about at most, and of so many phones.
const MAX_PACES: usize = 200;
const MAX_PACES_OF_MANY: usize = 40;

/// Seconds a token that no objective is below; `known` is the objective of some plan, in seconds a token.
pub(crate) fn lower_bound(costs: &Costs<'_>, known: f64) -> f64 {
    let of = |groups: u32| {
        let costs = costs.clone().in_groups(groups);
        bound_at(&costs, known * costs.rows) / costs.rows
    };
    costs.groupings().into_iter().map(of).fold(f64::INFINITY, f64::min).min(known)
}

/// Seconds a step that no objective is below in this grouping, or something above `known`.
pub(crate) fn bound_at(costs: &Costs<'_>, known: f64) -> f64 {
    let are_many = costs.usable.len() > MAX_TABLE;
    if let Some(limit) = costs.round_limit() {
        return floor::priced(costs, known, limit, are_many);
    }
    if are_many {
        let many = many::Many::new(costs);
        if !costs.is_of_one() {
            return halve(costs, known, PRECISION_OF_MANY, |limit| many.round(limit, f64::INFINITY));
        }
        return paced(costs, known, MAX_PACES_OF_MANY, |pace| {
            let round = many.round(f64::INFINITY, pace);
            // What of the pace it needs it does not tell.
            round.is_finite().then_some((round, pace))
        });
    }
    let mut ways = Ways::new(costs);
    let mut knapsack = Knapsack::new(costs);
    if costs.is_of_one() {
        let round = dearest(&mut knapsack, &mut ways, f64::INFINITY, known);
        if round >= known {
            return round;
        }
        return paced(costs, known, MAX_PACES, |pace| {
            let round = knapsack.solve(&ways, f64::INFINITY, pace)?;
            Some((round, knapsack.pace()))
        });
    }
    // The slowest stage is within a limit, or above it: as the limit rises, the shortest round falls.
    let round_target = known * costs.shares();
    dearest(&mut knapsack, &mut ways, known, round_target);
    halve(costs, known, PRECISION, |limit| knapsack.solve(&ways, limit, f64::INFINITY).unwrap_or(f64::INFINITY))
}

/// The least objective of any pace of prompts, or `known`, where that is less; `round` is the shortest at a pace, and the pace that it has.
fn paced(costs: &Costs<'_>, known: f64, most_asked: usize, mut round: impl FnMut(f64) -> Option<(f64, f64)>) -> f64 {
    match costs.pace_price() {
        0.0 => round(f64::INFINITY).map_or(f64::INFINITY, |(seconds, _)| seconds),
        price => least((0.0, known / price), price, known, most_asked, round).bound,
    }
}

/// The least objective that is no less than the slowest stage's limit and the round's share under that limit, which
/// falls as the limit rises; or `known`, where that is less.
fn halve(costs: &Costs<'_>, known: f64, precision: f64, mut round: impl FnMut(f64) -> f64) -> f64 {
    let mut shared = |limit: f64| round(limit) / costs.shares();
    if shared(known) >= known {
        return known;
    }
    let (mut low, mut high) = (0.0, known);
    for _ in 0..HALVINGS {
        if high - low <= precision * known {
            break;
        }
        let middle = (low + high) / 2.0;
        if shared(middle) > middle { low = middle } else { high = middle }
    }
    low
}

/// The best bound on the round that the subgradient steps find, and its multipliers in `ways`.
fn dearest(knapsack: &mut Knapsack<'_, '_>, ways: &mut Ways, limit: f64, known: f64) -> f64 {
    let Some(mut best) = knapsack.solve(ways, limit, f64::INFINITY) else {
        return f64::INFINITY;
    };
    let mut best_prices = ways.prices().to_vec();
    let mut pace = 1.0;
    let steps = if ways.can_be_priced() { MAX_STEPS } else { 0 };
    for _ in 0..steps {
        let slope = ways.slope(&knapsack.roles());
        let length: f64 = slope.iter().map(|s| s * s).sum();
        if length == 0.0 || best >= known {
            break;
        }
        ways.move_prices(&slope, pace * (known - best).max(known * 1e-6) / length);
        match knapsack.solve(ways, limit, f64::INFINITY) {
            Some(bound) if bound > best => {
                best = bound;
                best_prices.copy_from_slice(ways.prices());
            }
            _ => pace *= 0.9,
        }
    }
    ways.set_prices(best_prices);
    best
}
