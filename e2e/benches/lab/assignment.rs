//! Assignment: the plan of ours beside those of others, on every committed lab and on labs that are drawn.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::{LabFigures, LabReport, worst};
use polyphony_e2e::bench::plan::Plan;
use polyphony_e2e::bench::random_lab::random_lab;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::{prediction_error, ratios, summary};

use crate::deployments::Wanted;
use crate::question::{PROMPT_TOKENS, ask, ask_together};
use crate::workbench::{Running, Workbench, lab_file};
use crate::{Extent, progress};

/// The committed labs; in a quick run only the first, unless others are named.
pub const LABS: [&str; 10] = [
    "four-kinds",
    "alone",
    "two-rooms",
    "memory-where-it-is-slow",
    "hotspot",
    "small-memory",
    "crowded",
    "two-and-two",
    "alone-behind-hotspots",
    "nearly-even",
];
const QUICK_LABS: usize = 2;
/// Where one phone is best alone, and which.
const BEST_ALONE: [(&str, &str); 2] = [("alone", "phone-1"), ("alone-behind-hotspots", "phone-2")];
/// Labs that nobody has made, by their seeds; each strategy is asked once on each. In a quick run only the first.
const RANDOM_SEEDS: std::ops::RangeInclusive<u64> = 1..=20;
/// Where links decide.
const SLOW_LINKS: [&str; 4] = ["two-rooms", "hotspot", "crowded", "alone-behind-hotspots"];
const SESSIONS: usize = 4;
/// So many that what a phone reports is the median of steps, and not of its first ones.
const SETTLING_TOKENS: u32 = 16;

const OURS: &str = "Optimal";
/// The published programme as it was published, with its first device given; and begun on whichever device is best for it.
const PUBLISHED: [&str; 2] = ["LinguaLinked", "LinguaLinkedBestFirst"];
/// In the order in which they are applied. Ours is the last: by then every phone has been measured.
const STRATEGIES: [&str; 6] = ["EqualSplit", "MemoryProportional", "MinMax", PUBLISHED[0], PUBLISHED[1], OURS];

/// What was measured of one lab.
#[derive(Default)]
struct Taken {
    /// Tokens a second of what was asked in turn, by deployment.
    samples: BTreeMap<String, Vec<f64>>,
    /// Of our plan: the token time that was predicted just before an answer, beside that of the answer.
    predicted_over_measured: Vec<f64>,
}

/// What is measured on a lab, and how often.
#[derive(Clone, Copy)]
struct Asked {
    pairs: usize,
    /// Several sessions as well.
    together: bool,
}

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    let n_labs = if extent.quick && extent.labs.is_none() { QUICK_LABS } else { LABS.len() };
    let asked = Asked { pairs: extent.pairs_on_labs, together: true };
    let mut labs = Vec::new();
    for name in LABS[..n_labs].iter().filter(|name| extent.has_lab(name)) {
        labs.extend(measured(bench, name, &lab_file(name), asked, extent, &mut report.left_out).await);
    }
    report.rows.extend(rows(&labs));
    report.labs.extend(labs);
    Ok(())
}

/// The same on labs that nobody has made.
pub async fn measure_random(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let n_labs = if extent.quick { 1 } else { RANDOM_SEEDS.count() };
    let asked = Asked { pairs: 1, together: false };
    let mut labs = Vec::new();
    for seed in RANDOM_SEEDS.take(n_labs) {
        let (name, file) = (format!("random {seed}"), folder.path().join(format!("random-{seed}.yaml")));
        std::fs::write(&file, random_lab(seed))?;
        labs.extend(measured(bench, &name, &file, asked, extent, &mut report.left_out).await);
    }
    for (theirs, words) in [
        ("EqualSplit", "equal split"),
        ("MemoryProportional", "memory-proportional"),
        ("MinMax", "min-max"),
        (PUBLISHED[0], "the published programme"),
        (PUBLISHED[1], "the published programme on its best first phone"),
    ] {
        let samples = labs.iter().filter_map(|lab| lab.ratio(&theirs.to_lowercase())).collect();
        let what = format!("decode, ours over {words}, random labs, each asked once");
        report.rows.extend(Row::of(&what, "cpu", Some(4), "times", samples));
    }
    report.rows.extend(Row::of(
        "predicted token time off the measured, random labs",
        "cpu",
        Some(4),
        "part",
        labs.iter().filter_map(|lab| prediction_error(&lab.predicted_over_measured)).collect(),
    ));
    report.labs.extend(labs);
    Ok(())
}

