//! `make bench`: how fast real agents and each kernel are, as a table and as `target/bench/report.json`.
//!
//! Every ring answers once a round, and rounds go forth and back (ABBA), so that what slows the machine for a while slows
//! all alike. `BENCH_QUICK=1` makes a short run that shows that everything works. Nothing here asserts a speed.

mod counters;
mod energy;
mod figures;
mod kernels;
mod machine;
mod processor;
mod request;
mod rings;
mod rounds;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::budget::Lengths;
use polyphony_e2e::bench::report::Report;
use polyphony_e2e::bench::statistics::summary;
use polyphony_e2e::shelf::{program, real_model, vulkan_is_here};
use tokio::signal::unix::{SignalKind, signal};

use figures::{Figures, MODEL};
use rings::{Computing, Ring, Shelves};

/// How much is measured.
struct Extent {
    quick: bool,
    rounds: usize,
    lengths: Lengths,
    /// All of it is over by then; what is not measured by then is left out.
    deadline: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not, and must not take ten minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this measures speed; `make bench` runs it");
        return Ok(());
    }
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let extent = if quick { Extent::quick() } else { Extent::full() };
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Dropping the measurement takes its processes down.
    let report = tokio::select! {
        report = measure(&extent) => report?,
        _ = interrupted.recv() => bail!("interrupted"),
        _ = terminated.recv() => bail!("terminated"),
    };
    print!("{}", report.table());
    let path = report_path()?;
    std::fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}

async fn measure(extent: &Extent) -> Result<Report> {
    let began = Instant::now();
    // Now: the tree may be another by the end.
    let (commit, changed) = machine::commit();
    let Some(model) = real_model() else { bail!("the model is missing: `make setup` fetches it") };
    let mut figures = Figures::default();
    kernels::measure(extent.quick, &mut figures);
    rounds::measure(&mut figures);

    let mut computing = vec![
        Computing { name: "cpu", flag: "cpu", threads: 1 },
        Computing { name: "cpu-int8", flag: "cpu-int8", threads: 1 },
        Computing { name: "cpu, 2 threads", flag: "cpu", threads: 2 },
        Computing { name: "cpu-int8, 2 threads", flag: "cpu-int8", threads: 2 },
    ];
    match vulkan_is_here() {
        true => computing.extend(["vulkan", "vulkan-int8"].map(|flag| Computing { name: flag, flag, threads: 1 })),
        false => figures.leave_out("vulkan: no driver is installed; `make setup` installs one as root"),
    }
    let mut shelves = Shelves::start(&computing, &model)?;
    let backends: Vec<&str> = computing.iter().map(|computing| computing.name).collect();
    energy::measure(extent.quick, &shelves.rings, &mut figures).await?;
    let lengths = pace(extent, &backends, &mut shelves.rings).await?;
    for round in 0..extent.rounds {
        if Instant::now() > extent.deadline {
            figures.leave_out(&format!("rounds after the {round}th of {}: the time was over", extent.rounds));
            break;
        }
        progress(&format!("round {} of {}", round + 1, extent.rounds));
        let mut order: Vec<usize> = (0..shelves.rings.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for idx in order {
            let ring = &shelves.rings[idx];
            let run = ring.run(lengths[ring.backend]).await?;
            figures.note(ring, run);
        }
    }
    let other_load = summary(&figures.other_load);
    Ok(Report {
        version: 2,
        finished_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        took_seconds: began.elapsed().as_secs(),
        quick: extent.quick,
        commit,
        changed,
        profile: machine::PROFILE,
        machine: machine::facts(shelves.devices()?),
        model: MODEL.to_owned(),
        activation_type: rings::ACTIVATION_TYPE,
        lengths: lengths.iter().map(|(backend, lengths)| ((*backend).to_owned(), *lengths)).collect(),
        numerics: shelves.numerics()?,
        splits: shelves.splits()?,
        other_load,
        rows: figures.rows(),
        left_out: figures.left_out,
    })
}

/// Compiles and warms what there is, looks how fast it is, and gives each backend the lengths that fit into its time.
async fn pace<'a>(extent: &Extent, backends: &[&'a str], rings: &mut [Ring]) -> Result<BTreeMap<&'a str, Lengths>> {
    let mut paces = BTreeMap::new();
    for ring in rings.iter() {
        progress(&format!("warming up {}, {} agents", ring.backend, ring.agents));
        paces.entry(ring.backend).or_insert_with(Vec::new).push(ring.pace().await?);
    }
    let left = extent.deadline.saturating_duration_since(Instant::now()).as_secs_f64();
    let mut a_round = left / extent.rounds as f64;
    let mut lengths = BTreeMap::new();
    for (idx, backend) in backends.iter().enumerate() {
        let share = a_round / (backends.len() - idx) as f64;
        let paces = &paces[backend];
        let fit = extent.lengths.that_fit(paces, share);
        // What one backend does not need is the next one's.
        a_round -= fit.seconds(paces).min(share);
        lengths.insert(*backend, fit);
    }
    Ok(lengths)
}

fn progress(what: &str) {
    eprintln!("bench: {what}");
}

/// `bench/report.json` in the target folder.
fn report_path() -> Result<PathBuf> {
    let polyctl = program("polyctl")?;
    let target = polyctl.ancestors().nth(2).context("polyctl is not in a target folder")?;
    std::fs::create_dir_all(target.join("bench"))?;
    Ok(target.join("bench/report.json"))
}

// === impl Extent ===

impl Extent {
    fn full() -> Self {
        let deadline = Instant::now() + Duration::from_secs(520);
        Self { quick: false, rounds: 8, lengths: Lengths::FULL, deadline }
    }

    fn quick() -> Self {
        let deadline = Instant::now() + Duration::from_secs(100);
        Self { quick: true, rounds: 2, lengths: Lengths::QUICK, deadline }
    }
}
