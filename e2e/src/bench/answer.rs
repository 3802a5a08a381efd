//! Answer: how many tokens of one differ from what it should have said, and how long it paused. Pure.

/// Tokens that are others than expected, that are missing, or that are too many. An answer that was not over yet misses none.
pub fn changed_tokens(found: &[u64], expected: &[u64], is_over: bool) -> usize {
    let others = found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
    let too_many = found.len().saturating_sub(expected.len());
    let missing = if is_over { expected.len().saturating_sub(found.len()) } else { 0 };
    others + too_many + missing
}

/// The longest time without a token that ends after `from`, in seconds of one clock. `until` is when one looked no longer, where the
/// answer was not over by then: that it stood still to the end is a pause too.
pub fn longest_pause(arrivals: &[f64], from: f64, until: Option<f64>) -> f64 {
    let moments: Vec<f64> = arrivals.iter().copied().chain(until.filter(|_| !arrivals.is_empty())).collect();
    let pauses = moments.windows(2).filter(|two| two[1] >= from).map(|two| two[1] - two[0]);
    pauses.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::{changed_tokens, longest_pause};

    #[test]
    fn a_stream_that_stands_still_to_the_end_has_paused() {
        for (arrivals, until, expected) in [
            (&[1.0, 2.0, 9.0, 10.0][..], None, 7.0),
            // Before the phone dropped, at 5; across that moment it counts whole.
            (&[1.0, 4.0, 5.0, 5.5], None, 1.0),
            (&[1.0, 5.25], None, 4.25),
            (&[5.0, 6.0], Some(60.0), 54.0),
            (&[5.0, 6.0], None, 1.0),
            (&[], Some(60.0), 0.0),
        ] {
            assert_eq!(longest_pause(arrivals, 5.0, until), expected, "{arrivals:?} until {until:?}");
        }
    }

    #[test]
    fn a_token_that_is_missing_is_as_wrong_as_one_that_is_another() {
        let expected = [1, 2, 3, 4];
        for (found, is_over, n_changed) in [
            (&[1, 2, 3, 4][..], true, 0),
            (&[1, 9, 3, 4], true, 1),
            (&[1, 2], false, 0),
            (&[1, 9], false, 1),
            // It ended two tokens early, or said one twice and lost none.
            (&[1, 2], true, 2),
            (&[1, 2, 3, 4, 4], true, 1),
            (&[], true, 4),
        ] {
            assert_eq!(changed_tokens(found, &expected, is_over), n_changed, "{found:?}, over: {is_over}");
        }
    }
}
