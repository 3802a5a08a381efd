//! Config: the fields of a `config.json`, each of the type that is asked for. Knows no field by name.

use serde_json::{Map, Value};

/// The fields of an object, with the names of the objects that it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config<'a> {
    within: &'a str,
    fields: &'a Map<String, Value>,
}

/// Why a configuration gives no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("it is no JSON object: {0}; fetch it again")]
    Json(String),
    #[error("`{field}` is missing; fetch the file again")]
    Missing { field: String },
    #[error("`{field}` is {found}, but {expected} is expected; fetch the file again")]
    Type { field: String, found: String, expected: &'static str },
    #[error("`{field}` is {found}, which is not supported; {why}")]
    Unsupported { field: String, found: String, why: String },
}

/// The fields of a file, owned.
#[derive(Debug, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct ConfigFile(Map<String, Value>);

/// A configuration has some thousand bytes; what one parses to may be thirty times as large.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;

// === impl ConfigFile ===

impl ConfigFile {
    pub(super) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        serde_json::from_slice(json).map_err(|error| ConfigError::Json(error.to_string()))
    }

    pub(super) fn fields(&self) -> Config<'_> {
        Config { within: "", fields: &self.0 }
    }
}

// === impl Config ===

impl<'a> Config<'a> {
    /// The value of a field; one that is null is not there.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn u32(&self, field: &str) -> Result<Option<u32>, ConfigError> {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        self.typed(field, "an integer from 0 to 4294967295", number)
    }

    /// A finite number.
    pub(super) fn f64(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        self.typed(field, "a finite number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// A number above 0 that an f32 can be near to: neither 0 nor infinite there.
    pub(super) fn positive(&self, field: &str) -> Result<Option<f32>, ConfigError> {
        let positive =
            |value: &Value| value.as_f64().map(|number| number as f32).filter(|it| *it > 0.0 && it.is_finite());
        self.typed(field, "a number above 0, within what 32 bits hold", positive)
    }

    pub(super) fn bool(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(field, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, ConfigError> {
        self.typed(field, "a string", Value::as_str)
    }

    /// An array of finite numbers.
    pub(super) fn f64s(&self, field: &str) -> Result<Option<Vec<f64>>, ConfigError> {
        self.typed(field, "an array of finite numbers", |value| {
            value.as_array()?.iter().map(|item| item.as_f64().filter(|number| number.is_finite())).collect()
        })
    }

    /// One integer, or an array of them.
    pub(super) fn u32s(&self, field: &str) -> Result<Vec<u32>, ConfigError> {
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let found = self.typed(field, "an integer from 0 to 4294967295, or an array of them", |value| match value {
            Value::Array(items) => items.iter().map(number).collect(),
            _ => number(value).map(|number| vec![number]),
        })?;
        Ok(found.unwrap_or_default())
    }

    /// The fields of an object in a field.
    pub(super) fn within(&self, field: &'a str) -> Result<Option<Config<'a>>, ConfigError> {
        let fields = self.typed(field, "an object", Value::as_object)?;
        Ok(fields.map(|fields| Config { within: field, fields }))
    }

    /// A field's name, with those of the objects that it lies in.
    pub(super) fn path(&self, field: &str) -> String {
        if self.within.is_empty() { field.to_owned() } else { format!("{}.{field}", self.within) }
    }

    pub(super) fn unsupported(&self, field: &str, why: impl Into<String>) -> ConfigError {
        let found = self.get(field).map_or_else(|| "missing".to_owned(), shown);
        ConfigError::Unsupported { field: self.path(field), found, why: why.into() }
    }

    pub(super) fn required<T>(&self, field: &str, found: Option<T>) -> Result<T, ConfigError> {
        found.ok_or_else(|| ConfigError::Missing { field: self.path(field) })
    }

    fn typed<T>(
        &self,
        field: &str,
        expected: &'static str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match pick(value) {
            Some(picked) => Ok(Some(picked)),
            None => Err(ConfigError::Type { field: self.path(field), found: shown(value), expected }),
        }
    }
}

/// A value as a message has it.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        _ => value.to_string().chars().take(80).collect(),
    }
}
