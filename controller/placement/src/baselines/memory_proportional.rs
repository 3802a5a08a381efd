//! Layers in proportion to free memory: the more a phone can hold, the more it gets, however slow it is.
//!
//! As llama.cpp does it (`llama-model.cpp`, `load_tensors` without `--tensor-split`): layer l of L goes to the first
//! device whose cumulative share of free memory exceeds l ÷ (L + 1), the output matrix counting as one more layer.
//! exo and LocalAI go by the same proportion and round otherwise.

use super::nearest::{nearest, nothing_fits};
use crate::costs::{Costs, Ring};

pub(super) fn ring(costs: &Costs<'_>, phones: &[usize]) -> Result<Ring, String> {
    let free: Vec<f64> = phones.iter().map(|&phone| costs.problem.phones[phone].allocatable_bytes as f64).collect();
    let wanted = wanted(costs.n_layers, &free);
    nearest(costs, phones, &wanted).ok_or_else(|| nothing_fits(phones))
}

/// Layers of each phone; `free` is not all zero.
fn wanted(n_layers: usize, free: &[f64]) -> Vec<usize> {
    let total: f64 = free.iter().sum();
    let mut so_far = 0.0;
    let shares: Vec<f64> = free
        .iter()
        .map(|bytes| {
            so_far += bytes;
            so_far / total
        })
        .collect();
    let mut wanted = vec![0; free.len()];
    for layer in 0..n_layers {
        let place = layer as f64 / (n_layers + 1) as f64;
        let at = shares.partition_point(|share| *share <= place).min(free.len() - 1);
        wanted[at] += 1;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn layers_go_by_cumulative_shares_and_the_output_counts_as_one_more() {
        // Shares of 31 places: 3.1, 9.3, 18.6; the last one has the output besides.
        assert_eq!(wanted(30, &[1.0, 2.0, 3.0, 4.0]), [4, 6, 9, 11]);
        assert_eq!(wanted(3, &[5.0, 5.0]), [2, 1]);
        assert_eq!(wanted(4, &[1.0, 0.0, 1.0]), [3, 0, 1]);
    }
}
