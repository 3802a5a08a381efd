//! Lab report: what `make bench-lab` found, as a table for people and as JSON for programs. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::plan::Plan;
use super::report::{Machine, Row, grid, how_sure};
use super::statistics::{Summary, prediction_error, summary};

/// Everything that one `make bench-lab` found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabReport {
    /// Raised when a field changes its meaning.
    pub version: u32,
    /// Unix time of the end.
    pub finished_seconds: u64,
    pub took_seconds: u64,
    /// A smoke run: its figures say that everything works, not how fast.
    pub quick: bool,
    pub commit: String,
    /// The working tree differs from the commit.
    pub changed: bool,
    pub profile: &'static str,
    pub machine: Machine,
    pub model: String,
    pub rows: Vec<Row>,
    pub labs: Vec<LabFigures>,
    /// What is not in the rows, and why.
    pub left_out: Vec<String>,
}

/// What one lab of uneven phones showed.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabFigures {
    pub lab: String,
    /// Who holds what, by deployment.
    pub plans: BTreeMap<String, Plan>,
    /// By deployment.
    pub tokens_per_second: BTreeMap<String, Summary>,
    /// Ours over another's, of each pair of neighbours in time, by the other's deployment.
    pub ratios: BTreeMap<String, Vec<f64>>,
    /// Token time that the controller expected of our plan just before an answer, over that of the answer.
    pub predicted_over_measured: Vec<f64>,
}

// === impl LabFigures ===

impl LabFigures {
    /// Ours over another's: the median of the pairs.
    pub fn ratio(&self, theirs: &str) -> Option<f64> {
        Some(summary(self.ratios.get(theirs)?)?.median)
    }
}

/// The lab with the smallest median of a ratio, and that ratio's samples there.
pub fn worst<'a>(labs: &'a [LabFigures], theirs: &str) -> Option<(&'a str, &'a [f64])> {
    let of_lab = |lab: &'a LabFigures| Some((lab.ratio(theirs)?, lab));
    let (_, lab) = labs.iter().filter_map(of_lab).min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some((&lab.lab, lab.ratios.get(theirs)?))
}

// === impl LabReport ===

impl LabReport {
    /// The table, with the facts above it, each lab below, and what is missing at the end.
    pub fn table(&self) -> String {
        let Machine { cpu, cores, system, kernel, .. } = &self.machine;
        let mut out = String::new();
        let changed = if self.changed { " with changes" } else { "" };
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{cpu}, {cores} cores · {system}, Linux {kernel} · commit {}{changed}", self.commit);
        let _ = writeln!(out, "{} · {} profile · {} s", self.model, self.profile, self.took_seconds);
        if self.quick {
            let _ = writeln!(out, "a quick run: these figures say that everything works, not how fast it is");
        }
        out.push('\n');
        out.push_str(&grid(&self.rows));
        out.push_str(&how_sure(&self.rows));
        for lab in &self.labs {
            let _ = writeln!(out, "\n{}", lab.lab);
            for (deployment, plan) in &lab.plans {
                let speed = lab.tokens_per_second.get(deployment).map_or(f64::NAN, |speed| speed.median);
                let ratio = lab.ratio(deployment).map(|ratio| format!(", ours {ratio:.2} times"));
                let _ = writeln!(out, "  {deployment}: {speed:.2} tokens/s{} · {plan}", ratio.unwrap_or_default());
            }
            if let Some(error) = prediction_error(&lab.predicted_over_measured) {
                let _ = writeln!(out, "  predicted token time: off by {:.0} % of the measured", error * 100.0);
            }
        }
        for why in &self.left_out {
            let _ = writeln!(out, "left out: {why}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::goal::Goal;
    use crate::bench::plan::Held;

    #[test]
    fn the_table_has_rows_labs_and_what_is_missing() {
        let ratio = Summary { n: 7, median: 1.7, low: 1.6, high: 1.8, confidence: 0.98 };
        let row = Row::of("decode, ours over equal split", "cpu", Some(4), "times", vec![1.7]).unwrap();
        let lab = LabFigures {
            lab: "hotspot".into(),
            plans: [("equalsplit".to_owned(), Plan(vec![Held { phone: "phone-1".into(), from: 0, to: 30 }]))].into(),
            tokens_per_second: [("equalsplit".to_owned(), Summary { median: 4.25, ..ratio })].into(),
            ratios: [("equalsplit".to_owned(), vec![1.6, 1.7, 1.8])].into(),
            predicted_over_measured: vec![0.93, 1.07, 0.93],
        };
        let report = LabReport {
            version: 1,
            finished_seconds: 0,
            took_seconds: 9,
            quick: true,
            commit: "abc".into(),
            changed: false,
            profile: "dev",
            machine: Machine::default(),
            model: "tiny".into(),
            rows: vec![row.with_goal(Goal::AtLeast(1.6), None)],
            labs: vec![lab],
            left_out: vec!["two-rooms: not exact".into()],
        };
        let table = report.table();
        for words in [
            "commit abc",
            "a quick run",
            "≥ 1.6",
            "equalsplit: 4.25 tokens/s, ours 1.70 times · phone-1 0-29",
            "predicted token time: off by 7 % of the measured",
            "left out: two-rooms: not exact",
        ] {
            assert!(table.contains(words), "{words} is not in\n{table}");
        }
        assert_eq!(serde_json::to_value(&report).unwrap()["labs"][0]["predictedOverMeasured"][1], 1.07);
    }

    #[test]
    fn the_worst_lab_is_the_one_with_the_least_median_and_keeps_its_samples() {
        let lab = |name: &str, ratios: &[f64]| LabFigures {
            lab: name.into(),
            ratios: [("minmax".to_owned(), ratios.to_vec())].into(),
            ..LabFigures::default()
        };
        // One low sample makes no worst lab.
        let labs = [lab("a", &[1.2, 0.1, 1.3]), lab("b", &[0.9, 1.0, 0.95]), LabFigures::default()];
        assert_eq!(worst(&labs, "minmax"), Some(("b", &[0.9, 1.0, 0.95][..])));
        assert_eq!(worst(&labs, "equalsplit"), None);
    }
}
