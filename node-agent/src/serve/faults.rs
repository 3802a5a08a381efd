//! Faults: when steps that fail mean that the segment has to be loaded anew. Pure.

use polyphony_kernels::EngineError;

use crate::segment::SegmentError;

/// Steps in a row that a device fails before it is not waited for any more.
const LIMIT: u32 = 3;

/// What failed since a step last succeeded.
#[derive(Debug, Default)]
pub(super) struct Faults {
    in_a_row: u32,
}

// === impl Faults ===

impl Faults {
    pub(super) fn step_succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// Why the segment is given up, if it is: a device that was lost, or has no memory left, fails the next steps too. What else
    /// fails a step is of its session alone.
    pub(super) fn step_failed(&mut self, error: &SegmentError) -> Option<String> {
        let SegmentError::Engine(EngineError::Device(_)) = error else { return None };
        self.in_a_row += 1;
        (self.in_a_row >= LIMIT).then(|| format!("{LIMIT} steps in a row failed, the last by: {error}"))
    }

    /// The same of the trial before the first session: who cannot do that serves nobody.
    pub(super) fn trial_failed(error: &SegmentError) -> String {
        format!("a trial step failed: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_again_and_again_is_given_up_and_a_bad_session_changes_nothing() {
        let device = || SegmentError::from(EngineError::Device("lost".into()));
        let of_session = SegmentError::TooManyRows { rows: 9, limit: 8 };
        let mut faults = Faults::default();
        for _ in 0..2 {
            assert_eq!((faults.step_failed(&device()), faults.step_failed(&device())), (None, None));
            faults.step_succeeded();
        }
        let given_up =
            [&device(), &of_session, &device(), &of_session, &device()].map(|error| faults.step_failed(error));
        assert_eq!(given_up.iter().flatten().count(), 1);
        assert!(given_up[4].as_deref().is_some_and(|why| why.contains("lost")), "{given_up:?}");
    }
}
