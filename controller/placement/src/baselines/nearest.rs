//! The plan that fits and is nearest to what a rule wants, in layers.
//!
//! Equal split and the proportional rule ask nobody about memory, and their programs then run out of it or cap a phone
//! by hand. So that they can run where any plan can, a phone that cannot hold its part takes what it can hold.

use crate::costs::{Costs, Ring};

/// Of all cuts in this order that fit, one with the least Σ |layers − wanted layers|; None when nothing fits. A
/// phone may end up with no layers.
///
/// A shortest path over the layer boundaries: phones × layers² steps.
pub(super) fn nearest(costs: &Costs<'_>, phones: &[usize], wanted: &[usize]) -> Option<Ring> {
    let n = costs.n_layers;
    let mut least: Vec<Option<usize>> = vec![None; n + 1];
    least[0] = Some(0);
    // came[p][b]: where phone p began when it ended at boundary b.
    let mut came = vec![vec![0usize; n + 1]; phones.len()];
    for ((&phone, &wanted), came) in phones.iter().zip(wanted).zip(&mut came) {
        let mut next: Vec<Option<usize>> = vec![None; n + 1];
        for (from, far) in least.iter().enumerate().filter_map(|(from, far)| Some((from, (*far)?))) {
            for to in from..=n {
                if to > from && !costs.fits(phone, from, to) {
                    // More layers never take less, but the last one may share its matrix with the embedding.
                    continue;
                }
                let far = far + (to - from).abs_diff(wanted);
                if next[to].is_none_or(|known| far < known) {
                    next[to] = Some(far);
                    came[to] = from;
                }
            }
        }
        least = next;
    }
    least[n]?;
    let mut end = n;
    let mut counts = vec![0; phones.len()];
    for at in (0..phones.len()).rev() {
        counts[at] = end - came[at][end];
        end = came[at][end];
    }
    Some(super::ring_of_counts(phones, &counts))
}

/// What is said when nothing fits in this order.
pub(super) fn nothing_fits(phones: &[usize]) -> String {
    format!("no cut among its {} phones in the order given fits their memory", phones.len())
}
