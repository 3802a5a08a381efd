//! Request: one completion by token ids over the gateway's API, timed where the client sees it.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use polyphony_e2e::stream::Gateway;
use serde_json::json;

use crate::processor::Spent;

/// One streamed answer.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// From sending the request to the first token.
    pub first_token: Part,
    /// From the first token to the last.
    pub decode: Part,
    /// Tokens after the first.
    pub n_decoded: u32,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub seconds: f64,
    pub spent: Spent,
}

/// Asks `deployment` for 1 + `n_decode` tokens after `n_prompt` and waits for the last. `pids` are the processes that work
/// on it.
///
/// # Errors
/// When the answer is no stream, breaks off, or has another number of tokens.
pub async fn complete(
    gateway: &Gateway,
    deployment: &str,
    n_prompt: u32,
    n_decode: u32,
    pids: &[u32],
) -> Result<Timed> {
    let body = json!({
        "model": deployment, "prompt": prompt(n_prompt), "max_tokens": n_decode + 1, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true, "stream": true,
    });
    let now = || (Instant::now(), Spent::by(pids));
    let sent = now();
    let mut pieces = gateway.stream("/v1/completions", &body).await?;
    let (mut first, mut last, mut n_tokens) = (None, None, 0);
    while let Some(piece) = pieces.next().await? {
        if let Some(error) = piece.get("error") {
            bail!("{deployment} broke off after {n_tokens} tokens: {error}");
        }
        // The opening has the prompt's ids, the end none; each piece has those of its own.
        let n = piece["choices"][0]["token_ids"].as_array().map_or(0, Vec::len);
        if n == 0 {
            continue;
        }
        n_tokens += u32::try_from(n)?;
        last = Some(Instant::now());
        if first.is_none() {
            first = Some(now());
        }
    }
    let (first, last) = first.zip(last).with_context(|| format!("{deployment} gave no token"))?;
    if n_tokens != n_decode + 1 {
        bail!("{deployment} gave {n_tokens} tokens, {} were asked for", n_decode + 1);
    }
    let part = |from: (Instant, Spent), to: (Instant, Spent)| Part {
        seconds: (to.0 - from.0).as_secs_f64(),
        spent: to.1.since(&from.1),
    };
    Ok(Timed { first_token: part(sent, first), decode: part(first, (last, Spent::by(pids))), n_decoded: n_decode })
}

/// Ids of ordinary tokens, all different from their neighbours. What they say does not change how long they take.
fn prompt(n: u32) -> Vec<u32> {
    (0..n).map(|idx| 1_000 + idx * 7_919 % 40_000).collect()
}
