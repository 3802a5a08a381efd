//! Statistics of few samples that are not normal: medians, an interval of the median, ratios of pairs. Pure.

use serde::{Deserialize, Serialize};

/// How sure an interval should be at least, where there are samples enough.
pub const CONFIDENCE: f64 = 0.95;

/// What is told of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Summary {
    pub n: usize,
    pub median: f64,
    /// The interval that holds the true median with `confidence`.
    pub low: f64,
    pub high: f64,
    /// From 0 to 1; under [`CONFIDENCE`] only where the sample is too small for more.
    pub confidence: f64,
}

/// The median and its interval; none of an empty sample, or of one with a value that is not finite.
pub fn summary(values: &[f64]) -> Option<Summary> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    let (cut, confidence) = order_statistics(n, CONFIDENCE);
    Some(Summary { n, median: median(&sorted), low: sorted[cut], high: sorted[n - 1 - cut], confidence })
}

/// The middle value, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]) }
}

/// How many values to leave out at either end so that the rest spans the median with at least `wanted`, and with what
/// confidence it then does. Whatever the distribution, a value is above its median as often as a coin shows heads: the
/// interval misses when at most `cut` of `n` coins do (the sign test; David and Nagaraja, Order Statistics, 7.1).
fn order_statistics(n: usize, wanted: f64) -> (usize, f64) {
    let all = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    let (mut ways, mut at_most, mut best) = (1.0, 0.0, (0, 1.0 - 2.0 * all));
    for cut in 0..n.div_ceil(2) {
        at_most += ways * all;
        let confidence = 1.0 - 2.0 * at_most;
        if cut > 0 && confidence < wanted {
            break;
        }
        best = (cut, confidence.max(0.0));
        ways *= (n - cut) as f64 / (cut + 1) as f64;
    }
    best
}

/// The ratio of each pair, of those that both sides have: what changed for both between two pairs cancels.
pub fn ratios(numerators: &[f64], denominators: &[f64]) -> Vec<f64> {
    numerators.iter().zip(denominators).map(|(above, below)| above / below).collect()
}

/// How far predictions were off, each by itself: the median of their absolute errors, as a part of what was measured. One that is half
/// too long and one that is half too short are both half off, and not right together.
pub fn prediction_error(predicted_over_measured: &[f64]) -> Option<f64> {
    let errors: Vec<f64> = predicted_over_measured.iter().map(|ratio| (ratio - 1.0).abs()).collect();
    summary(&errors).map(|errors| errors.median)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        for (values, expected) in [
            (vec![3.0], 3.0),
            (vec![4.0, 1.0], 2.5),
            (vec![9.0, 1.0, 5.0], 5.0),
            (vec![4.0, 1.0, 1000.0, 3.0], 3.5),
            (vec![-1.0, -3.0, -2.0], -2.0),
        ] {
            assert_eq!(summary(&values).unwrap().median, expected, "{values:?}");
        }
    }

    /// Confidences from a table of the binomial distribution: 1 - 2 P(Bin(n, 1/2) <= cut).
    #[test]
    fn the_interval_leaves_out_what_the_binomial_table_allows() {
        for (n, cut, confidence) in [
            (1, 0, 0.0),
            (2, 0, 0.5),
            (5, 0, 0.9375),
            (6, 0, 0.96875),
            (7, 0, 0.984_375),
            (8, 0, 0.992_187_5),
            (9, 1, 0.960_937_5),
            (10, 1, 0.978_515_625),
            (12, 2, 0.961_425_781_25),
            (20, 5, 0.958_610_534_667_968_8),
        ] {
            let values: Vec<f64> = (0..n).map(f64::from).collect();
            let told = summary(&values).unwrap();
            assert_eq!((told.low, told.high), (f64::from(cut), f64::from(n - 1 - cut)), "n = {n}");
            assert!((told.confidence - confidence).abs() < 1e-12, "n = {n}: {}", told.confidence);
        }
    }

    #[test]
    fn one_wild_value_of_nine_moves_neither_median_nor_interval() {
        let mut values = vec![10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0];
        let calm = summary(&values).unwrap();
        values[8] = 1e9;
        let wild = summary(&values).unwrap();
        assert_eq!((wild.median, wild.low, wild.high), (calm.median, calm.low, calm.high));
    }

    #[test]
    fn nothing_is_told_of_no_values_or_of_values_that_are_none() {
        for values in [vec![], vec![1.0, f64::NAN], vec![f64::INFINITY]] {
            assert_eq!(summary(&values), None, "{values:?}");
        }
    }

    #[test]
    fn opposite_errors_do_not_make_a_right_prediction() {
        assert_eq!(prediction_error(&[0.5, 1.5]), Some(0.5));
        assert_eq!(prediction_error(&[1.0, 1.25, 0.875]), Some(0.125));
        assert_eq!(prediction_error(&[]), None);
    }

    #[test]
    fn ratios_are_of_pairs_and_cancel_what_both_sides_share() {
        // The machine is half as fast in the second pair; the ratio does not see it.
        assert_eq!(ratios(&[30.0, 15.0], &[40.0, 20.0]), [0.75, 0.75]);
        // A side without a partner is left out.
        assert_eq!(ratios(&[30.0, 15.0, 7.0], &[40.0, 20.0]), [0.75, 0.75]);
        assert_eq!(summary(&ratios(&[1.0], &[0.0])), None);
    }
}
