//! Goal: what a figure is to reach, and whether it does. Pure.

use serde::{Deserialize, Serialize};

use super::statistics::{CONFIDENCE, Summary};

/// What to reach.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether the median reaches the goal, and whether the whole of an interval that is to be relied on is on the same side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Verdict {
    pub met: bool,
    /// False while the interval has the goal in it, and where there are too few samples for an interval that says anything: the only
    /// sample is its own.
    pub sure: bool,
}

// === impl Goal ===

impl Goal {
    pub fn judge(self, summary: &Summary) -> Verdict {
        let reached = |value: f64| match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        };
        let met = reached(summary.median);
        let is_on_one_side = reached(summary.low) == met && reached(summary.high) == met;
        Verdict { met, sure: is_on_one_side && summary.confidence >= CONFIDENCE }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, "≥ {goal}"),
            Self::AtMost(goal) => write!(f, "≤ {goal}"),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.met, self.sure) {
            (true, true) => "met",
            (true, false) => "met, not surely",
            (false, true) => "missed",
            (false, false) => "missed, not surely",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_the_interval_says_how_surely() {
        let sample = |low, median, high| Summary { n: 7, median, low, high, confidence: 0.98 };
        for (goal, summary, expected) in [
            (Goal::AtLeast(40.0), sample(41.0, 45.0, 50.0), "met"),
            (Goal::AtLeast(40.0), sample(40.0, 40.0, 40.0), "met"),
            (Goal::AtLeast(40.0), sample(39.9, 45.0, 50.0), "met, not surely"),
            (Goal::AtLeast(40.0), sample(30.0, 39.9, 41.0), "missed, not surely"),
            (Goal::AtLeast(40.0), sample(30.0, 35.0, 39.9), "missed"),
            (Goal::AtMost(0.6), sample(0.3, 0.4, 0.6), "met"),
            (Goal::AtMost(0.6), sample(0.3, 0.4, 0.7), "met, not surely"),
            (Goal::AtMost(0.6), sample(0.5, 0.61, 0.7), "missed, not surely"),
            (Goal::AtMost(0.6), sample(0.7, 0.8, 0.9), "missed"),
        ] {
            assert_eq!(goal.judge(&summary).to_string(), expected, "{goal} of {summary:?}");
        }
    }

    #[test]
    fn too_few_samples_are_sure_of_nothing_however_near_they_lie() {
        for (n, confidence, expected) in
            [(1, 0.0, "met, not surely"), (5, 0.9375, "met, not surely"), (6, 0.96875, "met")]
        {
            let summary = Summary { n, median: 50.0, low: 50.0, high: 50.0, confidence };
            assert_eq!(Goal::AtLeast(40.0).judge(&summary).to_string(), expected, "{n} samples");
        }
    }
}
