//! Limits: the best of problems in which a looser limit costs by itself, and a tighter one by what it forbids.

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
/// limits, with `most_asked` questions; what is not asked then counts in `bound` alone.
pub(crate) fn least(
    (low, high): (f64, f64),
    price: f64,
    known: f64,
    most_asked: usize,
    mut rest: impl FnMut(f64) -> Option<(f64, f64)>,
) -> Least {
    let mut best = Least { value: None, limit: high, bound: f64::INFINITY };
    let mut cutoff = known;
    let mut n_asked = 0;
    // Intervals, and what the rest is not below in them.
    let mut open = vec![(low, high, f64::NEG_INFINITY)];
    while let Some((low, high, floor)) = open.pop() {
        let bound = floor + price * low;
        if low > high {
            continue;
        }
        if bound >= cutoff * (1.0 - TIE) || n_asked == most_asked {
            best.bound = best.bound.min(bound);
            continue;
        }
        n_asked += 1;
        let Some((floor, needed)) = rest(high) else { continue };
        let value = floor + price * needed;
        if value < cutoff {
            (best.value, best.limit, cutoff) = (Some(value), high, value);
        }
        let below = needed.min(high) * BELOW;
        let middle = low + (below - low) / 2.0;
        open.push((low, middle, floor));
        open.push((middle, below, floor));
    }
    best.bound = best.bound.min(cutoff);
    best
}

#[cfg(test)]
mod tests {
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
            assert_eq!(none.value, None, "nothing is better than what is known");
        }
    }

    #[test]
    fn what_is_not_asked_bounds_from_below() {
        let steps: Vec<(f64, f64)> = (1..=64).map(|at| (f64::from(at), 100.0 / f64::from(at))).collect();
        for most in 1..40 {
            let found = least((0.0, 64.0), 1.0, f64::INFINITY, most, rest(&steps));
            assert!(found.bound <= 20.0 + 1e-9 && found.value.unwrap() >= 20.0, "{most}: {found:?}");
        }
        let found = least((0.0, 64.0), 1.0, f64::INFINITY, usize::MAX, rest(&steps));
        assert!(found.value == Some(20.0) && (found.bound - 20.0).abs() < 1e-7, "{found:?}");
    }

    #[test]
    fn where_nothing_is_possible_there_is_nothing() {
        let found = least((0.0, 0.5), 1.0, f64::INFINITY, 9, rest(&[(1.0, 1.0)]));
        assert_eq!((found.value, found.bound), (None, f64::INFINITY));
    }
}
