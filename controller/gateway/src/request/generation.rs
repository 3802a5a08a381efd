//! Generation: the fields that chat and plain completions share, from sampling to stop strings.

use polyphony_protocol::session::{History, MAX_TOP_LOGPROBS, Sampling, SessionOptions};
use serde_json::Value;

use super::sampling::sampling;
use super::{Fields, kind_of, shown};
use crate::errors::ApiError;
use crate::model_text::TokenNames;

/// OpenAI's limit of stop strings.
const MAX_STOPS: usize = 4;

/// The fields that [`Generation::parse`] reads.
pub(crate) const GENERATION: &[&str] = &[
    "model",
    "n",
    "best_of",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "stop",
    "ignore_eos",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "stream",
    "stream_options",
];

/// Bounds that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_stop_bytes: usize,
    pub(crate) max_prompts: usize,
}

/// How to answer, whatever the prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generation {
    pub(crate) model: String,
    pub(crate) max_tokens: Option<u32>,
    /// With no seed of its own yet.
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<u64>,
    pub(crate) stops: Vec<String>,
    pub(crate) ignore_eos: bool,
    /// Report log-probabilities, with so many alternatives.
    pub(crate) logprobs: Option<u8>,
    pub(crate) token_names: TokenNames,
    pub(crate) return_token_ids: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
}

// === impl Generation ===

impl Generation {
    /// `logprobs` is what the endpoint made of its own fields of that name.
    ///
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields, limits: &Limits, logprobs: Option<u8>) -> Result<Self, ApiError> {
        for name in ["n", "best_of"] {
            if let Some(n) = fields.integer(name, 1, i64::MAX)?.filter(|n| *n != 1) {
                let remedy = format!("{n} answers were asked for; send 1, or the request several times");
                return Err(ApiError::unsupported(name, &remedy));
            }
        }
        let max_tokens = match max_tokens(fields, "max_completion_tokens")? {
            Some(max_tokens) => Some(max_tokens),
            None => max_tokens(fields, "max_tokens")?,
        };
        Ok(Self {
            model: fields.model()?,
            max_tokens,
            sampling: sampling(fields)?,
            seed: seed(fields)?,
            stops: stops(fields, limits)?,
            ignore_eos: fields.flag("ignore_eos", false)?,
            logprobs,
            token_names: match fields.flag("return_tokens_as_token_ids", false)? {
                true => TokenNames::Ids,
                false => TokenNames::Text,
            },
            return_token_ids: fields.flag("return_token_ids", false)?,
            stream: fields.flag("stream", false)?,
            include_usage: include_usage(fields)?,
        })
    }

    /// Whether the model has every token that gets a bias.
    ///
    /// # Errors
    /// 400 naming the first that it has not.
    pub(crate) fn check_vocabulary(&self, n_vocab: u32) -> Result<(), ApiError> {
        match self.sampling.logit_bias.keys().find(|token| **token >= n_vocab) {
            None => Ok(()),
            Some(token) => {
                let expected = format!("send token ids below {n_vocab}, the size of the vocabulary, not {token}");
                Err(ApiError::field("logit_bias", expected))
            }
        }
    }

    /// The session's options for a prompt of `n_prompt` tokens; a missing seed becomes `drawn_seed`.
    ///
    /// # Errors
    /// 400 `context_length_exceeded` when the prompt, the field `param`, leaves no room for a token.
    pub(crate) fn options(
        &self,
        param: &str,
        n_prompt: usize,
        context_length: u32,
        end_tokens: &[u32],
        drawn_seed: u64,
    ) -> Result<SessionOptions, ApiError> {
        let position = u32::try_from(n_prompt).unwrap_or(u32::MAX);
        if position >= context_length {
            return Err(ApiError::context_length_exceeded(param, n_prompt, context_length));
        }
        let max_tokens = self.max_tokens.unwrap_or(u32::MAX);
        Ok(SessionOptions {
            sampling: Sampling { seed: self.seed.unwrap_or(drawn_seed), ..self.sampling.clone() },
            end_position: position.saturating_add(max_tokens).min(context_length),
            end_tokens: if self.ignore_eos { Vec::new() } else { end_tokens.to_vec() },
            top_logprobs: self.logprobs.unwrap_or(0),
            logprobs: self.logprobs.is_some(),
            n_prompt: position,
            // The session fills it each time that it opens.
            history: History::default(),
        })
    }
}

/// How many alternatives a field asks for.
pub(crate) fn alternatives(fields: &Fields, name: &str) -> Result<Option<u8>, ApiError> {
    let number = fields.integer(name, 0, i64::from(MAX_TOP_LOGPROBS))?;
    Ok(number.and_then(|number| u8::try_from(number).ok()))
}

/// More than fits is the same as what fits, and so is -1, as others have it.
fn max_tokens(fields: &Fields, name: &str) -> Result<Option<u32>, ApiError> {
    if fields.get(name).is_some_and(|value| value == -1) {
        return Ok(Some(u32::MAX));
    }
    let number = fields.integer(name, 1, i64::MAX)?;
    Ok(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
}

/// Any integer of 64 bits, signed or not.
fn seed(fields: &Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.get("seed") else {
        return Ok(None);
    };
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    let wrong = || ApiError::field("seed", format_args!("send a whole number of 64 bits, not {}", shown(value)));
    number.map(Some).ok_or_else(wrong)
}

fn stops(fields: &Fields, limits: &Limits) -> Result<Vec<String>, ApiError> {
    let listed: &[Value] = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed,
        Some(one) => std::slice::from_ref(one),
    };
    if listed.len() > MAX_STOPS {
        let found = listed.len();
        return Err(ApiError::field("stop", format_args!("send at most {MAX_STOPS} strings, not {found}")));
    }
    let stop = |value: &Value| match value {
        Value::String(stop) if stop.is_empty() => Err(ApiError::field("stop", "send strings that are not empty")),
        Value::String(stop) if stop.len() > limits.max_stop_bytes => {
            let (limit, found) = (limits.max_stop_bytes, stop.len());
            Err(ApiError::field("stop", format_args!("send strings of at most {limit} bytes, not {found}")))
        }
        Value::String(stop) => Ok(stop.clone()),
        other => {
            Err(ApiError::field("stop", format_args!("send a string or a list of strings, not {}", kind_of(other))))
        }
    };
    listed.iter().map(stop).collect()
}

fn include_usage(fields: &Fields) -> Result<bool, ApiError> {
    let options = match fields.get("stream_options") {
        None => return Ok(false),
        Some(Value::Object(options)) => options,
        Some(other) => {
            return Err(ApiError::field("stream_options", format_args!("send an object, not {}", kind_of(other))));
        }
    };
    let is_neutral = |value: &Value| value.is_null() || value == false;
    if let Some((name, _)) = options.iter().find(|(name, value)| *name != "include_usage" && !is_neutral(value)) {
        return Err(ApiError::unsupported(&format!("stream_options.{name}"), "leave it out"));
    }
    match options.get("include_usage") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(include_usage)) => Ok(*include_usage),
        Some(other) => {
            let expected = format!("send true or false, not {}", kind_of(other));
            Err(ApiError::field("stream_options.include_usage", expected))
        }
    }
}

#[cfg(test)]
mod tests;
