//! Completions: `POST /v1/completions`, from a prompt as text or tokens to the form of its answer.

mod form;

use serde_json::Value;

use crate::errors::ApiError;
use crate::request::{Fields, GENERATION, Generation, Limits, alternatives, kind_of, token_ids};

pub(crate) use form::CompletionForm;

/// OpenAI's default, which vLLM keeps.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// The fields that a completion has beside those of all endpoints.
const OWN: &[&str] = &["prompt", "logprobs", "echo", "add_special_tokens"];

/// What a completion asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CompletionRequest {
    pub(crate) generation: Generation,
    /// Each gets its own answer, a choice by its index.
    pub(crate) prompts: Vec<Prompt>,
    /// Whether the answer's text begins with the prompt's.
    pub(crate) echo: bool,
    /// Whether a text gets the begin token of models that want one.
    pub(crate) add_special_tokens: bool,
}

/// A prompt as the client has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

// === impl CompletionRequest ===

impl CompletionRequest {
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields, limits: &Limits) -> Result<Self, ApiError> {
        fields.refuse_others(&[GENERATION, OWN])?;
        let mut generation = Generation::parse(fields, limits, alternatives(fields, "logprobs")?)?;
        generation.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
        let echo = fields.flag("echo", false)?;
        if echo && generation.logprobs.is_some() {
            return Err(ApiError::unsupported(
                "echo",
                "the prompt's own log-probabilities are not computed; leave out `echo` or `logprobs`",
            ));
        }
        Ok(Self {
            generation,
            prompts: prompts(fields, limits.max_prompts)?,
            echo,
            add_special_tokens: fields.flag("add_special_tokens", true)?,
        })
    }
}

/// A string, token ids, or a list of these.
fn prompts(fields: &Fields, limit: usize) -> Result<Vec<Prompt>, ApiError> {
    const EXPECTED: &str = "send a string, a list of token ids, or a list of these";
    let Some(value) = fields.get("prompt") else {
        return Err(ApiError::missing("prompt", "a string or a list of token ids"));
    };
    match value {
        Value::String(text) => Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(listed) => match listed.as_slice() {
            [] => Err(ApiError::field("prompt", format_args!("{EXPECTED}, not an empty list"))),
            [Value::String(_) | Value::Array(_), ..] if listed.len() > limit => {
                let found = listed.len();
                Err(ApiError::field("prompt", format_args!("send at most {limit} prompts, not {found}")))
            }
            [Value::String(_) | Value::Array(_), ..] => {
                listed.iter().enumerate().map(|(idx, one)| one_of_many(idx, one)).collect()
            }
            ids => Ok(vec![Prompt::Tokens(token_ids("prompt", ids)?)]),
        },
        other => Err(ApiError::field("prompt", format_args!("{EXPECTED}, not {}", kind_of(other)))),
    }
}

fn one_of_many(idx: usize, prompt: &Value) -> Result<Prompt, ApiError> {
    let at = format!("prompt[{idx}]");
    match prompt {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(ids) => Ok(Prompt::Tokens(token_ids(&at, ids)?)),
        other => {
            Err(ApiError::field(&at, format_args!("send a string or a list of token ids, not {}", kind_of(other))))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<CompletionRequest, ApiError> {
        let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        CompletionRequest::parse(&fields, &Limits { max_stop_bytes: 8, max_prompts: 3 })
    }

    #[test]
    fn a_prompt_is_a_text_or_tokens_or_a_list_of_these() {
        let (text, tokens) = (Prompt::Text("a".into()), Prompt::Tokens(vec![1, 2]));
        let cases = [
            (json!("a"), vec![text.clone()]),
            (json!(["a"]), vec![text.clone()]),
            (json!([1, 2]), vec![tokens.clone()]),
            (json!([[1, 2]]), vec![tokens.clone()]),
            (json!(["a", [1, 2], "a"]), vec![text.clone(), tokens, text]),
        ];
        for (prompt, expected) in cases {
            let request = parse(json!({"model": "m", "prompt": prompt})).unwrap();
            assert_eq!((request.prompts, request.generation.max_tokens), (expected, Some(16)));
        }
    }

    #[test]
    fn a_wrong_prompt_is_named() {
        let cases = [
            (json!(3), "prompt", "not a number"),
            (json!([]), "prompt", "not an empty list"),
            (json!([1, -2]), "prompt[1]", "a token id, not -2"),
            (json!([[1, "a"]]), "prompt[0][1]", "a token id, not a string"),
            (json!(["a", "b", "c", "d"]), "prompt", "at most 3 prompts, not 4"),
            (json!(["a", 1]), "prompt[1]", "a list of token ids, not a number"),
            (json!([true]), "prompt[0]", "not a boolean"),
        ];
        for (prompt, param, words) in cases {
            let error = parse(json!({"model": "m", "prompt": prompt})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
            assert!(error.message.contains(words), "{}", error.message);
        }
        assert_eq!(parse(json!({"model": "m"})).unwrap_err().code, Some("missing_required_parameter"));
    }

    #[test]
    fn log_probabilities_are_a_number_of_alternatives_and_do_not_go_with_echo() {
        let body =
            |logprobs: Value, echo| parse(json!({"model": "m", "prompt": "a", "logprobs": logprobs, "echo": echo}));
        assert_eq!(body(json!(0), false).unwrap().generation.logprobs, Some(0));
        assert_eq!(body(json!(null), true).unwrap().generation.logprobs, None);
        assert_eq!(body(json!(21), false).unwrap_err().param.as_deref(), Some("logprobs"));
        assert_eq!(body(json!(1), true).unwrap_err().param.as_deref(), Some("echo"));
    }
}
