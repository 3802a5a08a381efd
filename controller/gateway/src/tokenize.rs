//! Tokenize: `POST /tokenize` and `/detokenize` as vLLM has them.

use polyphony_model::Chat;
use serde_json::{Value, json};

use crate::chat::chat;
use crate::errors::ApiError;
use crate::model_text::ModelText;
use crate::request::{Fields, kind_of, token_ids};

/// What `/tokenize` is asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenizeRequest {
    /// May be left out where there is one model.
    pub(crate) model: Option<String>,
    pub(crate) source: Source,
    pub(crate) return_token_strs: bool,
}

/// What is to become tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Text { prompt: String, add_special_tokens: bool },
    Chat(Chat),
}

/// The fields of `/tokenize`, and of `/detokenize`.
const TOKENIZE: &[&str] = &[
    "model",
    "prompt",
    "messages",
    "tools",
    "tool_choice",
    "add_special_tokens",
    "add_generation_prompt",
    "chat_template_kwargs",
    "return_token_strs",
];
const DETOKENIZE: &[&str] = &["model", "tokens"];

/// What `/detokenize` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetokenizeRequest {
    pub(crate) model: Option<String>,
    pub(crate) tokens: Vec<u32>,
}

// === impl TokenizeRequest ===

impl TokenizeRequest {
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields) -> Result<Self, ApiError> {
        fields.refuse_others(&[TOKENIZE])?;
        let source = match (fields.text("prompt")?, fields.messages()) {
            (Some(prompt), None) => {
                Source::Text { prompt: prompt.to_owned(), add_special_tokens: fields.flag("add_special_tokens", true)? }
            }
            (None, Some(_)) => Source::Chat(chat(fields)?),
            (None, None) => return Err(ApiError::missing("prompt", "a string, or `messages`")),
            (Some(_), Some(_)) => {
                return Err(ApiError::field("prompt", "send it or `messages`, not both"));
            }
        };
        let model = fields.text("model")?.map(str::to_owned);
        Ok(Self { model, source, return_token_strs: fields.flag("return_token_strs", false)? })
    }
}

// === impl DetokenizeRequest ===

impl DetokenizeRequest {
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields) -> Result<Self, ApiError> {
        fields.refuse_others(&[DETOKENIZE])?;
        let tokens = match fields.get("tokens") {
            Some(Value::Array(ids)) => token_ids("tokens", ids)?,
            Some(other) => {
                let expected = format!("send a list of token ids, not {}", kind_of(other));
                return Err(ApiError::field("tokens", expected));
            }
            None => return Err(ApiError::missing("tokens", "a list of token ids")),
        };
        Ok(Self { model: fields.text("model")?.map(str::to_owned), tokens })
    }
}

/// The body of an answer to `/tokenize`.
pub(crate) fn tokenized(tokens: &[u32], context_length: u32, names_of: Option<&ModelText>) -> Value {
    let names = names_of.map(|text| tokens.iter().map(|&token| text.token_name(token)).collect::<Vec<_>>());
    json!({"count": tokens.len(), "max_model_len": context_length, "tokens": tokens, "token_strs": names})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(body: Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_text_or_a_chat_becomes_tokens_but_not_both() {
        let chat = json!([{"role": "user", "content": "a"}]);
        let parse = |body| TokenizeRequest::parse(&fields(body));
        let text = Source::Text { prompt: "a".into(), add_special_tokens: true };
        assert_eq!(parse(json!({"prompt": "a"})).unwrap().source, text);
        let parsed = parse(json!({"messages": chat})).unwrap().source;
        assert!(matches!(parsed, Source::Chat(Chat { add_generation_prompt: true, .. })));
        assert_eq!(parse(json!({"prompt": "a", "truncate": 3})).unwrap_err().param.as_deref(), Some("truncate"));
        for wrong in [json!({"prompt": "a", "messages": chat}), json!({}), json!({"prompt": 3})] {
            assert_eq!(parse(wrong).unwrap_err().param.as_deref(), Some("prompt"));
        }
    }

    #[test]
    fn tokens_become_text_if_they_are_ids() {
        let parse = |body| DetokenizeRequest::parse(&fields(body));
        assert_eq!(parse(json!({"tokens": [1, 2], "model": "m"})).unwrap().tokens, [1, 2]);
        let cases =
            [(json!({}), "tokens"), (json!({"tokens": 3}), "tokens"), (json!({"tokens": [1, 2.5]}), "tokens[1]")];
        for (wrong, param) in cases {
            assert_eq!(parse(wrong).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
