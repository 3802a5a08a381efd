//! Messages: the turns of a chat as clients send them, to what a template is given. Pure.

use polyphony_model::{ChatMessage, Json, Object};

use crate::errors::ApiError;
use crate::request::Fields;

/// Fields of a message that a template finds as they are.
const PASSED_ON: [&str; 4] = ["name", "tool_call_id", "reasoning_content", "reasoning"];
/// Fields that describe a message; clients that send an answer back leave them in.
const HARMLESS: [&str; 4] = ["id", "annotations", "refusal", "cache_control"];

/// The messages of a body.
///
/// # Errors
/// 400 naming the first message, and the field of it, that is wrong.
pub(super) fn parse(fields: &Fields) -> Result<Vec<ChatMessage>, ApiError> {
    let listed = match fields.messages() {
        Some(Json::List(listed)) => listed,
        Some(other) => {
            let expected = format!("send a list of messages, not {}", other.kind());
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

fn message(idx: usize, message: &Json) -> Result<ChatMessage, ApiError> {
    let at = format!("messages[{idx}]");
    let Some(fields) = message.as_object() else {
        let expected = format!("send an object with role and content, not {}", message.kind());
        return Err(ApiError::field(&at, expected));
    };
    let role = match fields.get("role").and_then(Json::as_str) {
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
                Json::Text(text) => parsed = parsed.with(name, text.as_str()),
                other => {
                    let expected = format!("send a string, not {}", other.kind());
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
fn content(at: &str, fields: &Object, has_calls: bool) -> Result<String, ApiError> {
    let at = format!("{at}.content");
    match fields.get("content") {
        Some(Json::Text(text)) => Ok(text.clone()),
        Some(Json::List(parts)) => {
            let texts: Result<Vec<&str>, ApiError> =
                parts.iter().enumerate().map(|(idx, part)| part_text(&format!("{at}[{idx}]"), part)).collect();
            Ok(texts?.concat())
        }
        None | Some(Json::Null) if has_calls => Ok(String::new()),
        other => {
            let found = other.map_or("nothing", Json::kind);
            let expected =
                format!("send a string, or a list of {{\"type\": \"text\", \"text\": …}} parts, not {found}");
            Err(ApiError::field(&at, expected))
        }
    }
}

fn part_text<'a>(at: &str, part: &'a Json) -> Result<&'a str, ApiError> {
    match part.get("type").and_then(Json::as_str) {
        Some("text") => part.get("text").and_then(Json::as_str).ok_or_else(|| {
            let found = part.get("text").map_or("null", Json::kind);
            ApiError::field(&format!("{at}.text"), format_args!("send a string, not {found}"))
        }),
        Some(other) => {
            let expected = format!("send parts of type `text`: the model does not read `{other}`");
            Err(ApiError::field(&format!("{at}.type"), expected))
        }
        None => Err(ApiError::field(&format!("{at}.type"), "send `text`")),
    }
}

/// A message's calls, each with its arguments as an object: clients send them as JSON in a string, and templates write them as JSON.
fn calls(at: &str, fields: &Object) -> Result<Option<Json>, ApiError> {
    let at = format!("{at}.tool_calls");
    let listed = match fields.get("tool_calls") {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::List(listed)) if listed.is_empty() => return Ok(None),
        Some(Json::List(listed)) => listed,
        Some(other) => return Err(ApiError::field(&at, format_args!("send a list, not {}", other.kind()))),
    };
    let calls = listed.iter().enumerate().map(|(idx, call)| self::call(&format!("{at}[{idx}].function"), call));
    Ok(Some(Json::List(calls.collect::<Result<_, ApiError>>()?)))
}

fn call(at: &str, call: &Json) -> Result<Json, ApiError> {
    let is_named = |function: &&Object| function.get("name").and_then(Json::as_str).is_some();
    let function = call.get("function").and_then(Json::as_object).filter(is_named);
    let (Some(function), Some(call)) = (function, call.as_object()) else {
        return Err(ApiError::field(at, "send an object with name and arguments"));
    };
    let arguments = match function.get("arguments") {
        None => return Err(ApiError::field(at, "send an object with name and arguments")),
        Some(Json::Text(text)) if text.trim().is_empty() => Json::Object(Object::new()),
        Some(Json::Text(text)) => {
            let object = serde_json::from_str(text).ok().filter(|arguments: &Json| arguments.as_object().is_some());
            object.ok_or_else(|| {
                ApiError::field(&format!("{at}.arguments"), "send a JSON object, in a string or as it is")
            })?
        }
        Some(Json::Object(arguments)) => Json::Object(arguments.clone()),
        Some(other) => {
            let expected = format!("send a JSON object, in a string or as it is, not {}", other.kind());
            return Err(ApiError::field(&format!("{at}.arguments"), expected));
        }
    };
    let (mut call, mut function) = (call.clone(), function.clone());
    function.insert("arguments".to_owned(), arguments);
    call.insert("function".to_owned(), Json::Object(function));
    Ok(Json::Object(call))
}
