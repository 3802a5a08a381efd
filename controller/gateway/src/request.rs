//! Request: the fields of a JSON body, each checked and named when it is wrong. Fields that nobody asks for are let be.
//! Pure.

mod generation;
mod sampling;

use serde_json::{Map, Value};

use crate::errors::ApiError;

pub(crate) use generation::{Generation, Limits, alternatives};

/// The fields of a body. A field that is `null` counts as absent, as in OpenAI's own clients.
#[derive(Clone, Debug)]
pub(crate) struct Fields(Map<String, Value>);

// === impl Fields ===

impl Fields {
    /// # Errors
    /// 400 when the bytes are no JSON object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(other) => Err(ApiError::body(format!("the body is {}: send one JSON object", kind_of(&other)))),
            Err(error) => Err(ApiError::body(format!("the body is not valid JSON: {error}; send one JSON object"))),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
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
