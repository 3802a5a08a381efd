//! Which experts a row takes, and how much of each.

use super::{CpuEngine, Run};
use crate::cpu::exponential;
use crate::ops::route::{Route, SoftmaxOver, key};
use crate::recording::Row;
use crate::shapes::ShapeError;

/// The numbers of the `n_chosen` experts with the largest logits, in their order.
pub fn best(logits: &[f32], n_chosen: usize) -> Vec<usize> {
    let mut experts: Vec<usize> = (0..logits.len()).collect();
    // Stable: of equal ones the lower number stays before.
    experts.sort_by_key(|expert| std::cmp::Reverse(key(logits[*expert])));
    experts.truncate(n_chosen);
    experts
}

/// The shares of the `best`, as [`Route`] says.
pub fn reference(logits: &[f32], best: &[usize], softmax: SoftmaxOver, scale: f32, shares: &mut [f32]) {
    let largest = f64::from(logits[best[0]]);
    let power = |expert: usize| (f64::from(logits[expert]) - largest).exp();
    let sum: f64 = match softmax {
        SoftmaxOver::Chosen => best.iter().map(|expert| power(*expert)).sum(),
        SoftmaxOver::All => (0..logits.len()).map(power).sum(),
    };
    for (share, expert) in shares.iter_mut().zip(best) {
        *share = (f64::from(scale) * (power(*expert) / sum)) as f32;
    }
}

/// As [`reference()`], in f32.
pub fn fast(logits: &[f32], best: &[usize], softmax: SoftmaxOver, scale: f32, shares: &mut [f32]) {
    let largest = logits[best[0]];
    let power = |expert: usize| exponential::exp(logits[expert] - largest);
    let mut sum = 0.0;
    match softmax {
        SoftmaxOver::Chosen => best.iter().for_each(|expert| sum += power(*expert)),
        SoftmaxOver::All => (0..logits.len()).for_each(|expert| sum += power(expert)),
    }
    for (share, expert) in shares.iter_mut().zip(best) {
        *share = scale * (power(*expert) / sum);
    }
}

// === impl Run ===

impl Run for Route {
    fn run(&self, engine: &mut CpuEngine, _rows: &[Row]) -> Result<(), ShapeError> {
        let rows = engine.buffer(self.logits)[..self.n_rows * self.n_experts].chunks_exact(self.n_experts);
        let chosen: Vec<Vec<usize>> = rows.map(|row| best(row, self.n_chosen)).collect();
        engine.update(self.chosen, |_, out| {
            let numbers = chosen.iter().flatten().map(|expert| *expert as f32);
            out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number);
        });
        engine.update(self.shares, |engine, out| {
            let kernel = if engine.is_reference() { reference } else { fast };
            let rows = engine.buffer(self.logits).chunks_exact(self.n_experts);
            for ((logits, chosen), out) in rows.zip(&chosen).zip(out.chunks_exact_mut(self.n_chosen)) {
                kernel(logits, chosen, self.softmax, self.scale, out);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn of_equal_logits_the_lower_number_is_taken_and_always_as_many() {
        assert_eq!(best(&[1.0, 3.0, 3.0, -2.0, 3.0], 2), [1, 2]);
        assert_eq!(best(&[-0.0, 0.0, -1.0, 0.0], 3), [0, 1, 3]);
        assert_eq!(best(&[f32::NEG_INFINITY, -1e-45, 1e-45, -1.0], 4), [2, 1, 3, 0]);
        assert_eq!(best(&[f32::NAN; 4], 3), [0, 1, 2]);
    }
}
