//! What the stages of a ring need to know of a session when it opens.

mod history;
mod sampling;

use serde::{Deserialize, Serialize};

pub use history::History;
pub use sampling::{MAX_LOGIT_BIASES, Sampling};

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
    /// Tokens of the prompt as it was asked, however often the session is replayed: what an encoder reads. 0 where the gateway does not
    /// say, as older ones do not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_prompt: u32,
    /// What penalties look back on; the tail goes on with it.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The most alternatives that a token can be reported with.
pub const MAX_TOP_LOGPROBS: u8 = 20;

/// Why no session can run with these options.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OptionsError {
    #[error("{field} is {value}, {expected} expected")]
    Number { field: &'static str, value: f32, expected: &'static str },
    #[error("logit_bias names {actual} tokens, at most {MAX_LOGIT_BIASES} expected")]
    TooManyBiases { actual: usize },
    #[error("the history takes {n_positions} positions, fewer than the end position {end_position} expected")]
    LongHistory { n_positions: u64, end_position: u32 },
}

// === impl SessionOptions ===

impl SessionOptions {
    /// Whether a stage can go by them, whoever sent them.
    ///
    /// # Errors
    /// [`OptionsError`] names the first field that is wrong.
    pub fn check(&self) -> Result<(), OptionsError> {
        if let Some((field, value, expected)) = self.sampling.wrong_number() {
            return Err(OptionsError::Number { field, value, expected });
        }
        let actual = self.sampling.logit_bias.len();
        if actual > MAX_LOGIT_BIASES {
            return Err(OptionsError::TooManyBiases { actual });
        }
        // A session opens with room for one token more at least.
        let (n_positions, end_position) = (self.history.n_positions(), self.end_position);
        if n_positions > 0 && n_positions >= u64::from(end_position) {
            return Err(OptionsError::LongHistory { n_positions, end_position });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
