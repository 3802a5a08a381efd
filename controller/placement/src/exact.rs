//! The exact solver: an integer linear programme over which phones, in what order, with how many layers.
//!
//! The programme (see `exact/programme.rs`) counts layers instead of placing them, so its size does not depend
//! on the model's depth. Its answer is an order of phones; the best cuts for that order come from a dynamic
//! programme. Where layers differ in size the count is a relaxation: an order whose real cuts cost more than
//! the programme believed is excluded and the programme solved again, until it has nothing better to offer.

mod programme;

use crate::costs::{Costs, Ring, Score};
use crate::cuts::settled_cuts;
use programme::{Answer, Programme};

/// Orders tried before giving up on a proof.
const MAX_ROUNDS: usize = 200;
/// Branch-and-bound nodes of all rounds together: the solver's limit, in place of a clock.
const NODE_LIMIT: u64 = 2_000;
/// Usable phones up to which that limit holds; over more a proof may take longer than it is worth.
const MAX_PHONES_PROVEN: usize = 7;
/// The limit beyond.
const SHORT_NODE_LIMIT: u64 = 200;
/// The same where more phones are usable than the programme takes.
const PARTIAL_NODE_LIMIT: u64 = 10;

/// Phones the programme takes when any two links differ: it has a binary for each pair.
const MAX_PHONES: usize = 10;
/// Phones it takes when links and layers are alike and only the set and the ends matter.
const MAX_PHONES_ORDERLESS: usize = 40;

/// Phones of which a part is solved.
const MAX_PHONES_PARTIAL: usize = 48;

/// How many of the usable phones can be solved exactly.
pub(crate) fn max_phones(costs: &Costs<'_>) -> usize {
    let n_usable = costs.usable.len();
    if n_usable <= MAX_PHONES_ORDERLESS && programme::is_orderless(costs, &costs.usable) {
        MAX_PHONES_ORDERLESS
    } else {
        MAX_PHONES
    }
}

/// What the exact solver knows at its end.
pub(crate) struct Outcome {
    pub(crate) best: Option<(Ring, Score)>,
    /// True when no ring over the candidates is better than `best` or, without one, when there is none.
    pub(crate) proven: bool,
}

/// Branch-and-bound nodes that one problem may take.
pub(crate) fn node_limit(costs: &Costs<'_>) -> u64 {
    // Over a part of the phones there is no proof to be had, only something better.
    match costs.usable.len() {
        n if n <= MAX_PHONES_PROVEN => NODE_LIMIT,
        n if n <= max_phones(costs) => SHORT_NODE_LIMIT,
        n if n <= MAX_PHONES_PARTIAL => PARTIAL_NODE_LIMIT,
        _ => 0,
    }
}

/// [`solve_within`] the limit of a whole problem.
pub(crate) fn solve(costs: &Costs<'_>, candidates: &[usize], incumbent: Option<(Ring, Score)>) -> Outcome {
    solve_within(costs, candidates, incumbent, &mut node_limit(costs))
}

/// Improves on `incumbent` with rings over `candidates` until nothing better exists or a limit is met.
pub(crate) fn solve_within(
    costs: &Costs<'_>,
    candidates: &[usize],
    incumbent: Option<(Ring, Score)>,
    nodes_left: &mut u64,
) -> Outcome {
    let mut best = incumbent;
    if candidates.len() > max_phones(costs) || *nodes_left == 0 {
        return Outcome { best, proven: false };
    }
    let mut excluded: Vec<Vec<usize>> = Vec::new();
    // Of no order that is excluded a better cut is left.
    let mut are_settled = true;
    for _ in 0..MAX_ROUNDS {
        let cutoff = best.as_ref().map(|(_, score)| score.objective);
        match Programme::new(costs, candidates, &excluded, cutoff).solve(nodes_left) {
            Answer::Nothing => return Outcome { best, proven: are_settled },
            Answer::GaveUp => {
                return Outcome { best, proven: false };
            }
            Answer::Order { phones, objective } => {
                if excluded.contains(&phones) {
                    return Outcome { best, proven: false };
                }
                let found = settled_cuts(costs, &phones);
                // Nothing is below what the programme promised: reaching it ends the search.
                let reached = found.as_ref().is_some_and(|(_, score, _)| score.objective <= objective * (1.0 + 1e-7));
                are_settled &= found.as_ref().is_none_or(|(_, _, is_settled)| *is_settled);
                if let Some((ring, score, _)) = found
                    && best.as_ref().is_none_or(|(_, known)| score.beats(known))
                {
                    best = Some((ring, score));
                }
                if reached {
                    return Outcome { best, proven: are_settled };
                }
                excluded.push(phones);
            }
        }
    }
    Outcome { best, proven: false }
}
