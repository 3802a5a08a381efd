//! Logits to a token. The random number of a position is a function of seed and position alone, so a replay draws the same.
//!
//! The order is vLLM's (`vllm/v1/sample/sampler.py`, the docs of its class `Sampler`): logit bias; repetition, frequency
//! and presence penalties; here a greedy draw takes the largest; temperature; min-p; top-k; top-p; the draw. As there, the
//! log-probabilities that a client sees are those of the model, before all of this.

mod adjustment;
mod chance;
mod choice;
mod vocabulary;

use polyphony_protocol::session::SessionOptions;

use adjustment::adjusted;
use choice::choose;
use vocabulary::{Weights, are_finite, argmax, likeliest};

/// A drawn token with what the client may want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    pub token: u32,
    /// Natural logarithm of its probability before bias, penalties, temperature and truncation.
    pub logprob: f32,
    /// The likeliest tokens with theirs, best first.
    pub top: Vec<(u32, f32)>,
}

/// A logit is NaN or infinite, or there is none: no token follows from that, neither a likeliest one nor one by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the logits are no finite numbers")]
pub struct NonFinite;

/// Draws the token of `position` from `logits` (one value a vocabulary entry, at least one).
///
/// The history in `options` is of the tokens before `position`. Equal logits are ordered by token.
///
/// # Errors
/// When not all logits are finite.
pub fn draw(logits: &[f32], options: &SessionOptions, position: u32) -> Result<Drawn, NonFinite> {
    if !are_finite(logits) {
        return Err(NonFinite);
    }
    let sampling = &options.sampling;
    let token = {
        let logits = adjusted(logits, sampling, &options.history);
        if sampling.temperature > 0.0 { choose(&logits, sampling, position) } else { argmax(&logits) }
    };
    let n_top = usize::from(options.top_logprobs);
    if !options.logprobs && n_top == 0 {
        return Ok(Drawn { token, logprob: 0.0, top: Vec::new() });
    }
    let largest = logits[argmax(logits) as usize];
    let total = Weights { largest, temperature: 1.0 }.total(logits, 0.0);
    let normalizer = f64::from(largest) + libm::log(total);
    let logprob_of = |token: u32| (f64::from(logits[token as usize]) - normalizer) as f32;
    let top = likeliest(logits, n_top).into_iter().map(|token| (token, logprob_of(token))).collect();
    Ok(Drawn { token, logprob: logprob_of(token), top })
}

#[cfg(test)]
mod tests;
