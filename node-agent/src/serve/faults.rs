//! Faults: when steps that fail mean that the segment has to be loaded anew, and whether what it ran on is to blame. Pure.

use polyphony_kernels::EngineError;

use crate::segment::SegmentError;

/// Steps in a row that a device fails before it is not waited for any more.
const LIMIT: u32 = 3;

/// Why a segment no longer computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub why: String,
    /// Whether the backend computes wrongly, is lost, or does not answer: it is not to be used again.
    pub is_of_backend: bool,
}

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
    pub(super) fn step_failed(&mut self, error: &SegmentError) -> Option<Broken> {
        match error {
            SegmentError::Engine(EngineError::Wrong { .. }) => {
                Some(Broken { why: error.to_string(), is_of_backend: true })
            }
            SegmentError::Engine(EngineError::Device(_)) => {
                self.in_a_row += 1;
                let why = || format!("{LIMIT} steps in a row failed, the last by: {error}");
                (self.in_a_row >= LIMIT).then(|| Broken { why: why(), is_of_backend: true })
            }
            _ => None,
        }
    }

    /// The same of the trial before the first session: who cannot do that serves nobody.
    pub(super) fn trial_failed(error: &SegmentError) -> Broken {
        let is_of_backend = matches!(error, SegmentError::Engine(EngineError::Wrong { .. } | EngineError::Device(_)));
        Broken { why: format!("a trial step failed: {error}"), is_of_backend }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
        assert!(given_up[4].as_ref().is_some_and(|broken| broken.why.contains("lost") && broken.is_of_backend));
    }

    #[test]
    fn a_device_that_computes_wrongly_is_given_up_at_once() {
        let wrong = SegmentError::from(EngineError::Wrong { what: "a layer".into(), found: 2.0, right: 1.0 });
        let broken = Faults::default().step_failed(&wrong).unwrap();
        assert!(broken.is_of_backend && broken.why.contains("computes wrongly"), "{broken:?}");
        assert!(Faults::trial_failed(&wrong).is_of_backend);
        assert!(!Faults::trial_failed(&SegmentError::TooManyRows { rows: 9, limit: 8 }).is_of_backend);
    }
}
