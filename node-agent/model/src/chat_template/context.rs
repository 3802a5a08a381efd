//! Context: what a template finds by name, of the chat that it renders.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use minijinja::{Error, ErrorKind, State, Value};

use super::budget::{self, make, see};
use crate::chat::Chat;
use crate::json::{Json, Object};

/// The longest format of a time, in bytes: a field of it may be 255 characters wide.
const MAX_FORMAT_BYTES: usize = 256;

/// The names of `chat`, with the tokens that begin and end a text.
pub(super) fn of_chat(chat: &Chat, bos_token: String, eos_token: String) -> Value {
    let messages: Vec<Value> = chat.messages.iter().map(|message| object(&message.fields)).collect();
    // Templates ask `is not none` of tools and documents, so undefined would mean that there are some.
    let tools = (!chat.tools.is_empty()).then(|| chat.tools.iter().map(value_of).collect::<Vec<_>>());
    let mut names: Vec<(&str, Value)> = chat.variables.iter().map(|(name, it)| (name.as_str(), value_of(it))).collect();
    names.extend([
        ("messages", Value::from(messages)),
        ("add_generation_prompt", Value::from(chat.add_generation_prompt)),
        ("bos_token", Value::from(bos_token)),
        ("eos_token", Value::from(eos_token)),
        ("tools", Value::from(tools)),
        ("documents", Value::from(())),
        (budget::INPUT, Value::from(chat.n_bytes())),
    ]);
    if let Some(now) = chat.now {
        names.push(("strftime_now", Value::from_function(move |state: &mut State, format: Value| shown(state, &format, now))));
    }
    Value::from_pairs(names)
}

/// `now` in Python's format of a time.
fn shown(state: &mut State, format: &Value, now: DateTime) -> Result<String, Error> {
    let refused = |text: String| Error::new(ErrorKind::InvalidOperation, text);
    let Some(format) = format.as_str().filter(|format| format.len() <= MAX_FORMAT_BYTES) else {
        return Err(refused(format!("a format of a time is a text of at most {MAX_FORMAT_BYTES} bytes")));
    };
    see(state, format.len() as u64)?;
    let text = strtime::format(format, now).map_err(|error| refused(format!("strftime_now({format:?}): {error}")))?;
    make(state, text.len() as u64)?;
    Ok(text)
}

/// What a template finds where the client sent `json`.
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Integer(number) => Value::from(*number),
        Json::Unsigned(number) => Value::from(*number),
        Json::Number(number) => Value::from(*number),
        Json::Text(text) => Value::from(text.as_str()),
        Json::List(items) => items.iter().map(value_of).collect::<Vec<_>>().into(),
        Json::Object(fields) => object(fields),
    }
}

fn object(fields: &Object) -> Value {
    Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), value_of(field))))
}
