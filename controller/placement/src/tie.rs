//! Settles ties: of rings that cost the same, the most even one, with the phones that come first in the problem.

use crate::costs::{Costs, Ring};
use crate::cuts::balance;

/// Evens out the stages as far as that costs nothing, then exchanges phones of `ring` for each other, or for
/// unused ones, where that brings a phone forward that comes earlier in the problem and costs nothing either.
/// So three equal phones stand in their own order.
pub(crate) fn settle(costs: &Costs<'_>, ring: Ring) -> Ring {
    let mut ring = balance(costs, ring);
    let score = costs.score(&ring);
    let as_good = |other: &Ring| {
        let theirs = costs.score(other);
        costs.ring_fits(other) && theirs.ties(&score) && !score.beats(&theirs)
    };
    // Each exchange lowers the list of phones in dictionary order, so this ends.
    loop {
        let mut settled = true;
        for at in 0..ring.phones.len() {
            let now = ring.phones[at];
            let alike = |phone: usize| {
                costs.layer_seconds(phone) == costs.layer_seconds(now)
                    && costs.step_seconds(phone) == costs.step_seconds(now)
            };
            // An unused phone costs the same only if it is alike, but for chance.
            let may = |phone: usize| phone < now && (alike(phone) || ring.phones.contains(&phone));
            for phone in costs.usable.iter().copied().filter(|&phone| may(phone)).collect::<Vec<_>>() {
                let mut other = ring.clone();
                match ring.phones.iter().position(|&p| p == phone) {
                    Some(earlier) if earlier < at => continue,
                    Some(later) => other.phones.swap(at, later),
                    None => other.phones[at] = phone,
                }
                if as_good(&other) {
                    ring = other;
                    settled = false;
                    break;
                }
            }
        }
        if settled {
            return ring;
        }
    }
}