/// What one lab showed; none, with a word in what is left out, where it could not be measured or the time was over.
async fn measured(
    bench: &Workbench,
    name: &str,
    file: &Path,
    asked: Asked,
    extent: &Extent,
    left_out: &mut Vec<String>,
) -> Option<LabFigures> {
    if extent.is_over() {
        left_out.push(format!("{name}: the time was over"));
        return None;
    }
    match measure_lab(bench, name, file, asked, extent, left_out).await {
        Ok(figures) => Some(figures),
        Err(error) => {
            progress(&format!("{name} failed: {error:#}"));
            left_out.push(format!("{name}: {error:#}"));
            None
        }
    }
}

/// Labs that a model of the published family is measured on, once.
const BLOOM_LABS: [&str; 2] = ["four-kinds", "two-rooms"];

/// The same with a BLOOM of random weights, which takes the time of a real one.
pub async fn measure_bloom(model: &Path, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("fetching BLOOM's weights once");
    let bench = Workbench::new(model).await?;
    let mut labs = Vec::new();
    let asked = Asked { pairs: extent.pairs_on_labs, together: true };
    for name in BLOOM_LABS {
        labs.extend(measured(&bench, name, &lab_file(name), asked, extent, &mut report.left_out).await);
    }
    let ours_over = |theirs: &str| -> Vec<f64> { labs.iter().filter_map(|lab| lab.ratio(theirs)).collect() };
    for theirs in STRATEGIES.into_iter().filter(|theirs| *theirs != OURS) {
        let what = format!("BLOOM 24 × 512, decode, ours over {theirs}, medians of two labs");
        report.rows.extend(Row::of(&what, "cpu", Some(4), "times", ours_over(&theirs.to_lowercase())));
    }
    for published in PUBLISHED {
        let what = format!("BLOOM 24 × 512, 4 sessions, ours over {published}, medians of two labs");
        report.rows.extend(Row::of(&what, "cpu", Some(4), "times", ours_over(&together(published))));
    }
    let named = labs.into_iter().map(|lab| LabFigures { lab: format!("{}, BLOOM 24 × 512", lab.lab), ..lab });
    report.labs.extend(named);
    Ok(())
}

async fn measure_lab(
    bench: &Workbench,
    name: &str,
    file: &Path,
    asked: Asked,
    extent: &Extent,
    left_out: &mut Vec<String>,
) -> Result<LabFigures> {
    progress(&format!("{name}: starting"));
    let running = bench.start(file).await?;
    let mut wanted: Vec<Wanted> =
        STRATEGIES.into_iter().map(|strategy| Wanted::new(&strategy.to_lowercase(), strategy)).collect();
    for strategy in PUBLISHED.into_iter().chain([OURS]).filter(|_| asked.together) {
        wanted.push(Wanted {
            objective: "Throughput",
            max_sessions: u32::try_from(SESSIONS)?,
            ..Wanted::new(&together(strategy), strategy)
        });
    }
    let mut deployed = Vec::new();
    for one in wanted {
        match one.deploy(&running.shelf, &running.lab).await {
            Ok(()) => {
                // What is measured of a phone here counts for the plans after it.
                ask(&running.gateway, &one.name, PROMPT_TOKENS, SETTLING_TOKENS).await?;
                deployed.push(one);
            }
            Err(error) => {
                left_out.push(format!("{name}, {}: {error:#}", one.name));
                one.delete(&running.shelf)?;
            }
        }
    }
    let Taken { samples, predicted_over_measured } = take_turns(&running, &deployed, asked.pairs, extent, name).await?;
    let mut figures = LabFigures { lab: name.to_owned(), ..LabFigures::default() };
    for one in &deployed {
        figures.plans.insert(one.name.clone(), one.plan(&running.shelf)?);
    }
    figures.tokens_per_second =
        samples.iter().filter_map(|(name, samples)| Some((name.clone(), summary(samples)?))).collect();
    for (name, theirs) in &samples {
        let ours = if name.ends_with(TOGETHER_SUFFIX) { together(OURS) } else { OURS.to_lowercase() };
        if let Some(ours) = samples.get(&ours).filter(|_| *name != ours) {
            figures.ratios.insert(name.clone(), ratios(ours, theirs));
        }
    }
    figures.predicted_over_measured = predicted_over_measured;
    for (what, plan) in &figures.plans {
        let speed = figures.tokens_per_second.get(what).map_or(0.0, |speed| speed.median);
        progress(&format!("{name}: {what} {speed:.2} tokens/s: {plan}"));
    }
    Ok(figures)
}

const TOGETHER_SUFFIX: &str = "-together";

