//! Report: every figure with its samples, as a table for people and as JSON for programs. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::budget::Lengths;
use super::goal::{Goal, Verdict};
use super::statistics::{Summary, summary};

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub what: String,
    /// `cpu`, `vulkan`, or empty where it is of no backend.
    pub backend: String,
    /// Agents in the ring; none for a kernel by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<u32>,
    pub unit: &'static str,
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What llama.cpp does at the same on such a machine, as issue 3 gives it; not measured by this bench.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llama_cpp: Option<f64>,
    /// In the order in which they were taken.
    pub samples: Vec<f64>,
}

/// Where it was measured, without a name or a path of that place.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub system: String,
    pub kernel: String,
    /// What each backend calls its device and driver.
    pub devices: BTreeMap<String, String>,
}

/// Everything that one `make bench` found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
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
    pub activation_type: &'static str,
    /// By backend.
    pub lengths: BTreeMap<String, Lengths>,
    /// The numerics class of the segments, by backend: arithmetic, hidden states, KV cache.
    pub numerics: BTreeMap<String, String>,
    /// How many layers each agent of a ring of three had, by backend.
    pub splits: BTreeMap<String, String>,
    /// Share of all processor time that went to none of what was measured, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_load: Option<Summary>,
    pub rows: Vec<Row>,
    /// What is not in the rows, and why.
    pub left_out: Vec<String>,
}

// === impl Row ===

impl Row {
    /// A figure of its samples; none where there are none.
    pub fn of(what: &str, backend: &str, agents: Option<u32>, unit: &'static str, samples: Vec<f64>) -> Option<Self> {
        let (what, backend) = (what.to_owned(), backend.to_owned());
        let summary = summary(&samples)?;
        Some(Self { what, backend, agents, unit, summary, goal: None, verdict: None, llama_cpp: None, samples })
    }

    /// The same, held to a goal.
    pub fn with_goal(mut self, goal: Goal, llama_cpp: Option<f64>) -> Self {
        self.verdict = Some(goal.judge(&self.summary));
        (self.goal, self.llama_cpp) = (Some(goal), llama_cpp);
        self
    }

    fn cells(&self) -> [String; 10] {
        let Summary { n, median, low, high, .. } = self.summary;
        let or_empty = |text: Option<String>| text.unwrap_or_default();
        [
            self.what.clone(),
            self.backend.clone(),
            or_empty(self.agents.map(|agents| agents.to_string())),
            number(median),
            if n == 1 { "one sample".to_owned() } else { format!("{} … {}", number(low), number(high)) },
            n.to_string(),
            self.unit.to_owned(),
            or_empty(self.goal.map(|goal| goal.to_string())),
            or_empty(self.llama_cpp.map(number)),
            or_empty(self.verdict.map(|verdict| verdict.to_string())),
        ]
    }
}

// === impl Report ===

impl Report {
    /// The table, with the facts above it and what is missing below.
    pub fn table(&self) -> String {
        let Machine { cpu, cores, system, kernel, devices, .. } = &self.machine;
        let mut out = String::new();
        let changed = if self.changed { " with changes" } else { "" };
        // Writing into a string cannot fail.
        let _ = writeln!(out, "{cpu}, {cores} cores · {system}, Linux {kernel} · commit {}{changed}", self.commit);
        for (backend, device) in devices {
            let _ = writeln!(out, "{backend}: {device}");
        }
        let _ = writeln!(out, "{} · {} hidden states · {} profile", self.model, self.activation_type, self.profile);
        for (backend, Lengths { prefill_tokens, decode_tokens }) in &self.lengths {
            let split = self.splits.get(backend).map(|split| format!("; layers over three agents: {split}"));
            let split = split.unwrap_or_default();
            let class = self.numerics.get(backend).map_or("", String::as_str);
            let _ = writeln!(out, "{backend}: {class}; prompts of {prefill_tokens}, {decode_tokens} decoded{split}");
        }
        if let Some(load) = &self.other_load {
            let (median, low, high) = (load.median * 100.0, load.low * 100.0, load.high * 100.0);
            let _ =
                writeln!(out, "other programs took {median:.0} % ({low:.0} … {high:.0}) of the processors meanwhile");
        }
        if self.quick {
            let _ = writeln!(out, "a quick run: these figures say that everything works, not how fast it is");
        }
        out.push('\n');
        out.push_str(&grid(&self.rows));
        out.push_str(&how_sure(&self.rows));
        for why in &self.left_out {
            let _ = writeln!(out, "left out: {why}");
        }
        out
    }
}

