//! Energy: joules a token out of this machine's battery, while it discharges and says by how much.
//!
//! The agents' own figures are of a phone that computes alone: here several share one battery, and one's rest is another's work. So the bench reads it
//! itself, with one ring at work and all others at rest.

use std::time::{Duration, Instant};

use anyhow::Result;
use polyphony_agent::platform::battery;
use polyphony_e2e::bench::energy::joules_a_token;

use crate::figures::Figures;
use crate::progress;
use crate::rings::Ring;

/// Gauges tell a mean of some seconds.
const SETTLING: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(9);
const WORK: Duration = Duration::from_secs(12);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What the deployments' context holds after a short prompt.
const ANSWER: u32 = 200;

/// One row for each ring of one agent; says in `figures` why there is none.
///
/// # Errors
/// When a ring does not answer.
pub async fn measure(quick: bool, rings: &[Ring], figures: &mut Figures) -> Result<()> {
    if battery().discharge_watts.is_none() {
        figures.leave_out("joules a token: this machine has no battery that discharges and says by how much");
        return Ok(());
    }
    // A quick run shows that it works, with one of them.
    let n_rings = if quick { 1 } else { usize::MAX };
    for ring in rings.iter().filter(|ring| ring.agents == 1).take(n_rings) {
        progress(&format!("energy of {}", ring.backend));
        // Compiles what there is to compile.
        ring.answer(2).await?;
        let resting = async {
            tokio::time::sleep(REST).await;
            Ok(())
        };
        let (rest, ()) = watts_while(resting).await?;
        let began = Instant::now();
        let working = async {
            let mut n_tokens = 0;
            while began.elapsed() < WORK {
                n_tokens += ring.answer(ANSWER).await?;
            }
            Ok(n_tokens)
        };
        let (work, n_tokens) = watts_while(working).await?;
        let seconds_a_token = began.elapsed().as_secs_f64() / f64::from(n_tokens);
        figures.note_energy(ring, joules_a_token(&rest, &work, seconds_a_token));
    }
    Ok(())
}

/// What the battery gives each second while this goes on, once its gauge has followed.
async fn watts_while<T>(what: impl Future<Output = Result<T>>) -> Result<(Vec<f64>, T)> {
    let (began, mut watts) = (Instant::now(), Vec::new());
    let watch = async {
        loop {
            tokio::time::sleep(SAMPLE_EVERY).await;
            if began.elapsed() >= SETTLING {
                watts.extend(battery().discharge_watts);
            }
        }
    };
    let done = tokio::select! {
        done = what => done?,
        never = watch => never,
    };
    Ok((watts, done))
}