fn together(strategy: &str) -> String {
    strategy.to_lowercase() + TOGETHER_SUFFIX
}

/// Asks each deployment in turn, forth and back.
async fn take_turns(
    running: &Running,
    deployed: &[Wanted],
    pairs: usize,
    extent: &Extent,
    name: &str,
) -> Result<Taken> {
    let mut taken = Taken::default();
    for round in 0..pairs {
        progress(&format!("{name}: round {} of {pairs}", round + 1));
        let mut order: Vec<&Wanted> = deployed.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for one in order {
            let predicted = one.predicted_seconds_per_token(&running.shelf).ok();
            let speed = if one.max_sessions > 1 {
                ask_together(&running.gateway, &one.name, SESSIONS, extent.tokens).await?
            } else {
                1.0 / ask(&running.gateway, &one.name, PROMPT_TOKENS, extent.tokens + 1).await?.seconds_per_token()
            };
            taken.samples.entry(one.name.clone()).or_default().push(speed);
            if let Some(predicted) = predicted.filter(|_| one.name == OURS.to_lowercase()) {
                taken.predicted_over_measured.push(predicted * speed);
            }
        }
    }
    Ok(taken)
}

/// What the labs say together: a row's samples are one median a lab, but for the worst lab's, which are its own pairs.
fn rows(labs: &[LabFigures]) -> Vec<Row> {
    let medians = |against: &str, only: &dyn Fn(&str) -> bool| -> Vec<f64> {
        labs.iter().filter(|lab| only(&lab.lab)).filter_map(|lab| lab.ratio(against)).collect()
    };
    let any = |_: &str| true;
    let slow = |lab: &str| SLOW_LINKS.contains(&lab);
    let (equal, memory, minmax) = ("equalsplit", "memoryproportional", "minmax");
    let [published, best_first] = PUBLISHED.map(together);
    let row = |what: &str, samples: Vec<f64>, goal| {
        Row::of(what, "cpu", Some(4), "times", samples).map(|row| row.with_goal(goal, None))
    };
    let worst_lab = |what: &str, against: &str| {
        let (lab, ratios) = worst(labs, against)?;
        row(&format!("{what}, worst lab ({lab})"), ratios.to_vec(), Goal::AtLeast(0.97))
    };
    let n_layers = labs.iter().flat_map(|lab| lab.plans.values()).map(Plan::n_layers).max().unwrap_or(0);
    let alone: Vec<f64> = BEST_ALONE
        .iter()
        .filter_map(|(lab, phone)| {
            let plan = labs.iter().find(|figures| figures.lab == *lab)?.plans.get(&OURS.to_lowercase())?;
            Some(f64::from(u8::from(plan.is_alone_on(phone, n_layers))))
        })
        .collect();
    let least_alone = alone.iter().copied().min_by(f64::total_cmp);
    let errors: Vec<f64> = labs.iter().filter_map(|lab| prediction_error(&lab.predicted_over_measured)).collect();
    let largest = errors.iter().copied().max_by(f64::total_cmp);
    [
        row("decode, ours over equal split, median of labs", medians(equal, &any), Goal::AtLeast(1.6)),
        row("decode, ours over memory-proportional, median of labs", medians(memory, &any), Goal::AtLeast(1.3)),
        worst_lab("decode, ours over memory-proportional", memory),
        row("decode, ours over min-max, median of labs with slow links", medians(minmax, &slow), Goal::AtLeast(1.2)),
        worst_lab("decode, ours over min-max", minmax),
        row(
            "4 sessions, ours over the published programme, median of labs",
            medians(&published, &any),
            Goal::AtLeast(1.15),
        ),
        worst_lab("4 sessions, ours over the published programme", &published),
        Row::of(
            "4 sessions, ours over the published programme on its best first phone, median of labs",
            "cpu",
            Some(4),
            "times",
            medians(&best_first, &any),
        ),
        Row::of(
            "labs where one phone is best alone: the plan is that phone with all layers, 1 in each",
            "cpu",
            Some(4),
            "of 1",
            least_alone.into_iter().collect(),
        )
        .map(|row| row.with_goal(Goal::AtLeast(1.0), None)),
        Row::of("predicted token time off the measured, each lab's median", "cpu", Some(4), "part", errors),
        Row::of(
            "predicted token time off the measured, median of the worst lab",
            "cpu",
            Some(4),
            "part",
            largest.into_iter().collect(),
        )
        .map(|row| row.with_goal(Goal::AtMost(0.15), None)),
    ]
    .into_iter()
    .flatten()
    .collect()
}
