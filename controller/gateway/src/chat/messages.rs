//! Messages: the turns of a chat as clients send them, to what a template is given. Pure.

use polyphony_model::ChatMessage;
use serde_json::{Map, Value};

use crate::errors::ApiError;
use crate::request::{Fields, kind_of};

/// Fields of a message that a template finds as they are.
const PASSED_ON: [&str; 4] = ["name", "tool_call_id", "reasoning_content", "reasoning"];
/// Fields that describe a message; clients that send an answer back leave them in.
const HARMLESS: [&str; 4] = ["id", "annotations", "refusal", "cache_control"];

/// The messages of a body.
///
/// # Errors
/// 400 naming the first message, and the field of it, that is wrong.
pub(super) fn parse(fields: &Fields) -> Result<Vec<ChatMessage>, ApiError> {
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
    let calls = calls(&at, fields)?;
    let mut parsed = ChatMessage::new(role, content(&at, fields, calls.is_some())?);
    if let Some(calls) = calls {
        parsed = parsed.with("tool_calls", calls);
    }
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "role" | "content" | "tool_calls" => {}
            name if PASSED_ON.contains(&name) => match value {
                Value::String(text) => parsed = parsed.with(name, text.as_str()),
                other => {
                    let expected = format!("send a string, not {}", kind_of(other));
                    return Err(ApiError::field(&format!("{at}.{name}"), expected));
                }
            },
            name if HARMLESS.contains(&name) => {}
            name => return Err(ApiError::unsupported(&format!("{at}.{name}"), "leave it out")),
        }
    }
    Ok(parsed)
}

/// A message's text. Where it calls tools there need be none, which templates find as an empty one.
fn content(at: &str, fields: &Map<String, Value>, has_calls: bool) -> Result<String, ApiError> {
    let at = format!("{at}.content");
    match fields.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let texts: Result<Vec<&str>, ApiError> =
                parts.iter().enumerate().map(|(idx, part)| part_text(&format!("{at}[{idx}]"), part)).collect();
            Ok(texts?.concat())
        }
        None | Some(Value::Null) if has_calls => Ok(String::new()),
        other => {
            let found = other.map_or("nothing", kind_of);
            let expected =
                format!("send a string, or a list of {{\"type\": \"text\", \"text\": …}} parts, not {found}");
            Err(ApiError::field(&at, expected))
        }
    }
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

/// A message's calls, each with its arguments as an object: clients send them as JSON in a string, and templates write them as JSON.
fn calls(at: &str, fields: &Map<String, Value>) -> Result<Option<Value>, ApiError> {
    let at = format!("{at}.tool_calls");
    let listed = match fields.get("tool_calls") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(listed)) if listed.is_empty() => return Ok(None),
        Some(Value::Array(listed)) => listed,
        Some(other) => return Err(ApiError::field(&at, format_args!("send a list, not {}", kind_of(other)))),
    };
    let call = |(idx, call): (usize, &Value)| {
        let at = format!("{at}[{idx}].function");
        let function =
            call["function"].as_object().filter(|function| function.get("name").is_some_and(Value::is_string));
        let Some(function) = function.filter(|function| function.contains_key("arguments")) else {
            return Err(ApiError::field(&at, "send an object with name and arguments"));
        };
        let arguments = match &function["arguments"] {
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            Value::String(text) => serde_json::from_str(text).ok().filter(Value::is_object).ok_or_else(|| {
                ApiError::field(&format!("{at}.arguments"), "send a JSON object, in a string or as it is")
            })?,
            Value::Object(arguments) => Value::Object(arguments.clone()),
            other => {
                let expected = format!("send a JSON object, in a string or as it is, not {}", kind_of(other));
                return Err(ApiError::field(&format!("{at}.arguments"), expected));
            }
        };
        let mut call = call.clone();
        call["function"]["arguments"] = arguments;
        Ok(call)
    };
    let calls: Result<Vec<Value>, ApiError> = listed.iter().enumerate().map(call).collect();
    Ok(Some(Value::Array(calls?)))
}
