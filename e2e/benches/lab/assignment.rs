//! Assignment: the plan of ours beside those of others, on every committed lab.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::{LabFigures, LabReport, least};
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::{ratios, summary};

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
/// Where links decide.
const SLOW_LINKS: [&str; 4] = ["two-rooms", "hotspot", "crowded", "alone-behind-hotspots"];
const SESSIONS: usize = 4;
/// So many that what a phone reports is the median of steps, and not of its first ones.
const SETTLING_TOKENS: u32 = 16;

const OURS: &str = "Optimal";
/// In the order in which they are applied. Ours is the last: by then every phone has been measured.
const STRATEGIES: [&str; 5] = ["EqualSplit", "MemoryProportional", "MinMax", "LinguaLinked", OURS];

/// What was measured of one lab.
#[derive(Default)]
struct Taken {
    /// Tokens a second of what was asked in turn, by deployment.
    samples: BTreeMap<String, Vec<f64>>,
    /// Of our plan: the token time that was predicted just before an answer, beside that of the answer.
    predicted_over_measured: Vec<f64>,
}

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    let n_labs = if extent.quick && extent.labs.is_none() { QUICK_LABS } else { LABS.len() };
    for name in LABS[..n_labs].iter().filter(|name| extent.has_lab(name)) {
        if extent.is_over() {
            report.left_out.push(format!("{name}: the time was over"));
            continue;
        }
        match measure_lab(bench, name, extent, &mut report.left_out).await {
            Ok(figures) => report.labs.push(figures),
            Err(error) => {
                progress(&format!("{name} failed: {error:#}"));
                report.left_out.push(format!("{name}: {error:#}"));
            }
        }
    }
    let rows = rows(&report.labs);
    report.rows.extend(rows);
    Ok(())
}

/// Labs that a model of the published family is measured on, once.
const BLOOM_LABS: [&str; 2] = ["four-kinds", "two-rooms"];

/// The same with a BLOOM of random weights, which takes the time of a real one.
pub async fn measure_bloom(model: &Path, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("fetching BLOOM's weights once");
    let bench = Workbench::new(model).await?;
    let mut labs = Vec::new();
    for name in BLOOM_LABS {
        match measure_lab(&bench, name, extent, &mut report.left_out).await {
            Ok(figures) => labs.push(figures),
            Err(error) => report.left_out.push(format!("BLOOM on {name}: {error:#}")),
        }
    }
    let ours_over =
        |theirs: &str| -> Vec<f64> { labs.iter().filter_map(|lab| Some(lab.ratios.get(theirs)?.median)).collect() };
    for theirs in STRATEGIES.into_iter().filter(|theirs| *theirs != OURS) {
        let what = format!("BLOOM 24 × 512, decode, ours over {theirs}");
        report.rows.extend(Row::of(&what, "cpu", Some(4), "times", ours_over(&theirs.to_lowercase())));
    }
    report.rows.extend(Row::of(
        "BLOOM 24 × 512, 4 sessions, ours over the published program",
        "cpu",
        Some(4),
        "times",
        ours_over(&together("LinguaLinked")),
    ));
    let named = labs.into_iter().map(|lab| LabFigures { lab: format!("{}, BLOOM 24 × 512", lab.lab), ..lab });
    report.labs.extend(named);
    Ok(())
}

async fn measure_lab(bench: &Workbench, name: &str, extent: &Extent, left_out: &mut Vec<String>) -> Result<LabFigures> {
    progress(&format!("{name}: starting"));
    let running = bench.start(&lab_file(name)).await?;
    let mut wanted: Vec<Wanted> =
        STRATEGIES.into_iter().map(|strategy| Wanted::new(&strategy.to_lowercase(), strategy)).collect();
    for strategy in ["LinguaLinked", OURS] {
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
    let Taken { samples, predicted_over_measured } = take_turns(&running, &deployed, extent, name).await?;
    let mut figures = LabFigures { lab: name.to_owned(), ..LabFigures::default() };
    for one in &deployed {
        figures.plans.insert(one.name.clone(), one.plan(&running.shelf)?);
    }
    figures.tokens_per_second =
        samples.iter().filter_map(|(name, samples)| Some((name.clone(), summary(samples)?))).collect();
    for (name, theirs) in &samples {
        let ours = if name.ends_with(TOGETHER_SUFFIX) { together(OURS) } else { OURS.to_lowercase() };
        if let Some(ours) = samples.get(&ours).filter(|_| *name != ours)
            && let Some(ratio) = summary(&ratios(ours, theirs))
        {
            figures.ratios.insert(name.clone(), ratio);
        }
    }
    figures.predicted_over_measured = summary(&predicted_over_measured).map(|ratio| ratio.median);
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
async fn take_turns(running: &Running, deployed: &[Wanted], extent: &Extent, name: &str) -> Result<Taken> {
    let mut taken = Taken::default();
    for round in 0..extent.pairs {
        progress(&format!("{name}: round {} of {}", round + 1, extent.pairs));
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

/// What the labs say together: a row's samples are one median a lab.
fn rows(labs: &[LabFigures]) -> Vec<Row> {
    let medians = |against: &str, only: &dyn Fn(&str) -> bool| -> Vec<f64> {
        let of_lab = |lab: &LabFigures| lab.ratios.get(against).map(|ratio| ratio.median);
        labs.iter().filter(|lab| only(&lab.lab)).filter_map(of_lab).collect()
    };
    let any = |_: &str| true;
    let slow = |lab: &str| SLOW_LINKS.contains(&lab);
    let (equal, memory, minmax) = ("equalsplit", "memoryproportional", "minmax");
    let lingua = together("LinguaLinked");
    let row = |what: &str, samples: Vec<f64>, goal| {
        Row::of(what, "cpu", Some(4), "times", samples).map(|row| row.with_goal(goal, None))
    };
    let worst = |what: &str, samples: Vec<f64>| row(what, least(&samples).into_iter().collect(), Goal::AtLeast(0.97));
    let alone: Vec<f64> = BEST_ALONE
        .iter()
        .filter_map(|(lab, phone)| {
            let plan = labs.iter().find(|figures| figures.lab == *lab)?.plans.get(&OURS.to_lowercase())?;
            Some(f64::from(u8::from(plan.starts_with(&format!("{phone} 0-")) && !plan.contains(','))))
        })
        .collect();
    let errors: Vec<f64> = labs.iter().filter_map(|lab| Some((lab.predicted_over_measured? - 1.0).abs())).collect();
    let largest = errors.iter().copied().max_by(f64::total_cmp);
    [
        row("decode, ours over equal split, median of labs", medians(equal, &any), Goal::AtLeast(1.6)),
        row("decode, ours over memory-proportional, median of labs", medians(memory, &any), Goal::AtLeast(1.3)),
        worst("decode, ours over memory-proportional, worst lab", medians(memory, &any)),
        row("decode, ours over min-max, labs with slow links", medians(minmax, &slow), Goal::AtLeast(1.2)),
        worst("decode, ours over min-max, worst lab", medians(minmax, &any)),
        row("4 sessions, ours over the published program, median", medians(&lingua, &any), Goal::AtLeast(1.15)),
        worst("4 sessions, ours over the published program, worst lab", medians(&lingua, &any)),
        Row::of(
            "one phone is best alone: the plan is that phone",
            "cpu",
            Some(4),
            "of 1",
            least(&alone).into_iter().collect(),
        )
        .map(|row| row.with_goal(Goal::AtLeast(1.0), None)),
        Row::of("predicted token time off the measured, median lab", "cpu", Some(4), "part", errors),
        Row::of(
            "predicted token time off the measured, worst lab",
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
