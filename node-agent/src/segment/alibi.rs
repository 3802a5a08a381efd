//! ALiBi: the slopes by which attention scores fall with distance (Press et al. 2021, arXiv 2108.12409).

/// What the slopes of a count that is a power of two end at: 2^-8.
const LARGEST_EXPONENT: f64 = 8.0;

/// One slope a head. With n the largest power of two up to `n_heads`: head h < n has 2^(-8 (h + 1) / n); the others take every second of
/// the slopes that twice as many heads would have, 2^(-4 (2 (h - n) + 1) / n).
pub(super) fn slopes(n_heads: u32) -> Vec<f32> {
    let n = 1_u32 << n_heads.max(1).ilog2();
    let slope = |head: u32| {
        let exponent = match head.checked_sub(n) {
            None => LARGEST_EXPONENT * f64::from(head + 1) / f64::from(n),
            Some(beyond) => LARGEST_EXPONENT / 2.0 * f64::from(2 * beyond + 1) / f64::from(n),
        };
        (-exponent).exp2() as f32
    };
    (0..n_heads).map(slope).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn heads_have_the_slopes_of_the_paper() {
        // A geometric sequence that begins at its own ratio.
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(slopes(1), [0.00390625]);
    }

    #[test]
    fn a_count_that_is_no_power_of_two_takes_every_second_slope_of_the_next() {
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(slopes(12)[8..], slopes(16).iter().step_by(2).take(4).copied().collect::<Vec<_>>());
    }
}
