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

    /// Why the segment is given up, if it is: at once on a device that is lost, computes wrongly or is set aside; on one that has no memory left or
    /// complains of something else, when the next steps fail too. What else fails a step is of its session alone.
    pub(super) fn step_failed(&mut self, error: &SegmentError) -> Option<String> {
        match error {
            SegmentError::Engine(EngineError::Wrong { .. } | EngineError::Lost(_) | EngineError::SetAside { .. }) => {
                Some(error.to_string())
            }
            SegmentError::Engine(EngineError::Device(_) | EngineError::OutOfMemory(_)) => {
                self.in_a_row += 1;
                (self.in_a_row >= LIMIT).then(|| format!("{LIMIT} steps in a row failed, the last by: {error}"))
            }
            _ => None,
        }
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
        let device = || SegmentError::from(EngineError::OutOfMemory("a buffer".into()));
        let of_session = SegmentError::TooManyRows { rows: 9, limit: 8 };
        let mut faults = Faults::default();
        for _ in 0..2 {
            assert_eq!((faults.step_failed(&device()), faults.step_failed(&device())), (None, None));
            faults.step_succeeded();
        }
        let given_up =
            [&device(), &of_session, &device(), &of_session, &device()].map(|error| faults.step_failed(error));
        assert_eq!(given_up.iter().flatten().count(), 1);
        assert!(given_up[4].as_deref().is_some_and(|why| why.contains("a buffer")), "{given_up:?}");
    }

    #[test]
    fn a_device_that_is_not_believed_any_more_is_given_up_at_once() {
        let wrong = EngineError::Wrong { what: "a layer".into(), found: 2.0, right: 1.0 };
        for (error, words) in [
            (wrong, "computes wrongly"),
            (EngineError::Lost("no answer".into()), "no answer"),
            (EngineError::SetAside { reason: "it hangs".into() }, "it hangs"),
        ] {
            let why = Faults::default().step_failed(&error.into());
            assert!(why.as_deref().is_some_and(|why| why.contains(words)), "{why:?}");
        }
    }
}
