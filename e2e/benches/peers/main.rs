//! `make bench-peers`: beside llama.cpp, in turns on one machine, as ratios.
//!
//! Ours is what a client sees: a whole agent behind the gateway. llama.cpp's is what its own programs say of the same file, without
//! a server. So what is flattered is the peer.

mod case;
mod llama;
mod ours;
mod product;
mod three_phones;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use polyphony_e2e::bench::statistics::{ratios, summary};
use polyphony_e2e::shelf::cache_dir;

use case::{Case, On, What};
use llama::Llama;
use ours::Ours;

/// The row's name, and the file in the cache's models.
const MODELS: [(&str, &str); 5] = [
    ("SmolLM2-135M Q4_0", "SmolLM2-135M-Instruct.requantised-Q4_0.gguf"),
    ("SmolLM2-135M Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ("SmolLM2-135M Q4_K_M", "SmolLM2-135M-Instruct.requantised-Q4_K_M.gguf"),
    ("SmolLM2-135M Q8_0", "SmolLM2-135M-Instruct.requantised-Q8_0.gguf"),
    ("Gemma 3 270M Q4_K_M", "gemma-3-270m-q4_k_m.gguf"),
];
/// Random weights, hardly a vocabulary: what a token costs is layers, and at the end of a long context attention.
const LONG: (&str, &str) = ("random Llama 8 × 1024 Q8_0", "random-llama-8x1024.Q8_0.gguf");
const THREADS: [usize; 2] = [1, 2];
/// How much of llama.cpp's gain by a second thread ours has to be.
const GAIN_GOAL: f64 = 0.95;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo bench` says so; `cargo test --all-targets` does not.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("skipped: this measures speed; `make bench-peers` runs it");
        return Ok(());
    }
    let quick = std::env::var("BENCH_QUICK").is_ok_and(|value| !value.is_empty() && value != "0");
    let rounds = if quick { 2 } else { 7 };
    println!(
        "tokens/s, median of {rounds} turns; ours (int8) over llama.cpp's: median of the pairs, and what holds it with 95 % (where there are six or more)\n"
    );
    println!("{:58} {:>9} {:>9}   {:21} {:>5}", "", "ours", "llama.cpp", "ours over it", "goal");
    let wanted = std::env::var("BENCH_ONLY").unwrap_or_default();
    let mut of_threads = BTreeMap::<String, Vec<Vec<f64>>>::new();
    for case in cases().into_iter().filter(|case| case.row().contains(&wanted)) {
        if !case.path().exists() {
            println!("{:58} left out: {} is not there", case.row(), case.path().display());
            continue;
        }
        if !llama::is_built(&case) {
            println!("{:58} left out: `scripts/peers.sh vulkan` builds what is measured beside it", case.row());
            continue;
        }
        let (ours, theirs) = side_by_side(&case, case.rounds(rounds)).await.with_context(|| case.row())?;
        let ratio = ratios(&ours, &theirs);
        tell(&case.row(), [&ours, &theirs], &ratio, case.goal());
        if case.on != On::Lavapipe {
            of_threads.entry(format!("{}, {}", case.model, case.what)).or_default().push(ratio);
        }
    }
    let (model, file) = three_phones::MODEL;
    let row = format!("{model}, three phones beside RPC");
    let path = cache_dir().join("models").join(file);
    match three_phones::obstacle() {
        _ if !row.contains(&wanted) => {}
        Some(why) => println!("{row:58} left out: {why}"),
        None => {
            let measured = three_phones::measure(&path, rounds).await.with_context(|| row.clone())?;
            let [ours, theirs] = &measured.decode;
            tell(&format!("{row}, decode"), [ours, theirs], &ratios(ours, theirs), 1.5);
            let [ours, theirs] = &measured.first_token;
            // The other way round: it is to be at most 0.4 of theirs.
            tell(&format!("{row}, s to a first token of 300"), [ours, theirs], &ratios(theirs, ours), 2.5);
        }
    }
    for (weight_type, goal) in product::PRODUCTS.into_iter().filter(|(of, _)| product::row(of).contains(&wanted)) {
        let row = product::row(weight_type);
        if let Some(why) = product::obstacle() {
            println!("{row:58} left out: {why}");
            continue;
        }
        let (ours, theirs) = product::measure(weight_type, rounds).with_context(|| row.clone())?;
        tell(&row, [&ours, &theirs], &ratios(&ours, &theirs), goal);
    }
    println!("\ngain of two threads over one, ours over llama.cpp's");
    for (what, by_threads) in of_threads {
        if let [one, two] = &by_threads[..] {
            println!("{what:58} {:19}   {}", "", told(&ratios(two, one), Some(GAIN_GOAL)));
        }
    }
    Ok(())
}

/// What is compared.
fn cases() -> Vec<Case> {
    let all = [What::Decode { after: 16, n: 64 }, What::Prefill { n: 512 }];
    let of_models = all.into_iter().flat_map(|what| MODELS.map(|model| (what, model)));
    let others =
        [(What::Decode { after: 4096, n: 32 }, LONG), (What::Together { sessions: 8, after: 16, n: 64 }, MODELS[0])];
    let case = |(what, (model, file))| THREADS.map(|threads| Case { model, file, what, on: On::Cpu { threads } });
    let on_lavapipe = [What::Decode { after: 16, n: 4 }, What::Prefill { n: 32 }].map(|what| {
        let (model, file) = MODELS[0];
        Case { model, file, what, on: On::Lavapipe }
    });
    of_models.chain(others).flat_map(case).chain(on_lavapipe).collect()
}

/// Tokens a second of each, turn by turn; who begins changes from turn to turn.
async fn side_by_side(case: &Case, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut ours = Ours::up(case)?;
    // Once without a clock: both have read the file then, and llama.cpp has shown which way is its faster.
    ours.run().await?;
    let llama = Llama::faster(case)?;
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            of_ours.push(ours.run().await?);
            of_theirs.push(llama.run()?);
        } else {
            of_theirs.push(llama.run()?);
            of_ours.push(ours.run().await?);
        }
    }
    Ok((of_ours, of_theirs))
}

/// Prints a row.
fn tell(row: &str, [ours, theirs]: [&[f64]; 2], ratio: &[f64], goal: impl Into<Option<f64>>) {
    let middle = |samples: &[f64]| summary(samples).map_or(f64::NAN, |summary| summary.median);
    println!("{row:58} {:9.1} {:9.1}   {}", middle(ours), middle(theirs), told(ratio, goal.into()));
}

/// A ratio and whether it is where it should be, if anywhere: its median at the goal, and the lower end at most 0.05 under it.
fn told(ratio: &[f64], goal: Option<f64>) -> String {
    let Some(it) = summary(ratio) else { return "none".to_owned() };
    let found = format!("{:.3} ({:.3}–{:.3})", it.median, it.low, it.high);
    let Some(goal) = goal else { return found };
    let judged = if it.median >= goal && it.low >= goal - 0.05 { "reached" } else { "missed" };
    format!("{found:21} {goal:5.2} {judged}")
}
