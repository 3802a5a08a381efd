//! Chat: `POST /v1/chat/completions`, from messages to the form of its answer.

mod form;

use polyphony_model::ChatMessage;
use serde_json::Value;

use crate::errors::ApiError;
use crate::request::{Fields, Generation, Limits, alternatives, kind_of};

pub(crate) use form::ChatForm;

/// What a chat asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) generation: Generation,
    pub(crate) messages: Vec<ChatMessage>,
    /// Whether the template opens the assistant's answer.
    pub(crate) add_generation_prompt: bool,
}

// === impl ChatRequest ===

impl ChatRequest {
    /// # Errors
    /// 400 naming the first field that is wrong.
    pub(crate) fn parse(fields: &Fields, limits: &Limits) -> Result<Self, ApiError> {
        let wanted = fields.flag("logprobs", false)?;
        let top = alternatives(fields, "top_logprobs")?;
        if top.is_some_and(|n| n > 0) && !wanted {
            return Err(ApiError::field("top_logprobs", "send `logprobs`: true with it"));
        }
        Ok(Self {
            generation: Generation::parse(fields, limits, wanted.then_some(top.unwrap_or(0)))?,
            messages: messages(fields)?,
            add_generation_prompt: fields.flag("add_generation_prompt", true)?,
        })
    }
}

/// The messages of a body.
///
/// # Errors
/// 400 naming the first message, and the field of it, that is wrong.
pub(crate) fn messages(fields: &Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let listed = match fields.get("messages") {
        Some(Value::Array(listed)) => listed,
        Some(other) => {
            let expected = format!("send a list of messages, not {}", kind_of(other));
            return Err(ApiError::field("messages", expected));
        }
        None => {
            return Err(ApiError::missing("messages", "a list such as [{\"role\": \"user\", \"content\": \"Hello\"}]"));
        }
    };
    if listed.is_empty() {
        return Err(ApiError::field("messages", "send at least one message"));
    }
    listed.iter().enumerate().map(|(idx, message)| self::message(idx, message)).collect()
}

fn message(idx: usize, message: &Value) -> Result<ChatMessage, ApiError> {
    let at = format!("messages[{idx}]");
    let Some(fields) = message.as_object() else {
        let expected = format!("send an object with role and content, not {}", kind_of(message));
        return Err(ApiError::field(&at, expected));
    };
    let role = match fields.get("role").and_then(Value::as_str) {
        // OpenAI's newer name of it; templates know the older.
        Some("developer") => "system".to_owned(),
        Some(role) if !role.is_empty() => role.to_owned(),
        _ => {
            return Err(ApiError::field(
                &format!("{at}.role"),
                "send a string such as `user`, `assistant` or `system`",
            ));
        }
    };
    let content_at = format!("{at}.content");
    let content = match fields.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<&str>, ApiError> =
                parts.iter().enumerate().map(|(idx, part)| part_text(&format!("{content_at}[{idx}]"), part)).collect();
            texts?.concat()
        }
        other => {
            let found = other.map_or("nothing", kind_of);
            let expected =
                format!("send a string, or a list of {{\"type\": \"text\", \"text\": …}} parts, not {found}");
            return Err(ApiError::field(&content_at, expected));
        }
    };
    Ok(ChatMessage::new(role, content))
}

fn part_text<'a>(at: &str, part: &'a Value) -> Result<&'a str, ApiError> {
    match part["type"].as_str() {
        Some("text") => part["text"].as_str().ok_or_else(|| {
            ApiError::field(&format!("{at}.text"), format_args!("send a string, not {}", kind_of(&part["text"])))
        }),
        Some(other) => {
            let expected = format!("send parts of type `text`: the model does not read `{other}`");
            Err(ApiError::field(&format!("{at}.type"), expected))
        }
        None => Err(ApiError::field(&format!("{at}.type"), "send `text`")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<ChatRequest, ApiError> {
        let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        ChatRequest::parse(&fields, &Limits { max_stop_bytes: 8 })
    }

    #[test]
    fn content_is_a_string_or_parts_of_text() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let body = json!({"model": "m", "messages": [
            {"role": "developer", "content": "s"}, {"role": "user", "content": parts, "name": "x"},
        ]});
        let messages = parse(body).unwrap().messages;
        assert_eq!(messages, [ChatMessage::new("system", "s"), ChatMessage::new("user", "ab")]);
    }

    #[test]
    fn a_wrong_message_is_named() {
        let image = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]);
        let cases = [
            (json!("hello"), "messages", "a list of messages, not a string"),
            (json!([]), "messages", "at least one"),
            (json!(["hello"]), "messages[0]", "not a string"),
            (json!([{"content": "a"}]), "messages[0].role", "such as `user`"),
            (json!([{"role": "user", "content": "a"}, {"role": "user"}]), "messages[1].content", "not nothing"),
            (json!([{"role": "user", "content": 3}]), "messages[0].content", "not a number"),
            (json!([{"role": "user", "content": image}]), "messages[0].content[1].type", "does not read `image_url`"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text", "not null"),
            (json!([{"role": "user", "content": [3]}]), "messages[0].content[0].type", "send `text`"),
        ];
        for (messages, param, words) in cases {
            let error = parse(json!({"model": "m", "messages": messages})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
            assert!(error.message.contains(words), "{}", error.message);
        }
        let error = parse(json!({"model": "m"})).unwrap_err();
        assert_eq!((error.param.as_deref(), error.code), (Some("messages"), Some("missing_required_parameter")));
    }

    #[test]
    fn alternatives_need_log_probabilities() {
        let body = |logprobs: Value, top: Value| {
            let messages = json!([{"role": "user", "content": "a"}]);
            parse(json!({"model": "m", "messages": messages, "logprobs": logprobs, "top_logprobs": top}))
        };
        assert_eq!(body(json!(true), json!(3)).unwrap().generation.logprobs, Some(3));
        assert_eq!(body(json!(true), json!(null)).unwrap().generation.logprobs, Some(0));
        assert_eq!(body(json!(null), json!(0)).unwrap().generation.logprobs, None);
        for (logprobs, top) in [(json!(false), json!(3)), (json!(true), json!(21)), (json!(2), json!(null))] {
            assert_eq!(body(logprobs, top).unwrap_err().status.as_u16(), 400);
        }
    }
}
