//! Rounds: what the controller's reconcile loop takes when nothing has changed, as its own example measures it.

use std::process::Command;

use anyhow::{Context, Result};
use polyphony_e2e::bench::goal::Goal;
use polyphony_e2e::bench::report::Row;
use polyphony_e2e::bench::round_line::read;
use polyphony_e2e::shelf::{program, run};

use crate::figures::Figures;
use crate::progress;

const WHAT: &str = "round of the controller at rest, 200 phones, 40 deployments";
/// Milliseconds.
const GOAL: f64 = 25.0;

/// Runs the example once, whose rounds are the samples.
pub fn measure(figures: &mut Figures) {
    progress("rounds of the controller at rest");
    match once() {
        Ok(samples) => {
            let row = Row::of(WHAT, "", None, "ms", samples);
            figures.controller.extend(row.map(|row| row.with_goal(Goal::AtMost(GOAL), None)));
        }
        Err(error) => {
            // In full to whoever looks on; the report must not hold a path of this machine.
            progress(&format!("rounds of the controller: {error:#}"));
            figures.leave_out("rounds of the controller: `round_at_rest --json` gave nothing");
        }
    }
}

fn once() -> Result<Vec<f64>> {
    let mut command = Command::new(program("examples/round_at_rest")?);
    command.arg("--json");
    let said = run(command)?.ok().context("round_at_rest")?;
    Ok(read(&said.stdout)?.into_iter().map(|line| line.round_ms).collect())
}
