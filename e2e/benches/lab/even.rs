//! Even phones: what transmission costs and what it hides, on three phones alike that are 3 ms apart.

use anyhow::{Context, Result};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;
use serde_json::Value;

use crate::deployments::Wanted;
use crate::question::{PROMPT_TOKENS, ask, ask_together};
use crate::workbench::{Running, Workbench, lab_file};
use crate::{Extent, progress};

const SESSIONS: usize = 6;
const LONG_PROMPT: u32 = 512;
const QUICK_PROMPT: u32 = 128;
/// Of SmolLM2-135M.
const HIDDEN_SIZE: f64 = 576.0;
/// Hops of a hidden state in a ring of three: the token from the tail to the head is no such hop.
const HIDDEN_HOPS: f64 = 2.0;

pub async fn measure(bench: &Workbench, extent: &Extent, report: &mut LabReport) -> Result<()> {
    progress("three even phones: starting");
    let running = bench.start(&lab_file("rows/three-even")).await?;
    let n_prompt = if extent.quick { QUICK_PROMPT } else { LONG_PROMPT };
    let alone = Wanted { phones: Some(1), context_length: n_prompt + 64, ..Wanted::new("alone", "Optimal") };
    let ring = Wanted {
        phones: Some(3),
        objective: "Throughput",
        max_sessions: u32::try_from(SESSIONS)?,
        ..Wanted::new("ring", "Optimal")
    };
    // Even stages: a plan for decoding counts the output matrix as layers of the last phone, which a prompt's chunks do not see.
    let long = Wanted { phones: Some(3), context_length: n_prompt + 64, ..Wanted::new("long", "EqualSplit") };
    let long_decoding = Wanted { phones: Some(3), context_length: n_prompt + 64, ..Wanted::new("decoding", "Optimal") };
    for one in [&alone, &ring, &long, &long_decoding] {
        one.deploy(&running.shelf, &running.lab).await?;
        ask(&running.gateway, &one.name, PROMPT_TOKENS, 6).await?;
        progress(&format!("three even phones: {}: {}", one.name, one.plan(&running.shelf)?));
    }
    let mut taken = Taken::default();
    for round in 0..extent.pairs {
        if extent.is_over() {
            report.left_out.push(format!("three even phones after round {round}: the time was over"));
            break;
        }
        progress(&format!("three even phones: round {} of {}", round + 1, extent.pairs));
        taken.round(&running, extent, n_prompt, round % 2 == 1).await?;
    }
    report.rows.extend(taken.rows(n_prompt));
    let bytes = payload_bytes(&running, &ring).await?;
    report.rows.extend(
        Row::of("bytes a token a hop, decode, f16", "cpu", Some(3), "bytes", vec![bytes])
            .map(|row| row.with_goal(Goal::AtMost(HIDDEN_SIZE * 2.0 + 64.0), None)),
    );
    Ok(())
}

/// What was measured, one entry a round.
#[derive(Default)]
struct Taken {
    alone_seconds: Vec<f64>,
    ring_seconds: Vec<f64>,
    /// One-way delays of the ring's three links together, as agents measure them.
    delays: Vec<f64>,
    together: Vec<f64>,
    first_alone: Vec<f64>,
    first_ring: Vec<f64>,
    /// The same over a plan that is made for decoding.
    first_decoding: Vec<f64>,
}

// === impl Taken ===