const HEADER: [&str; 10] =
    ["what", "backend", "agents", "median", "interval", "n", "unit", "to reach", "llama.cpp", "verdict"];

/// Columns as wide as their widest cell; figures to the right.
pub fn grid(rows: &[Row]) -> String {
    let lines: Vec<[String; 10]> =
        std::iter::once(HEADER.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADER.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            2..=5 | 8 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// With how much confidence the intervals of a table hold their medians, by the number of samples.
pub fn how_sure(rows: &[Row]) -> String {
    let by_n: BTreeMap<usize, f64> = rows.iter().map(|row| (row.summary.n, row.summary.confidence)).collect();
    let words = by_n.iter().filter(|(n, _)| **n > 1).map(|(n, sure)| format!("{:.1} % of {n} samples", sure * 100.0));
    let words: Vec<String> = words.collect();
    if words.is_empty() { String::new() } else { format!("\nintervals hold the median with {}\n", words.join(", ")) }
}

/// Three significant digits, which is more than such samples are worth; whole where it is large.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report {
            version: 1,
            finished_seconds: 0,
            took_seconds: 0,
            quick: false,
            commit: "abc".into(),
            changed: true,
            profile: "dev",
            machine: Machine::default(),
            model: "tiny".into(),
            activation_type: "f16",
            lengths: BTreeMap::new(),
            numerics: BTreeMap::new(),
            splits: BTreeMap::new(),
            other_load: None,
            rows,
            left_out: vec!["vulkan: no driver".into()],
        }
    }

    #[test]
    fn numbers_are_shown_with_three_digits() {
        for (value, shown) in [(0.0, "0"), (1234.5, "1234"), (41.26, "41.3"), (7.0, "7.00"), (0.3349, "0.335")] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn the_table_has_goal_and_verdict_beside_the_figure_and_says_what_is_missing() {
        let decode = Row::of("decode", "cpu", Some(1), "tokens/s", vec![41.0, 44.0, 42.0]).unwrap();
        let kernel = Row::of("q4_1", "vulkan", None, "CPU-ns", vec![0.7]).unwrap();
        let rows = vec![decode.with_goal(Goal::AtLeast(40.0), Some(75.0)), kernel];
        let table = report(rows).table();
        assert!(table.contains("commit abc with changes"), "{table}");
        let line = table.lines().find(|line| line.starts_with("decode")).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>().join(" "),
            "decode cpu 1 42.0 41.0 … 44.0 3 tokens/s ≥ 40 75.0 met, not surely"
        );
        assert!(table.contains("0.700   one sample  1  CPU-ns"), "{table}");
        assert!(table.contains("intervals hold the median with 75.0 % of 3 samples\n"), "{table}");
        assert!(table.contains("left out: vulkan: no driver"), "{table}");
    }

    #[test]
    fn the_json_of_a_row_has_its_summary_and_every_sample() {
        let row = Row::of("decode", "cpu", Some(1), "tokens/s", vec![41.0, 44.0, 42.0]).unwrap();
        let json = serde_json::to_value(row.with_goal(Goal::AtLeast(40.0), None)).unwrap();
        assert_eq!((&json["median"], &json["n"]), (&42.0.into(), &3.into()));
        assert_eq!(json["goal"]["atLeast"], 40.0);
        assert_eq!(json["verdict"]["met"], true);
        assert_eq!(json["samples"], serde_json::json!([41.0, 44.0, 42.0]));
    }

    #[test]
    fn a_figure_without_samples_is_no_row() {
        assert!(Row::of("decode", "cpu", None, "tokens/s", Vec::new()).is_none());
    }
}
