//! Exact min–max over contiguous ranges, as mesh-llm (September 2026) places layers: each phone's time is its layers'
//! bytes ÷ the rate at which it was measured to decode, and the longest time is made as short as possible. Links,
//! the two ends and the number of hops are not in it.

use super::nearest::nothing_fits;
use super::ring_of_counts;
use crate::costs::{Costs, Ring};

/// Phones in their order; one that lengthens nothing by holding no layers holds none.
pub(super) fn ring(costs: &Costs<'_>, phones: &[usize]) -> Result<Ring, String> {
    let n = costs.n_layers;
    let mut weights = vec![0.0];
    for bytes in &costs.problem.model.layer_bytes {
        // A model of no bytes still has layers.
        weights.push(weights[weights.len() - 1] + (*bytes).max(1) as f64);
    }
    let mean = weights[n] / n as f64;
    let mut worst = vec![f64::INFINITY; n + 1];
    worst[0] = 0.0;
    let mut came = vec![vec![0usize; n + 1]; phones.len()];
    for (&phone, came) in phones.iter().zip(&mut came) {
        let bytes_per_second = mean / costs.problem.phones[phone].seconds_per_layer;
        let mut next = vec![f64::INFINITY; n + 1];
        for from in (0..=n).filter(|&from| worst[from].is_finite()) {
            for to in from..=n {
                if to > from && !costs.fits(phone, from, to) {
                    continue;
                }
                let longest = worst[from].max((weights[to] - weights[from]) / bytes_per_second);
                if longest < next[to] {
                    next[to] = longest;
                    came[to] = from;
                }
            }
        }
        worst = next;
    }
    if worst[n].is_infinite() {
        return Err(nothing_fits(phones));
    }
    let mut counts = vec![0; phones.len()];
    let mut end = n;
    for at in (0..phones.len()).rev() {
        counts[at] = end - came[at][end];
        end = came[at][end];
    }
    Ok(ring_of_counts(phones, &counts))
}
