//! The balancer: one phone drops to a third of its speed in the middle of an answer, with the balancer and without.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::deployments::Wanted;
use crate::question::{PROMPT_TOKENS, ask};
use crate::workbench::{Running, Workbench, lab_file};
use crate::{Extent, progress};

/// The phone that drops, its share, and a third of it.
const PHONE: (&str, &str, &str) = ("phone-2", "0.5", "0.17");
/// Tokens before the phone drops.
const WARM_TOKENS: usize = 12;

/// One answer in whose middle the phone dropped.
struct Dropped {
    tokens_per_second: f64,
    longest_pause_seconds: f64,
    tokens: Vec<u64>,
}

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("one phone drops: starting");
    let running = bench.start(&lab_file("rows/one-drops")).await?;
    let (mut on, mut off, mut pauses, mut changed) = (Vec::new(), Vec::new(), Vec::new(), 0_usize);
    // What an undisturbed ring says, to compare with.
    let still = undisturbed(&running, extent).await?;
    for round in 0..extent.pairs {
        if extent.is_over() {
            report.left_out.push(format!("the balancer after round {round}: the time was over"));
            break;
        }
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for is_balanced in order {
            progress(&format!("one phone drops: round {} of {}, balancer {is_balanced}", round + 1, extent.pairs));
            let dropped = drop_once(&running, extent, is_balanced).await?;
            changed += dropped.tokens.iter().zip(&still).filter(|(found, expected)| found != expected).count();
            match is_balanced {
                true => {
                    pauses.push(dropped.longest_pause_seconds);
                    on.push(dropped.tokens_per_second);
                }
                false => off.push(dropped.tokens_per_second),
            }
        }
    }
    let window = extent.minute.as_secs();
    let row = |what: &str, unit, samples: Vec<f64>| Row::of(what, "cpu", Some(3), unit, samples);
    report.rows.extend(
        [
            row(
                &format!("{window} s after one phone drops to a third, balancer on over off"),
                "times",
                ratios(&on, &off),
            )
            .map(|row| row.with_goal(Goal::AtLeast(1.5), None)),
            row("longest pause of the stream, balancer on", "s", pauses)
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
        phones: Some(3),
        context_length: 2048,
        ..Wanted::new("drops", "Optimal")
    }
}

async fn undisturbed(running: &Running, extent: &Extent) -> Result<Vec<u64>> {
    let one = wanted(false);
    one.deploy(&running.shelf, &running.lab).await?;
    let n = u32::try_from(extent.minute.as_secs())?.saturating_mul(4);
    let answered = ask(&running.gateway, &one.name, PROMPT_TOKENS, n).await?;
    one.delete(&running.shelf)?;
    Ok(answered.tokens)
}

/// A fresh deployment, an answer, and the phone slower from its middle on; then all is as it was.
async fn drop_once(running: &Running, extent: &Extent, is_balanced: bool) -> Result<Dropped> {
    let (phone, full, third) = PHONE;
    running.shelf.set(phone, &["--cpu", full])?;
    let one = wanted(is_balanced);
    one.deploy(&running.shelf, &running.lab).await?;
    let outcome =
        stream_through(&running.gateway, &one.name, extent.minute, || running.shelf.set(phone, &["--cpu", third]));
    let dropped = outcome.await;
    if is_balanced {
        progress(&format!("one phone drops: balanced to {}", one.plan(&running.shelf)?));
    }
    one.delete(&running.shelf)?;
    running.shelf.set(phone, &["--cpu", full])?;
    dropped
}

async fn stream_through(
    gateway: &Gateway,
    deployment: &str,
    window: Duration,
    slow: impl Fn() -> Result<()>,
) -> Result<Dropped> {
    let body = json!({
        "model": deployment, "prompt": (0..PROMPT_TOKENS).map(|idx| 1_000 + idx * 7_919 % 40_000).collect::<Vec<_>>(),
        "max_tokens": 1_900, "temperature": 0, "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let mut pieces = gateway.stream("/v1/completions", &body).await?;
    let (mut tokens, mut dropped_at, mut last, mut longest) = (Vec::new(), None, Instant::now(), Duration::ZERO);
    let mut n_before = 0;
    while let Some(piece) = pieces.next().await? {
        if let Some(error) = piece.get("error") {
            bail!("{deployment} broke off after {} tokens: {error}", tokens.len());
        }
        let found = piece["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default();
        if found.is_empty() {
            continue;
        }
        tokens.extend(found.iter().filter_map(serde_json::Value::as_u64));
        match dropped_at {
            None if tokens.len() >= WARM_TOKENS => {
                slow()?;
                (dropped_at, n_before) = (Some(Instant::now()), tokens.len());
            }
            Some(_) => longest = longest.max(last.elapsed()),
            None => {}
        }
        last = Instant::now();
        if dropped_at.is_some_and(|at: Instant| at.elapsed() >= window) {
            break;
        }
    }
    let at = dropped_at.with_context(|| format!("{deployment} ended before the phone dropped"))?;
    let tokens_per_second = (tokens.len() - n_before) as f64 / at.elapsed().as_secs_f64();
    Ok(Dropped { tokens_per_second, longest_pause_seconds: longest.as_secs_f64(), tokens })
}
