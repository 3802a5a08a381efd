//! `make bench-lab`: the three strategies on labs of uneven phones, beside what others do, as a table and as
//! `target/bench/lab.json`.
//!
//! What is compared is loaded at once, on the same phones, and asked in turn, forth and back (ABBA); a figure is a median of
//! ratios of neighbours in time. `BENCH_LAB_QUICK=1` makes a short run that shows that everything works; `BENCH_LAB_ONLY`
//! names the parts to run, `BENCH_LAB_LABS` the labs. Nothing here asserts a speed.

mod assignment;
mod balancer;
mod deployments;
mod even;
#[path = "../speed/machine.rs"]
mod machine;
mod question;
mod workbench;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::shelf::{program, random_bloom, real_model};
use polyphony_farm::NamespaceFarm;
use tokio::signal::unix::{SignalKind, signal};

use workbench::Workbench;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Extent {
    pub quick: bool,
    /// Pairs of neighbours that a ratio is the median of: on even phones and of balancers, where a row's samples are pairs.
    pub pairs: usize,
    /// The same on a lab of uneven phones, where a row's samples are one median a lab.
    pub pairs_on_labs: usize,
    /// Tokens of an answer after the first.
    pub tokens: u32,
    /// How long after a phone has dropped tokens are counted.
    pub window: Duration,
    only: Option<Vec<String>>,
    /// Of the labs that plans are compared on; none for as many as there are.
    pub labs: Option<Vec<String>>,
    /// All of it is over by then; what is not measured by then is left out.
    pub deadline: Instant,
}

/// The parts, in the order in which they are run: what a short time leaves out is the last.
const PARTS: [&str; 5] = ["even", "assignment", "balancer", "random", "bloom"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not, and must not take half an hour.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this measures speed; `make bench-lab` runs it");
        return Ok(());
    }
    if let Some(why) = NamespaceFarm::obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let extent = Extent::asked()?;
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Dropping the measurement takes its labs down.
    let report = tokio::select! {
        report = measure(&extent) => report?,
        _ = interrupted.recv() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    };
    print!("{}", report.table());
    let polyctl = program("polyctl")?;
    let target = polyctl.ancestors().nth(2).context("polyctl is not in a target folder")?;
    std::fs::create_dir_all(target.join("bench"))?;
    let path = target.join("bench/lab.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}

async fn measure(extent: &Extent) -> Result<LabReport> {
    let began = Instant::now();
    // Now: the tree may be another by the end.
    let (commit, changed) = machine::commit();
    let Some(model) = real_model() else { bail!("the model is missing: `make setup` fetches it") };
    progress("fetching the weights once, for all labs");
    let bench = Workbench::new(&model).await?;
    let mut report = LabReport {
        version: 2,
        finished_seconds: 0,
        took_seconds: 0,
        quick: extent.quick,
        commit,
        changed,
        profile: machine::PROFILE,
        machine: machine::facts(BTreeMap::new()),
        model: "SmolLM2-135M-Instruct Q4_1, one thread".to_owned(),
        rows: Vec::new(),
        labs: Vec::new(),
        left_out: Vec::new(),
    };
    for part in PARTS.into_iter().filter(|part| extent.runs(part)) {
        let outcome = match part {
            "even" => even::measure(&bench, extent, &mut report).await,
            "assignment" => assignment::measure(&bench, extent, &mut report).await,
            "balancer" => balancer::measure(&bench, extent, &mut report).await,
            "random" => assignment::measure_random(&bench, extent, &mut report).await,
            _ => match random_bloom() {
                Some(model) => assignment::measure_bloom(&model, extent, &mut report).await,
                None => Err(anyhow!("its file is missing: `make bloom` writes it")),
            },
        };
        // One part that cannot be measured takes none of the others with it.
        if let Err(error) = outcome {
            progress(&format!("{part} failed: {error:#}"));
            report.left_out.push(format!("{part}: {error:#}"));
        }
    }
    report.finished_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    report.took_seconds = began.elapsed().as_secs();
    Ok(report)
}

pub fn progress(what: &str) {
    eprintln!("bench-lab: {what}");
}

/// A list in the environment, each of what there is; none where it is not set.
fn named(variable: &str, known: &[&str]) -> Result<Option<Vec<String>>> {
    let list = std::env::var(variable).unwrap_or_default();
    let named: Vec<String> = list.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    if let Some(stranger) = named.iter().find(|one| !known.contains(&one.as_str())) {
        bail!("{variable} names {stranger}: there are {}", known.join(", "));
    }
    Ok((!named.is_empty()).then_some(named))
}

// === impl Extent ===

impl Extent {
    fn asked() -> Result<Self> {
        let is_set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
        let quick = is_set("BENCH_LAB_QUICK");
        let only = named("BENCH_LAB_ONLY", &PARTS)?;
        let labs = named("BENCH_LAB_LABS", &assignment::LABS)?;
        // Six pairs are the fewest whose interval holds the median with 95 %.
        let (pairs, pairs_on_labs, tokens) = if quick { (3, 2, 6) } else { (6, 3, 8) };
        let (window, limit) = if quick { (10, 600) } else { (60, 4_500) };
        let (window, deadline) = (Duration::from_secs(window), Instant::now() + Duration::from_secs(limit));
        Ok(Self { quick, pairs, pairs_on_labs, tokens, window, only, labs, deadline })
    }

    pub fn has_lab(&self, lab: &str) -> bool {
        self.labs.as_ref().is_none_or(|labs| labs.iter().any(|one| one == lab))
    }

    fn runs(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|one| one == part))
    }

    pub fn is_over(&self) -> bool {
        Instant::now() > self.deadline
    }
}
