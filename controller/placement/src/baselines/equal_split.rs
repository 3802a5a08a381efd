//! Equal split: every phone gets the same number of layers, whatever it is.
//!
//! ⌈L ÷ D⌉ layers each over D phones in their order, the last ones get what is left. It is the baseline that
//! LinguaLinked (ACL 2024, section 5) reports its gains against.

use super::nearest::{nearest, nothing_fits};
use crate::costs::{Costs, Ring};

pub(super) fn ring(costs: &Costs<'_>, phones: &[usize]) -> Result<Ring, String> {
    let wanted = wanted(costs.n_layers, phones.len());
    nearest(costs, phones, &wanted).ok_or_else(|| nothing_fits(phones))
}

/// Layers of each of `n_phones` phones.
fn wanted(n_layers: usize, n_phones: usize) -> Vec<usize> {
    let each = n_layers.div_ceil(n_phones);
    (0..n_phones).map(|at| each.min(n_layers.saturating_sub(at * each))).collect()
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn the_last_phones_get_what_is_left() {
        assert_eq!(wanted(30, 4), [8, 8, 8, 6]);
        assert_eq!(wanted(12, 4), [3, 3, 3, 3]);
        assert_eq!(wanted(10, 6), [2, 2, 2, 2, 2, 0]);
    }
}
