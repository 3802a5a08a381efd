//! The balancer: one phone drops to a third of its speed in the middle of answers, with the balancer and without.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;
use polyphony_e2e::stream::Gateway;
use tokio::task::JoinHandle;

use crate::deployments::Wanted;
use crate::question::{PROMPT_TOKENS, ask, stream};
use crate::workbench::{Running, Workbench, lab_file};
use crate::{Extent, progress};

/// The phone that drops, its share, and a third of it.
const PHONE: (&str, &str, &str) = ("phone-2", "0.5", "0.167");
/// So many that every stage has work: the slowest then decides.
const SESSIONS: usize = 4;
/// Tokens of each session before the phone drops.
const WARM_TOKENS: usize = 8;
/// Tokens of a session in all.
const MOST_TOKENS: u32 = 480;
/// So many that what a phone's segments report is of after the drop.
const REMEASURED_TOKENS: u32 = 48;
/// How long the sessions may take to get going.
const PATIENCE: Duration = Duration::from_secs(60);

/// What of one session has come, and when.
type Arrivals = Arc<Mutex<Vec<(Instant, u64)>>>;

/// Answers in whose middle the phone dropped.
struct Dropped {
    tokens_per_second: f64,
    longest_pause_seconds: f64,
    sessions: Vec<Vec<u64>>,
}

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("one phone drops: starting");
    let running = bench.start(&lab_file("rows/one-drops")).await?;
    let (mut on, mut off, mut pauses, mut changed) = (Vec::new(), Vec::new(), Vec::new(), 0_usize);
    let still = undisturbed(&running).await?;
    for round in 0..extent.pairs {
        if extent.is_over() {
            report.left_out.push(format!("the balancer after round {round}: the time was over"));
            break;
        }
        for is_balanced in [round % 2 == 0, round % 2 == 1] {
            let dropped = drop_once(&running, extent, is_balanced).await?;
            progress(&format!(
                "one phone drops: round {} of {}, balancer {is_balanced}: {:.2} tokens/s",
                round + 1,
                extent.pairs,
                dropped.tokens_per_second
            ));
            for session in &dropped.sessions {
                changed += session.iter().zip(&still).filter(|(found, expected)| found != expected).count();
            }
            if is_balanced {
                pauses.push(dropped.longest_pause_seconds);
                on.push(dropped.tokens_per_second);
            } else {
                off.push(dropped.tokens_per_second);
            }
        }
    }
    let window = extent.window.as_secs();
    let row = |what: &str, unit, samples: Vec<f64>| Row::of(what, "cpu", Some(3), unit, samples);
    let gain = format!("{window} s after one phone drops to a third, balancer on over off");
    report.rows.extend(
        [
            row(&gain, "times", ratios(&on, &off)).map(|row| row.with_goal(Goal::AtLeast(1.5), None)),
            row("longest pause of a stream, balancer on", "s", pauses)
                .map(|row| row.with_goal(Goal::AtMost(1.0), None)),
            row("tokens changed of all that were streamed", "tokens", vec![changed as f64])
                .map(|row| row.with_goal(Goal::AtMost(0.0), None)),
        ]
        .into_iter()
        .flatten(),
    );
    report.left_out.push(
        "the published balancer (between requests, one overlapped layer): its step is in controller/placement, and nothing \
         carries it out on a ring yet"
            .to_owned(),
    );
    Ok(())
}

fn wanted(is_balanced: bool) -> Wanted {
    Wanted {
        is_balanced,
        objective: "Throughput",
        max_sessions: SESSIONS as u32,
        phones: Some(3),
        context_length: MOST_TOKENS + 32,
        ..Wanted::new("drops", "Optimal")
    }
}

/// What the sessions are to say, whatever happens to them.
async fn undisturbed(running: &Running) -> Result<Vec<u64>> {
    let one = wanted(false);
    one.deploy(&running.shelf, &running.lab).await?;
    progress(&format!("one phone drops: {}", one.plan(&running.shelf)?));
    let answered = ask(&running.gateway, &one.name, PROMPT_TOKENS, MOST_TOKENS / 2).await?;
    one.delete(&running.shelf)?;
    Ok(answered.tokens)
}

/// A fresh deployment, answers, and the phone slower from their middle on; then all is as it was.
async fn drop_once(running: &Running, extent: &Extent, is_balanced: bool) -> Result<Dropped> {
    let (phone, full, third) = PHONE;
    running.shelf.set(phone, &["--cpu", full])?;
    let one = wanted(is_balanced);
    one.deploy(&running.shelf, &running.lab).await?;
    let slow = || running.shelf.set(phone, &["--cpu", third]);
    let dropped = answers(&running.gateway, &one.name, extent.window, slow).await;
    if is_balanced {
        progress(&format!("one phone drops: balanced to {}", one.plan(&running.shelf)?));
    }
    running.shelf.set(phone, &["--cpu", full])?;
    // The phone is measured at its full speed again, or the next plan would go by what it was when it was slow.
    ask(&running.gateway, &one.name, PROMPT_TOKENS, REMEASURED_TOKENS).await?;
    one.delete(&running.shelf)?;
    dropped
}

async fn answers(
    gateway: &Gateway,
    deployment: &str,
    window: Duration,
    slow: impl Fn() -> Result<()>,
) -> Result<Dropped> {
    let mut sessions: Vec<(Arrivals, JoinHandle<Result<()>>)> = Vec::new();
    for _ in 0..SESSIONS {
        let arrivals = Arrivals::default();
        let (gateway, deployment, into) = (gateway.clone(), deployment.to_owned(), Arc::clone(&arrivals));
        let answer = tokio::spawn(async move {
            let note = |token| into.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), token));
            stream(&gateway, &deployment, PROMPT_TOKENS, MOST_TOKENS, note).await
        });
        sessions.push((arrivals, answer));
    }
    let began = Instant::now();
    while sessions.iter().any(|(arrivals, _)| taken(arrivals).len() < WARM_TOKENS) {
        if let Some((_, ended)) = sessions.iter_mut().find(|(_, answer)| answer.is_finished()) {
            ended.await??;
        }
        if began.elapsed() > PATIENCE {
            bail!("{deployment} does not get going");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow()?;
    let dropped_at = Instant::now();
    tokio::time::sleep(window).await;
    let mut dropped = Dropped { tokens_per_second: 0.0, longest_pause_seconds: 0.0, sessions: Vec::new() };
    let mut n_after = 0;
    for (arrivals, answer) in sessions {
        // One that has ended before the window did has broken off, or was too short to say anything.
        if answer.is_finished() {
            answer.await?.with_context(|| deployment.to_owned())?;
            bail!("{deployment} was through before the window was: give it more tokens");
        }
        answer.abort();
        let arrivals = taken(&arrivals);
        let after: Vec<Instant> = arrivals.iter().map(|(at, _)| *at).filter(|at| *at >= dropped_at).collect();
        n_after += after.len();
        let pauses = after.windows(2).map(|two| (two[1] - two[0]).as_secs_f64());
        dropped.longest_pause_seconds = pauses.fold(dropped.longest_pause_seconds, f64::max);
        dropped.sessions.push(arrivals.into_iter().map(|(_, token)| token).collect());
    }
    dropped.tokens_per_second = n_after as f64 / window.as_secs_f64();
    Ok(dropped)
}

fn taken(arrivals: &Arrivals) -> Vec<(Instant, u64)> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