impl Taken {
    async fn round(&mut self, running: &Running, extent: &Extent, n_prompt: u32, is_back: bool) -> Result<()> {
        let mut turns: [u8; 6] = [0, 1, 2, 3, 4, 5];
        if is_back {
            turns.reverse();
        }
        let gateway = &running.gateway;
        for turn in turns {
            match turn {
                0 => {
                    let answered = ask(gateway, "alone", PROMPT_TOKENS, extent.tokens * 2 + 1).await?;
                    self.alone_seconds.push(answered.seconds_per_token());
                }
                1 => {
                    let answered = ask(gateway, "ring", PROMPT_TOKENS, extent.tokens * 2 + 1).await?;
                    self.ring_seconds.push(answered.seconds_per_token());
                    self.delays.push(one_way_seconds(&running.shelf.list("phones")?)?);
                }
                2 => self.together.push(ask_together(gateway, "ring", SESSIONS, extent.tokens * 2).await?),
                3 => self.first_alone.push(ask(gateway, "alone", n_prompt, 1).await?.first_token_seconds()),
                4 => self.first_ring.push(ask(gateway, "long", n_prompt, 1).await?.first_token_seconds()),
                _ => self.first_decoding.push(ask(gateway, "decoding", n_prompt, 1).await?.first_token_seconds()),
            }
        }
        Ok(())
    }

    fn rows(&self, n_prompt: u32) -> Vec<Row> {
        let one: Vec<f64> = self.ring_seconds.iter().map(|seconds| 1.0 / seconds).collect();
        let expected: Vec<f64> =
            self.alone_seconds.iter().zip(&self.delays).map(|(alone, delays)| alone + delays).collect();
        let row = |what: &str, unit, samples: Vec<f64>| Row::of(what, "cpu", Some(3), unit, samples);
        [
            row("6 sessions over 3 stages, over one session", "times", ratios(&self.together, &one))
                .map(|row| row.with_goal(Goal::AtLeast(2.7), None)),
            row("token time over compute and link delays, 3 ms links", "times", ratios(&self.ring_seconds, &expected))
                .map(|row| row.with_goal(Goal::AtMost(1.1), None)),
            row(
                // One phone as fast as each of the three does what they do one after the other, and hands nothing on: the
                // baseline without its hops.
                &format!("first token of {n_prompt}, chunked over stage by stage"),
                "times",
                ratios(&self.first_ring, &self.first_alone),
            )
            .map(|row| row.with_goal(Goal::AtMost(0.5), None)),
            row("the same, over a plan for decoding", "times", ratios(&self.first_decoding, &self.first_alone)),
            row("one session over 3 stages", "tokens/s", one),
            row("6 sessions over 3 stages", "tokens/s", self.together.clone()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Half of the round trips between the phones, one for each of the three links.
fn one_way_seconds(phones: &[Value]) -> Result<f64> {
    let mut trips: Vec<f64> = Vec::new();
    for phone in phones {
        let links = phone["status"]["links"].as_array();
        trips.extend(links.into_iter().flatten().filter_map(|link| link["roundTripMilliseconds"].as_f64()));
    }
    let n = trips.len();
    (n > 0).then(|| 3.0 * trips.iter().sum::<f64>() / n as f64 / 2.0 / 1000.0).context("no phone has measured a link")
}

/// Bytes of hidden states that agents sent for each further token and hop: what a longer answer took more than a short one.
async fn payload_bytes(running: &Running, ring: &Wanted) -> Result<f64> {
    const SHORT: u32 = 4;
    const LONG: u32 = 36;
    let before = hidden_bytes(running)?;
    ask(&running.gateway, &ring.name, PROMPT_TOKENS, SHORT).await?;
    let between = hidden_bytes(running)?;
    ask(&running.gateway, &ring.name, PROMPT_TOKENS, LONG).await?;
    let after = hidden_bytes(running)?;
    Ok(((after - between) - (between - before)) / f64::from(LONG - SHORT) / HIDDEN_HOPS)
}

/// Bytes of hidden states that all agents have sent so far.
fn hidden_bytes(running: &Running) -> Result<f64> {
    let mut sum = 0.0;
    for phone in &running.lab.phones {
        let text = running.shelf.metrics(&phone.name)?;
        let lines = text.lines().filter(|line| line.starts_with("polyphony_sent_bytes_total{kind=\"hidden\"}"));
        sum += lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}
