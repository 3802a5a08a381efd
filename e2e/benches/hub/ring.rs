//! Rings: three real agents whose links to each other are sealed, as always, beside three whose are not. The same layers lie on both, and they are
//! asked in turns; several times anew, since where a process's memory happens to lie makes more of a difference than what is measured.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use polyphony_e2e::bench::statistics::{ratios, summary};
use polyphony_e2e::shelf::Shelf;
use polyphony_e2e::stream::Gateway;
use serde_json::json;

/// What is built of an example of the agent's crate.
const PLAIN_AGENT: &str = "examples/plain_ring_agent";
const SEALED_AGENT: &str = "polyphony-agent";
const N_TOKENS: usize = 96;
/// How often both begin anew, and how often each is asked then: rather often anew, since the pairs of one start err all to one side.
const STARTS: usize = 16;
const ROUNDS: usize = 4;
const WARM_UP: usize = 1;

struct Ring {
    gateway: Gateway,
    _shelf: Shelf,
}

/// Measures both, and prints what was found.
pub async fn measure(model: &Path) -> Result<()> {
    let mut seconds = [Vec::new(), Vec::new()];
    for start in 0..STARTS {
        // Who is there first takes turns, too.
        let mut agents = [SEALED_AGENT, PLAIN_AGENT];
        agents.rotate_left(start % 2);
        let mut rings = [Ring::start(agents[0], model)?, Ring::start(agents[1], model)?];
        rings.rotate_left(start % 2);
        for round in 0..ROUNDS + WARM_UP {
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for at in order {
                let took = rings[at].seconds_a_token().await?;
                if round >= WARM_UP {
                    seconds[at].push(took);
                }
            }
        }
    }
    let of = |samples: &[f64]| summary(samples).context("nothing was measured");
    let (sealed, plain) = (of(&seconds[0])?.median * 1e3, of(&seconds[1])?.median * 1e3);
    let ratio = of(&ratios(&seconds[0], &seconds[1]))?;
    println!(
        "a token of three phones: {sealed:.2} ms sealed, {plain:.2} ms in the clear: {:.3} × ({:.3} to {:.3}, {} pairs of {STARTS} starts; goal: 1.03 at most)",
        ratio.median,
        ratio.low,
        ratio.high,
        STARTS * ROUNDS
    );
    Ok(())
}

// === impl Ring ===

impl Ring {
    fn start(agent: &str, model: &Path) -> Result<Self> {
        let shelf = Shelf::up_with_agent(agent, "cpu-int8", 3, "2Gi")?;
        let manifest = format!(
            "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: smollm2}}\nspec: {{source: \"file://{}\"}}\n---\n\
             apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: chat}}\nspec:\n  model: smollm2\n  contextLength: 256\n  \
             maxSessions: 1\n  numerics: {{arithmetic: Int8}}\n  loadBalancing: {{enabled: false}}\n  \
             placement: {{minPhones: 3, maxPhones: 3, strategy: EqualSplit}}\n",
            model.display()
        );
        shelf.apply(&manifest)?.ok()?;
        shelf.wait_available("chat")?;
        let gateway = Gateway::new(&shelf.endpoints()?.gateway)?;
        Ok(Self { gateway, _shelf: shelf })
    }

    /// Between the first token of an answer and its last.
    async fn seconds_a_token(&self) -> Result<f64> {
        let question = json!({
            "model": "chat", "prompt": [5, 6, 7, 8], "max_tokens": N_TOKENS, "temperature": 0, "ignore_eos": true, "stream": true, "return_token_ids": true,
        });
        let mut pieces = self.gateway.stream("/v1/completions", &question).await?;
        let (mut n_tokens, mut first, mut last) = (0, None, None);
        while let Some(piece) = pieces.next().await? {
            ensure!(piece.get("error").is_none(), "{piece}");
            let n_new = piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
            if n_new > 0 {
                let now = Instant::now();
                // What comes with the first is not timed.
                if first.is_none() {
                    first = Some(now);
                } else {
                    n_tokens += n_new;
                }
                last = Some(now);
            }
        }
        let took = first.zip(last).map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64());
        ensure!(n_tokens > N_TOKENS / 2, "an answer of {n_tokens} tokens");
        Ok(took / n_tokens as f64)
    }
}
