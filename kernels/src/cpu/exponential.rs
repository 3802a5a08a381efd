//! e to the x from multiplications and additions only: the same bits on every processor, which no C library promises.

/// eˣ in f32, within 2 units in the last place for −87 ≤ x ≤ 88; x beyond that is taken as the nearer end, NaN stays NaN.
///
/// The polynomial of Cephes' `expf` (Moshier) after reduction to |r| ≤ ln 2 / 2.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this rounds to the nearest integer, which then lies in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let e_to_r = p * (r * r) + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    e_to_r * f32::from_bits(exponent << 23)
}

/// What stays below `cap`: cap · tanh(x / cap), within 2^-20 of the cap.
#[inline(always)]
pub fn capped(x: f32, cap: f32) -> f32 {
    cap * (1.0 - 2.0 / (1.0 + exp(2.0 * (x / cap))))
}

#[cfg(test)]
mod tests {
    use super::{capped, exp};

    #[test]
    fn a_cap_is_reached_on_either_side_and_nothing_goes_beyond() {
        for i in -2000..=2000 {
            let (x, cap) = (i as f32 / 10.0, 30.0);
            let expected = 30.0 * (f64::from(x) / 30.0).tanh();
            assert!((f64::from(capped(x, cap)) - expected).abs() <= 30.0 * 2f64.powi(-20), "{x}: {}", capped(x, cap));
        }
        assert_eq!([f32::MAX, -f32::MAX, 0.0].map(|x| capped(x, 8.0)), [8.0, -8.0, 0.0]);
        assert!(capped(f32::NAN, 8.0).is_nan());
    }

    #[test]
    fn it_is_the_exponential_within_two_units_in_the_last_place() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            // One unit in the last place is at most 2^-23 of the value.
            assert!(error <= 2.0 * 2f64.powi(-23), "exp({x}) is off by {error:e}");
        }
    }

    #[test]
    fn the_ends_hold_and_nan_stays() {
        assert_eq!(exp(-1000.0), exp(-87.0));
        assert_eq!(exp(f32::INFINITY), exp(88.0));
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }
}
