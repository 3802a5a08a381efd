//! Even phones: what transmission costs and what it hides, on three phones alike that are 3 ms apart.

use std::time::Duration;

use anyhow::{Context, Result};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::lab_report::LabReport;
use polyphony_e2e::bench::plan::Plan;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::statistics::ratios;
use polyphony_farm::lab::Lab;

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
    let ring = ring()?;
    // Ours is a plan for decoding: it counts the output matrix as layers of the last phone, which a prompt's chunks do not see.
    let long = Wanted { phones: Some(3), context_length: n_prompt + 64, ..Wanted::new("long", "Optimal") };
    let long_equal = Wanted { phones: Some(3), context_length: n_prompt + 64, ..Wanted::new("equal", "EqualSplit") };
    for one in [&alone, &ring, &long, &long_equal] {
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

/// All three phones, for several sessions.
fn ring() -> Result<Wanted> {
    Ok(Wanted {
        phones: Some(3),
        objective: "Throughput",
        max_sessions: u32::try_from(SESSIONS)?,
        ..Wanted::new("ring", "Optimal")
    })
}

/// What was measured, one entry a round.
#[derive(Default)]
struct Taken {
    ring_seconds: Vec<f64>,
    /// Of the same answer: what the stages' own steps took for a token, and what the lab's links held it back, around the ring.
    accounted_seconds: Vec<f64>,
    together: Vec<f64>,
    first_alone: Vec<f64>,
    /// Over our plan, which is made for decoding.
    first_ours: Vec<f64>,
    first_equal: Vec<f64>,
}

// === impl Taken ===

impl Taken {
    async fn round(&mut self, running: &Running, extent: &Extent, n_prompt: u32, is_back: bool) -> Result<()> {
        let mut turns: [u8; 5] = [0, 1, 2, 3, 4];
        if is_back {
            turns.reverse();
        }
        let gateway = &running.gateway;
        for turn in turns {
            match turn {
                0 => self.account(running, extent).await?,
                1 => self.together.push(ask_together(gateway, "ring", SESSIONS, extent.tokens * 2).await?),
                2 => self.first_alone.push(ask(gateway, "alone", n_prompt, 1).await?.first_token_seconds()),
                3 => self.first_ours.push(ask(gateway, "long", n_prompt, 1).await?.first_token_seconds()),
                _ => self.first_equal.push(ask(gateway, "equal", n_prompt, 1).await?.first_token_seconds()),
            }
        }
        Ok(())
    }

    /// Asks the ring, and accounts for each token's time by what stages and links took of it.
    async fn account(&mut self, running: &Running, extent: &Extent) -> Result<()> {
        let ring = ring()?;
        let before = ring.steps(&running.shelf)?;
        let answered = ask(&running.gateway, &ring.name, PROMPT_TOKENS, extent.tokens * 2 + 1).await?;
        let after = ring.steps(&running.shelf)?;
        let steps = after.iter().zip(before).map(|(after, before)| after.seconds_each_since(before));
        let steps: f64 = steps.sum::<Option<f64>>().context("a stage of the ring has run no step of the answer")?;
        self.ring_seconds.push(answered.seconds_per_token());
        self.accounted_seconds.push(steps + delays_around(&running.lab, &ring.plan(&running.shelf)?).as_secs_f64());
        Ok(())
    }

    fn rows(&self, n_prompt: u32) -> Vec<Row> {
        let one: Vec<f64> = self.ring_seconds.iter().map(|seconds| 1.0 / seconds).collect();
        let row = |what: &str, unit, samples: Vec<f64>| Row::of(what, "cpu", Some(3), unit, samples);
        let first = format!("first token of {n_prompt}");
        [
            row("6 sessions over 3 stages, over one session there", "times", ratios(&self.together, &one))
                .map(|row| row.with_goal(Goal::AtLeast(2.7), None)),
            row(
                "token time over the stages' own steps and the lab's delays, 3 ms links",
                "times",
                ratios(&self.ring_seconds, &self.accounted_seconds),
            )
            .map(|row| row.with_goal(Goal::AtMost(1.1), None)),
            // One phone as fast as each of the three does what they do one after the other, and hands nothing on.
            row(
                &format!("{first}, our plan over one phone alone"),
                "times",
                ratios(&self.first_ours, &self.first_alone),
            )
            .map(|row| row.with_goal(Goal::AtMost(0.5), None)),
            row(
                &format!("{first}, equal split over one phone alone"),
                "times",
                ratios(&self.first_equal, &self.first_alone),
            ),
            row(&format!("{first}, our plan over equal split"), "times", ratios(&self.first_ours, &self.first_equal)),
            row("one session over 3 stages", "tokens/s", one),
            row("6 sessions over 3 stages, together", "tokens/s", self.together.clone()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What the links of a lab hold a token back on its way around: over every stage, and from the last to the first.
fn delays_around(lab: &Lab, Plan(stages): &Plan) -> Duration {
    let next = stages.iter().cycle().skip(1);
    stages.iter().zip(next).map(|(held, next)| lab.delay(&held.phone, &next.phone)).sum()
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
