//! The bound where a round has a limit: that of priced costs, less what the limit itself costs at that price.
//!
//! Any price gives a bound (Lagrange's relaxation; Geoffrion 1974), and over prices it has one peak, since the least of linear functions is
//! concave; golden sections of the price's logarithm come near to it.

use super::bound_at;
use crate::costs::Costs;

/// How far below the least watts, and above the most, prices are looked for.
const BELOW: f64 = 1e-2;
const ABOVE: f64 = 1e3;
/// Prices that are asked for, and where there are too many phones for a table of hops.
const MAX_PRICES: usize = 16;
const MAX_PRICES_OF_MANY: usize = 8;
/// The golden section.
const SECTION: f64 = 0.618_033_988_749_895;

/// Joules that no ring is below whose round keeps the limit, or something above `known`.
pub(super) fn priced(costs: &Costs<'_>, known: f64, limit: f64, are_many: bool) -> f64 {
    let at = |price: f64| bound_at(&costs.at_price(price), known + price * limit) - price * limit;
    let free = at(0.0);
    let (least, most) = costs.watts_within();
    if free >= known || !least.is_finite() {
        return free;
    }
    let (mut low, mut high) = ((least * BELOW).ln(), (most * ABOVE).ln());
    let inner = |low: f64, high: f64| (high - SECTION * (high - low), low + SECTION * (high - low));
    let (mut left, mut right) = inner(low, high);
    let (mut of_left, mut of_right) = (at(left.exp()), at(right.exp()));
    let mut best = free.max(of_left).max(of_right);
    for _ in 0..if are_many { MAX_PRICES_OF_MANY } else { MAX_PRICES } {
        if best >= known {
            break;
        }
        if of_left >= of_right {
            (high, right, of_right) = (right, left, of_left);
            left = inner(low, high).0;
            of_left = at(left.exp());
            best = best.max(of_left);
        } else {
            (low, left, of_left) = (left, right, of_right);
            right = inner(low, high).1;
            of_right = at(right.exp());
            best = best.max(of_right);
        }
    }
    best
}
