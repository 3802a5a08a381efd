//! Answer: what a session gives its client, piece by piece, before it has a form.

use serde::Serialize;

use crate::errors::ApiError;

/// What a session says to whoever answers the client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    Piece(Piece),
    /// The last word of an answer that is whole.
    End(End),
    /// The last word of one that broke off.
    Failed(ApiError),
}

/// One token with the text that it brings: none while a character or a possible stop string is incomplete.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) token: u32,
    pub(crate) text: String,
    pub(crate) logprob: f32,
    /// The likeliest tokens, best first.
    pub(crate) top: Vec<(u32, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: FinishReason,
    /// The stop string that did it.
    pub(crate) stopped_by: Option<String>,
    /// What was held back for the rest of a character or of a stop string, where no further token came to bring it.
    pub(crate) text: String,
}

/// `finish_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub(crate) enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

// === impl End ===

impl End {
    pub(crate) fn new(reason: FinishReason) -> Self {
        Self { reason, stopped_by: None, text: String::new() }
    }

    pub(crate) fn stopped_by(stop: String) -> Self {
        Self { stopped_by: Some(stop), ..Self::new(FinishReason::Stop) }
    }
}

// === impl FinishReason ===

impl FinishReason {
    /// As on the wire, and as in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Tokens used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
}

// === impl Usage ===

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// A log-probability as JSON can hold it; minus infinity as OpenAI writes it.
pub(crate) fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}
