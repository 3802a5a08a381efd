//! `make bench-peers`: decoding beside llama.cpp, one thread each, in turns on one machine, as ratios.
//!
//! Ours is what a client sees: a whole agent behind the gateway. llama.cpp's is what its own `llama-bench` says of the same file, without
//! a server. So what is flattered is the peer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use polyphony_e2e::bench::statistics::{ratios, summary};
use polyphony_e2e::shelf::{Shelf, cache_dir};
use polyphony_e2e::stream::Gateway;
use serde_json::{Value, json};

/// What both decode: the row's name, and the file in the cache's models.
const MODELS: [(&str, &str); 5] = [
    ("SmolLM2-135M Q4_0", "SmolLM2-135M-Instruct.requantised-Q4_0.gguf"),
    ("SmolLM2-135M Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("SmolLM2-135M Q4_K_M", "SmolLM2-135M-Instruct.requantised-Q4_K_M.gguf"),
    ("SmolLM2-135M Q8_0", "SmolLM2-135M-Instruct.requantised-Q8_0.gguf"),
    ("Gemma 3 270M Q4_K_M", "gemma-3-270m-q4_k_m.gguf"),
];
const DEPLOYMENT: &str = "one";
/// Tokens before those that are timed.
const N_PROMPT: u32 = 16;
const N_DECODED: u32 = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this measures speed; `make bench-peers` runs it");
        return Ok(());
    }
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let rounds = if quick { 2 } else { 6 };
    println!("decode, one thread each, tokens/s: median (least to greatest) of {rounds} turns\n");
    println!("{:22} {:>24} {:>24} {:>24}", "model", "ours, cpu-int8", "llama.cpp", "ours over it");
    for (name, file) in MODELS {
        let path = cache_dir().join("models").join(file);
        if !path.exists() {
            println!("{name:22} left out: {} is not there", path.display());
            continue;
        }
        let (ours, theirs) = side_by_side(&path, rounds).await.with_context(|| name.to_owned())?;
        let ratio = ratios(&ours, &theirs);
        println!("{name:22} {:>24} {:>24} {:>24}", told(&ours), told(&theirs), told(&ratio));
    }
    Ok(())
}

/// Tokens a second of each, turn by turn; who begins changes from turn to turn.
async fn side_by_side(model: &Path, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let shelf = Shelf::up_with_threads("cpu-int8", 1, 1, "4Gi")?;
    shelf.apply(&manifest(model))?.ok()?;
    shelf.wait_available(DEPLOYMENT)?;
    let gateway = shelf.endpoints()?.gateway;
    // Once without a clock: both have read the file then.
    decode(&gateway).await?;
    llama_bench(model)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ours.push(decode(&gateway).await?);
            theirs.push(llama_bench(model)?);
        } else {
            theirs.push(llama_bench(model)?);
            ours.push(decode(&gateway).await?);
        }
    }
    Ok((ours, theirs))
}

fn manifest(model: &Path) -> String {
    let path = model.display();
    format!(
        "apiVersion: polyphony.dev/v1alpha1\nkind: Model\nmetadata: {{name: model}}\nspec: {{source: \"file://{path}\"}}\n---\n\
         apiVersion: polyphony.dev/v1alpha1\nkind: InferenceDeployment\nmetadata: {{name: {DEPLOYMENT}}}\nspec:\n  \
         model: model\n  contextLength: 256\n  maxSessions: 1\n  placement: {{minPhones: 1, maxPhones: 1}}\n"
    )
}

/// Tokens a second after the first of an answer.
async fn decode(gateway: &str) -> Result<f64> {
    // Anew each time: while llama.cpp has its turn, a connection may be idle for longer than the gateway keeps it.
    let gateway = Gateway::new(gateway)?;
    let prompt: Vec<u32> = (0..N_PROMPT).map(|idx| 100 + 37 * idx).collect();
    let body = json!({
        "model": DEPLOYMENT, "prompt": prompt, "max_tokens": N_DECODED + 1, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let mut pieces = gateway.stream("/v1/completions", &body).await?;
    let (mut first, mut last, mut n_tokens) = (None, None, 0);
    while let Some(piece) = pieces.next().await? {
        if let Some(error) = piece.get("error") {
            bail!("the answer broke off: {error}");
        }
        let n = piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
        if n > 0 {
            n_tokens += n;
            last = Some(Instant::now());
            first = first.or(last);
        }
    }
    let (first, last) = first.zip(last).context("no token came")?;
    if n_tokens != N_DECODED as usize + 1 {
        bail!("{n_tokens} tokens came, {} were wanted", N_DECODED + 1);
    }
    Ok(f64::from(N_DECODED) / (last - first).as_secs_f64())
}

/// What `llama-bench` says of as many tokens after as long a prompt.
fn llama_bench(model: &Path) -> Result<f64> {
    let program = llama_bench_program()?;
    let output = Command::new(&program)
        .args(["--model", &model.display().to_string(), "--threads", "1", "--n-prompt", "0", "--repetitions", "1"])
        .args(["--n-gen", &N_DECODED.to_string(), "--n-depth", &N_PROMPT.to_string(), "--output", "json"])
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("llama-bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let rows: Value = serde_json::from_slice(&output.stdout).context("llama-bench printed no JSON")?;
    rows[0]["avg_ts"].as_f64().with_context(|| format!("llama-bench told no speed: {rows}"))
}

fn llama_bench_program() -> Result<PathBuf> {
    let program = cache_dir().join("peers/build/bin/llama-bench");
    if !program.exists() {
        bail!("{} is not there; `scripts/peers.sh` builds it", program.display());
    }
    Ok(program)
}

fn told(samples: &[f64]) -> String {
    let [least, greatest] = [f64::min, f64::max].map(|pick| samples.iter().copied().reduce(pick).unwrap_or(f64::NAN));
    summary(samples).map_or_else(|| "none".to_owned(), |it| format!("{:.3} ({least:.3}–{greatest:.3})", it.median))
}
