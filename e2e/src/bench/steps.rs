//! Steps: what stages counted of their own steps, read from the metrics of agents. Pure.

/// Steps that some stages have run so far, and how long they took, without what stages wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steps {
    pub n: f64,
    pub seconds: f64,
}

// === impl Steps ===

impl Steps {
    /// The decode steps of a placement, from the text of its agent's metrics; none where it has no such lines.
    pub fn of(text: &str, placement: &str) -> Option<Self> {
        Self::with(text, &format!("placement=\"{placement}\""))
    }

    /// Those of all the agent's placements.
    pub fn of_all(text: &str) -> Option<Self> {
        Self::with(text, "placement=")
    }

    fn with(text: &str, label: &str) -> Option<Self> {
        let figure = |name: &str| {
            let of_line = |line: &str| {
                let rest = line.strip_prefix(name)?;
                let is_wanted = rest.starts_with('{') && rest.contains("kind=\"decode\"") && rest.contains(label);
                is_wanted.then(|| rest.rsplit_once(' ')?.1.parse::<f64>().ok())?
            };
            text.lines().filter_map(of_line).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
        };
        let n = figure("polyphony_segment_step_seconds_count")?;
        Some(Self { n, seconds: figure("polyphony_segment_step_seconds_sum")? })
    }

    /// Seconds of one of the steps that were run since `earlier`; none where there were none.
    pub fn seconds_each_since(self, earlier: Self) -> Option<f64> {
        let n = self.n - earlier.n;
        (n > 0.0).then(|| (self.seconds - earlier.seconds) / n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE polyphony_segment_step_seconds histogram\n\
        polyphony_segment_step_seconds_bucket{kind=\"decode\",placement=\"ring-0-g1-0\",le=\"+Inf\"} 8\n\
        polyphony_segment_step_seconds_sum{kind=\"decode\",placement=\"ring-0-g1-0\"} 0.5\n\
        polyphony_segment_step_seconds_count{kind=\"decode\",placement=\"ring-0-g1-0\"} 8\n\
        polyphony_segment_step_seconds_sum{kind=\"prefill\",placement=\"ring-0-g1-0\"} 9\n\
        polyphony_segment_step_seconds_count{kind=\"prefill\",placement=\"ring-0-g1-0\"} 1\n\
        polyphony_segment_step_seconds_sum{kind=\"decode\",placement=\"ring-0-g1-01\"} 7\n\
        polyphony_segment_step_seconds_count{kind=\"decode\",placement=\"ring-0-g1-01\"} 3\n";

    #[test]
    fn the_decode_steps_of_one_placement_are_told_apart_from_all_others() {
        let steps = Steps::of(TEXT, "ring-0-g1-0");
        assert_eq!(steps, Some(Steps { n: 8.0, seconds: 0.5 }));
        assert_eq!(Steps::of(TEXT, "ring-0-g2-0"), None);
        assert_eq!(Steps::of_all(TEXT), Some(Steps { n: 11.0, seconds: 7.5 }));
        assert_eq!(Steps::of_all("polyphony_segment_step_seconds_countless 3\n"), None);
        assert_eq!(Steps { n: 10.0, seconds: 1.0 }.seconds_each_since(steps.unwrap_or_default()), Some(0.25));
        assert_eq!(Steps::default().seconds_each_since(Steps::default()), None);
    }
}
