//! Request: the fields of a JSON body, each checked and named when it is wrong, and all others refused by name. Pure.

mod generation;
mod others;
mod sampling;

use polyphony_model::Json;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::errors::ApiError;

pub(crate) use generation::{GENERATION, Generation, Limits, alternatives};

/// What the values of a body may count for together: a number or a string counts once, an array or an object for eight, since it takes so
/// much more memory than it has bytes. More token ids than any context here has.
const MAX_COUNT: usize = 512 << 10;
const OF_A_LIST: usize = 8;

/// The fields of a body. A field that is `null` counts as absent, as in OpenAI's own clients.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    all: Map<String, Value>,
    ordered: Ordered,
}

/// What a chat template is given: its objects keep their fields in the order in which they were sent.
#[derive(Clone, Debug, Default, Deserialize)]
struct Ordered {
    messages: Option<Json>,
    tools: Option<Json>,
    chat_template_kwargs: Option<Json>,
}

// === impl Fields ===

impl Fields {
    /// # Errors
    /// 400 when the bytes are no JSON object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if count(body) > MAX_COUNT {
            let message = format!(
                "the body has too many values, counted as at most {MAX_COUNT} with {OF_A_LIST} for each list or object: send fewer token ids or messages"
            );
            return Err(ApiError::body(message));
        }
        let invalid = |error| ApiError::body(format!("the body is not valid JSON: {error}; send one JSON object"));
        let all = match serde_json::from_slice(body).map_err(invalid)? {
            Value::Object(fields) => fields,
            other => return Err(ApiError::body(format!("the body is {}: send one JSON object", kind_of(&other)))),
        };
        let has_ordered = ["messages", "tools", "chat_template_kwargs"].iter().any(|name| all.contains_key(*name));
        let ordered = if has_ordered { serde_json::from_slice(body).map_err(invalid)? } else { Ordered::default() };
        Ok(Self { all, ordered })
    }

    pub(crate) fn messages(&self) -> Option<&Json> {
        self.ordered.messages.as_ref()
    }

    pub(crate) fn tools(&self) -> Option<&Json> {
        self.ordered.tools.as_ref()
    }

    pub(crate) fn chat_template_kwargs(&self) -> Option<&Json> {
        self.ordered.chat_template_kwargs.as_ref()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.all.get(name).filter(|value| !value.is_null())
    }

    /// # Errors
    /// 400 naming a field that is in none of these lists, unless it is one that changes nothing.
    pub(crate) fn refuse_others(&self, known: &[&[&str]]) -> Result<(), ApiError> {
        others::refuse(&self.all, known)
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let expected = |found| ApiError::field(name, format_args!("send a string, not {}", kind_of(found)));
        self.get(name).map(|value| value.as_str().ok_or_else(|| expected(value))).transpose()
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        let expected = |found| ApiError::field(name, format_args!("send true or false, not {}", kind_of(found)));
        self.get(name).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| expected(value)))
    }

    /// A whole number from `from` to `to`.
    pub(crate) fn integer(&self, name: &str, from: i64, to: i64) -> Result<Option<i64>, ApiError> {
        let expected = |found| {
            let (found, at_most) = (shown(found), if to == i64::MAX { String::new() } else { format!(" to {to}") });
            ApiError::field(name, format_args!("send a whole number from {from}{at_most}, not {found}"))
        };
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        value.as_i64().filter(|number| (from..=to).contains(number)).map(Some).ok_or_else(|| expected(value))
    }

    /// A number that `is_good`; `expected` says which ones are.
    pub(crate) fn number(
        &self,
        name: &str,
        expected: &str,
        is_good: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let wrong = || ApiError::field(name, format_args!("send {expected}, not {}", shown(value)));
        value.as_f64().filter(|number| is_good(*number)).map(Some).ok_or_else(wrong)
    }

    /// The model id, which every request has to name.
    pub(crate) fn model(&self) -> Result<String, ApiError> {
        let model = self.text("model")?.filter(|model| !model.is_empty());
        model
            .map(str::to_owned)
            .ok_or_else(|| ApiError::missing("model", "the id of a model that GET /v1/models lists"))
    }
}

/// What the values of JSON count for, before they take any memory. Text that is no JSON may count for anything.
fn count(json: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (0, false, false);
    for byte in json {
        match (byte, is_text) {
            (b'"', _) if !is_escaped => is_text = !is_text,
            (b',', false) => count += 1,
            (b'[' | b'{', false) => count += OF_A_LIST,
            _ => {}
        }
        is_escaped = is_text && *byte == b'\\' && !is_escaped;
    }
    count
}

/// Token ids as an array; `at` is the array's place in the body.
///
/// # Errors
/// 400 naming the first element that is none.
pub(crate) fn token_ids(at: &str, ids: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |(idx, value): (usize, &Value)| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            ApiError::field(&format!("{at}[{idx}]"), format_args!("send a token id, not {}", shown(value)))
        })
    };
    ids.iter().enumerate().map(id).collect()
}

/// What a value is, with its article.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value as an error shows it: numbers as they are, all else by its kind.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        other => kind_of(other).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_counted_before_they_take_memory() {
        let cases = [
            (r#"{}"#, OF_A_LIST),
            (r#"{"a": 1, "b": [1, 2, 3]}"#, 2 * OF_A_LIST + 3),
            (r#"{"a": "[,{\"[,"}"#, OF_A_LIST),
            (r#"["\\", [], "\\\"["]"#, 2 * OF_A_LIST + 2),
        ];
        for (json, expected) in cases {
            assert_eq!(count(json.as_bytes()), expected, "{json}");
        }
        for (value, n) in [("[]", 100_000), ("1", 600_000)] {
            let body = format!("{{\"prompt\": [{}]}}", vec![value; n].join(","));
            let error = Fields::parse(body.as_bytes()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, Some("invalid_body")), "{}", error.message);
        }
        assert!(
            Fields::parse(format!("[{}]", vec!["1"; 500_000].join(",")).as_bytes())
                .is_err_and(|error| error.message.contains("one JSON object"))
        );
    }
}
