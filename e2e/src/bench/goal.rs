//! Goal: what a figure is to reach, and whether it does. Pure.

use serde::{Deserialize, Serialize};

use super::statistics::Summary;

/// What to reach.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// Whether the median reaches the goal, and whether the whole interval is on the same side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Verdict {
    pub met: bool,
    /// False while the interval has the goal in it.
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
        Verdict { met, sure: reached(summary.low) == met && reached(summary.high) == met }
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
}
