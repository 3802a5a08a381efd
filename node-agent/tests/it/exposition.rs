//! Prometheus' text format read back, and held against docs/metrics.md and promtool.

// Each test program that takes this file in uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One metric, as a scrape shows it.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub labels: BTreeSet<String>,
}

/// Every family of a scrape; panics at a line that is not what the format says.
pub fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let family = Family { help: help.to_owned(), ..Default::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} has two helps");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            families.get_mut(name).unwrap_or_else(|| panic!("{name} has no help")).kind = kind.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let base = of_histogram.filter(|base| families.get(*base).is_some_and(|family| family.kind == "histogram"));
            let family = families.get_mut(base.unwrap_or(name)).unwrap_or_else(|| panic!("no help before {line}"));
            assert!(!family.kind.is_empty(), "no type before {line}");
            family.labels.extend(labels.into_iter().map(|(label, _)| label).filter(|label| label != "le"));
        }
    }
    families
}

/// The value of the one sample of `name` that has all these labels; `None` where there is none.
pub fn value(text: &str, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let has = |labels: &[(String, String)]| {
        wanted.iter().all(|(label, value)| labels.iter().any(|(l, v)| l == label && v == value))
    };
    let samples = text.lines().filter(|line| !line.starts_with('#')).map(sample);
    let mut found = samples.filter(|(found, labels, _)| *found == name && has(labels));
    let (_, _, value) = found.next()?;
    assert!(found.next().is_none(), "several {name} with {wanted:?}");
    Some(value.parse().unwrap())
}

fn sample(line: &str) -> (&str, Vec<(String, String)>, &str) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let Some((name, rest)) = series.split_once('{') else { return (series, Vec::new(), value) };
    let mut rest = rest.strip_suffix('}').unwrap();
    let mut labels = Vec::new();
    while let Some((label, after)) = rest.trim_start_matches(',').split_once("=\"") {
        let mut escaped = false;
        let end = after.find(|character| {
            let is_end = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            is_end
        });
        let end = end.unwrap();
        labels.push((label.to_owned(), after[..end].to_owned()));
        rest = &after[end + 1..];
    }
    (name, labels, value)
}

/// The section of docs/metrics.md must hold exactly these families.
pub fn assert_documented(docs: &str, section: &str, families: &BTreeMap<String, Family>) {
    let rows: Vec<String> = families.iter().map(|(name, family)| row(name, family)).collect();
    let section = docs.split("\n## ").find(|part| part.starts_with(section)).unwrap_or_default();
    let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| `polyphony_")).collect();
    assert!(found == rows, "this section of docs/metrics.md should hold these rows:\n{}", rows.join("\n"));
}

fn row(name: &str, family: &Family) -> String {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let units = [
        ("bytes_per_second", "B/s"),
        ("per_second", "1/s"),
        ("seconds", "s"),
        ("bytes", "B"),
        ("celsius", "°C"),
        ("watts", "W"),
        ("joules", "J"),
        ("ratio", "0 to 1"),
        ("gflops", "10⁹/s"),
    ];
    let unit = units.iter().find(|(word, _)| format!("{stem}_").contains(&format!("_{word}_")));
    let unit = unit.map_or("", |(_, unit)| unit);
    format!("| `{name}` | {} | {} | {unit} | {} |", family.kind, labels.join(", "), family.help)
}

/// Lets promtool read the text, where it is installed.
pub fn assert_promtool_has_nothing_to_say(text: &str) {
    let spawn = |program: PathBuf| {
        let mut promtool = Command::new(program);
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        promtool.spawn().ok()
    };
    let Some(mut promtool) = ["promtool".into()].into_iter().chain(in_cache("promtool")).find_map(spawn) else {
        polyphony_skip::skipped("promtool is not here; `make setup-tests` fetches it");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

/// Where scripts/setup.sh puts programs.
fn in_cache(program: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("POLYPHONY_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Some(base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?.join("polyphony"))
    });
    Some(cache?.join("bin").join(program))
}
