//! What the stages of a ring need to know of a session when it opens.

use serde::{Deserialize, Serialize};

/// How the tail turns logits into a token.
///
/// The random number of position p is a function of (`seed`, p) alone, so that a replayed session draws the same tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// A session as it opens on a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionOptions {
    pub sampling: Sampling,
    /// The position after the last one that may be sampled: prompt tokens + `max_tokens`, within the context length.
    pub end_position: u32,
    /// Tokens that end the answer; empty when the client asked to ignore them.
    pub end_tokens: Vec<u32>,
    /// How many of the likeliest tokens to report with each sampled one; 0 to [`MAX_TOP_LOGPROBS`].
    pub top_logprobs: u8,
    /// Whether the log-probability of the sampled token is wanted.
    pub logprobs: bool,
}

/// The most alternatives that a token can be reported with.
pub const MAX_TOP_LOGPROBS: u8 = 20;
