//! Questions: one streamed completion by token ids, timed where the client sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use polyphony_e2e::stream::Gateway;
use serde_json::json;

/// One streamed answer.
#[derive(Clone, Debug)]
pub struct Answered {
    pub tokens: Vec<u64>,
    /// From sending the request to each token.
    pub arrivals: Vec<Duration>,
}

/// Asks `deployment` for `n` tokens after a prompt, and waits for the last.
///
/// # Errors
/// When the answer is no stream, breaks off, or has another number of tokens.
pub async fn ask(gateway: &Gateway, deployment: &str, n_prompt: u32, n: u32) -> Result<Answered> {
    let sent = Instant::now();
    let mut answered = Answered { tokens: Vec::new(), arrivals: Vec::new() };
    let note = |token| {
        answered.tokens.push(token);
        answered.arrivals.push(sent.elapsed());
    };
    stream(gateway, deployment, n_prompt, n, note).await?;
    if answered.tokens.len() != n as usize {
        bail!("{deployment} gave {} tokens, {n} were asked for", answered.tokens.len());
    }
    Ok(answered)
}

/// Asks `deployment` for `n` tokens after a prompt, and tells each as it comes.
///
/// # Errors
/// When the answer is no stream, or breaks off.
pub async fn stream(
    gateway: &Gateway,
    deployment: &str,
    n_prompt: u32,
    n: u32,
    mut note: impl FnMut(u64),
) -> Result<()> {
    let body = json!({
        "model": deployment, "prompt": prompt(n_prompt), "max_tokens": n, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let mut pieces = gateway.stream("/v1/completions", &body).await.with_context(|| deployment.to_owned())?;
    while let Some(piece) = pieces.next().await? {
        if let Some(error) = piece.get("error") {
            bail!("{deployment} broke off: {error}");
        }
        for token in piece["choices"][0]["token_ids"].as_array().into_iter().flatten() {
            note(token.as_u64().context("a token that is no number")?);
        }
    }
    Ok(())
}

/// Asks for `n_sessions` answers at once; tokens a second of all together, from the moment each had its first.
///
/// # Errors
/// As [`ask`].
pub async fn ask_together(gateway: &Gateway, deployment: &str, n_sessions: usize, n: u32) -> Result<f64> {
    let began = Instant::now();
    let asked: Vec<_> = (0..n_sessions)
        .map(|_| {
            let (gateway, deployment) = (gateway.clone(), deployment.to_owned());
            tokio::spawn(async move {
                let offset = began.elapsed();
                let answered = ask(&gateway, &deployment, PROMPT_TOKENS, n).await?;
                Ok::<Vec<Duration>, anyhow::Error>(answered.arrivals.iter().map(|at| offset + *at).collect())
            })
        })
        .collect();
    let mut all = Vec::new();
    for one in asked {
        all.push(one.await??);
    }
    // While all of them decode: from the last first token to the first last one.
    let from = all.iter().filter_map(|arrivals| arrivals.first()).max().copied().unwrap_or_default();
    let to = all.iter().filter_map(|arrivals| arrivals.last()).min().copied().unwrap_or_default();
    let n_tokens = all.iter().flatten().filter(|at| **at > from && **at <= to).count();
    let seconds = to.saturating_sub(from).as_secs_f64();
    if seconds <= 0.0 {
        bail!("the answers of {n_sessions} sessions did not overlap: ask for more than {n} tokens");
    }
    Ok(n_tokens as f64 / seconds)
}

/// Of the decode runs: short, so that it is the decoding that is measured.
pub const PROMPT_TOKENS: u32 = 8;

/// Ids of ordinary tokens of any vocabulary, all different from their neighbours. What they say does not change how long they take.
fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|idx| 1_000 + idx * 7_919 % 7_000).collect()
}

// === impl Answered ===

impl Answered {
    pub fn first_token_seconds(&self) -> f64 {
        self.arrivals.first().copied().unwrap_or_default().as_secs_f64()
    }

    /// Between the first token and the last, for each after the first.
    pub fn seconds_per_token(&self) -> f64 {
        let (first, last) = (self.arrivals.first().copied(), self.arrivals.last().copied());
        let between = last.unwrap_or_default().saturating_sub(first.unwrap_or_default());
        between.as_secs_f64() / self.arrivals.len().saturating_sub(1).max(1) as f64
    }
}
