//! Limits: the best of problems in which a looser limit costs by itself, and a tighter one by what it forbids.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::costs::TIE;

/// A limit that something met lies just above.
const BELOW: f64 = 1.0 - 4.0 * TIE;

/// What is known at the end of [`least`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Least {
    /// The least value, if one below what was known before was met.
    pub(crate) value: Option<f64>,
    /// The limit under which it was met.
    pub(crate) limit: f64,
    /// Nothing is below this, nor below what was known before.
    pub(crate) bound: f64,
}

/// The least of `price` × limit + rest over all limits from `low` to `high`, where it is below `known`.
///
/// `rest` is asked for a limit, and tells the least that is possible under it with how much of the limit that needs, or `None` where nothing
/// is; so it falls as the limit rises, and what it needs less than the limit need not be asked for again. Branch and bound over intervals of
/// limits, the one with the lowest bound first, with `most_asked` questions; what is not asked then counts in `bound` alone. The price is
/// above 0.
pub(crate) fn least(
    (low, high): (f64, f64),
    price: f64,
    known: f64,
    most_asked: usize,
    mut rest: impl FnMut(f64) -> Option<(f64, f64)>,
) -> Least {
    debug_assert!(price > 0.0, "without a price the loosest limit is best");
    let mut best = Least { value: None, limit: high, bound: known };
    let mut n_asked = 0;
    let mut open = BinaryHeap::from([Interval { low, high, floor: f64::NEG_INFINITY, bound: f64::NEG_INFINITY }]);
    while let Some(Interval { low, high, floor, bound }) = open.pop() {
        let cutoff = best.value.unwrap_or(known);
        if bound >= cutoff * (1.0 - TIE) || n_asked == most_asked {
            // All others are no lower.
            best.bound = bound.min(cutoff);
            return best;
        }
        n_asked += 1;
        let Some((found, needed)) = rest(high) else { continue };
        let (floor, needed) = (found.max(floor), needed.min(high));
        if floor + price * needed < cutoff {
            (best.value, best.limit) = (Some(floor + price * needed), high);
        }
        let below = needed * BELOW;
        let middle = low + (below - low) / 2.0;
        let halves = [(low, middle), (middle, below)].into_iter().filter(|(low, high)| low <= high);
        open.extend(halves.map(|(low, high)| Interval { low, high, floor, bound: floor + price * low }));
    }
    best.bound = best.value.unwrap_or(known);
    best
}

/// Limits that are still to be asked for.
struct Interval {
    low: f64,
    high: f64,
    /// What the rest is not below.
    floor: f64,
    /// What the whole is not below.
    bound: f64,
}

// === impl Interval ===

/// The lowest bound is the greatest; of equal ones the loosest, which says more of the others.
impl Ord for Interval {
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound).then(self.high.total_cmp(&other.high))
    }
}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Interval {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Steps of a staircase: what a limit of so much allows.
    fn rest(steps: &[(f64, f64)]) -> impl FnMut(f64) -> Option<(f64, f64)> + '_ {
        |limit| steps.iter().rev().find(|(needed, _)| *needed <= limit).map(|&(needed, rest)| (rest, needed))
    }

    #[test]
    fn the_least_of_a_staircase_is_found_wherever_it_is() {
        // Neither convex nor even: a step that is worth it hides behind two that are not.
        let steps = [(1.0, 20.0), (2.0, 19.5), (3.0, 19.0), (4.0, 9.0), (7.0, 8.0), (9.0, 1.5)];
        for (price, expected) in [(0.1, 2.4), (1.0, 10.5), (1.6, 15.4), (20.0, 40.0)] {
            let found = least((0.0, f64::INFINITY), price, f64::INFINITY, usize::MAX, rest(&steps));
            assert!((found.value.unwrap() - expected).abs() < 1e-9, "{price}: {found:?}");
            assert!((found.bound - expected).abs() < 1e-9, "{price}: {found:?}");
            let none = least((0.0, f64::INFINITY), price, expected, usize::MAX, rest(&steps));
            assert_eq!((none.value, none.bound), (None, expected), "nothing is better than what is known");
        }
    }

    #[test]
    fn what_is_not_asked_bounds_from_below_and_more_questions_bound_better() {
        let steps: Vec<(f64, f64)> = (1..=64).map(|at| (f64::from(at), 100.0 / f64::from(at))).collect();
        let of = |most: usize| least((0.0, 64.0), 1.0, f64::INFINITY, most, rest(&steps));
        let mut before = f64::NEG_INFINITY;
        for most in 1..30 {
            let found = of(most);
            assert!(found.bound <= 20.0 + 1e-9 && found.bound >= before && found.value.unwrap() >= 20.0, "{found:?}");
            before = found.bound;
        }
        assert!(of(12).bound > 15.0, "{:?}", of(12));
        let found = of(usize::MAX);
        assert!(found.value == Some(20.0) && (found.bound - 20.0).abs() < 1e-7, "{found:?}");
        // Who does not tell how much of a limit it needs is asked for ever nearer ones.
        let blind = |limit: f64| rest(&steps)(limit).map(|(value, _)| (value, limit));
        let found = least((0.0, 64.0), 1.0, f64::INFINITY, 60, blind);
        assert!(found.bound > 19.9, "{found:?}");
    }

    #[test]
    fn where_nothing_is_possible_there_is_nothing() {
        let found = least((0.0, 0.5), 1.0, f64::INFINITY, 9, rest(&[(1.0, 1.0)]));
        assert_eq!((found.value, found.bound), (None, f64::INFINITY));
    }
}
