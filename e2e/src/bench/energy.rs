//! Energy: what decoding takes out of a battery, beyond what the machine takes at rest. Pure.

use polyphony_protocol::hub::LEAST_ACTIVE_WATTS;

use super::statistics::summary;

/// Joules for each token: for each sample of the watts at work what is above the median of those at rest, by `seconds_a_token`. Empty where there are
/// no samples of either, or work takes no more than rest.
pub fn joules_a_token(rest_watts: &[f64], work_watts: &[f64], seconds_a_token: f64) -> Vec<f64> {
    let (Some(rest), Some(work)) = (summary(rest_watts), summary(work_watts)) else { return Vec::new() };
    if work.median - rest.median < LEAST_ACTIVE_WATTS {
        return Vec::new();
    }
    work_watts.iter().map(|watts| (watts - rest.median) * seconds_a_token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_work_takes_beyond_rest_is_shared_out_to_its_tokens() {
        let found = joules_a_token(&[2.0, 2.5, 9.0], &[6.5, 7.5], 0.5);
        assert!(found.len() == 2 && (found[0] - 2.0).abs() < 1e-9 && (found[1] - 2.5).abs() < 1e-9, "{found:?}");
        for (rest, work) in [(&[][..], &[3.0][..]), (&[3.0], &[]), (&[3.0], &[3.01])] {
            assert!(joules_a_token(rest, work, 0.5).is_empty(), "{rest:?} {work:?}");
        }
    }
}
