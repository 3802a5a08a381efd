//! Bodies: bytes of JSON or YAML become a value, with the fields that were given twice.

use std::fmt;

use http::{HeaderMap, header};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::failure::Failure;
use super::protobuf::{self, ProtobufError};

/// Bytes of one request's body, as Kubernetes bounds it.
pub const LIMIT: usize = 3 << 20;

/// A decoded body.
#[derive(Debug)]
pub struct Body {
    pub value: Value,
    /// Faults that are errors under strict validation, as in `duplicate field "spec.size"`.
    pub faults: Vec<String>,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

// === impl Encoding ===

impl Encoding {
    /// Of a body that is an object, by its content type; JSON when there is none.
    pub fn of_object(headers: &HeaderMap) -> Result<Encoding, Failure> {
        match media_type(headers) {
            "" | "application/json" => Ok(Encoding::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
            _ => Err(Failure::unsupported_media_type(&["application/json", "application/yaml"])),
        }
    }
}

/// The content type without its parameters; empty when there is none.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Decodes one document of JSON, or of YAML, of which JSON is a part.
pub fn decode(bytes: &[u8], encoding: Encoding) -> Result<Body, Failure> {
    let mut twice = Vec::new();
    let seed = Tree { path: String::new(), twice: &mut twice };
    let value = match encoding {
        Encoding::Json => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            let value = seed.deserialize(&mut deserializer);
            value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| error.to_string())
        }
        Encoding::Yaml => {
            seed.deserialize(serde_yaml::Deserializer::from_slice(bytes)).map_err(|error| error.to_string())
        }
        Encoding::Protobuf => {
            let value = protobuf::decode(bytes).map_err(|error| match error {
                ProtobufError::Unknown { .. } => {
                    Failure::unsupported_media_type(&["application/json", "application/yaml"])
                }
                error => Failure::bad_request(format!("the object provided is unrecognized: {error}")),
            })?;
            Ok(value)
        }
    };
    let value = value.map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))?;
    let faults = twice.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    Ok(Body { value, faults })
}

/// Builds a value as serde_json does, the last of equal fields staying, and notes paths given twice.
struct Tree<'a> {
    path: String,
    twice: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, array.len());
            match items.next_element_seed(Tree { path, twice: &mut *self.twice })? {
                Some(item) => array.push(item),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if map.contains_key(&key) {
                self.twice.push(path.clone());
            }
            let value = entries.next_value_seed(Tree { path, twice: &mut *self.twice })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_yaml_become_the_same_value() {
        let expected = json!({"a": {"b": [1, -2, 1.5, "x", true, null]}});
        let json = decode(br#"{"a":{"b":[1,-2,1.5,"x",true,null]}}"#, Encoding::Json).unwrap();
        let yaml = decode(b"a:\n  b: [1, -2, 1.5, x, true, null]\n", Encoding::Yaml).unwrap();
        assert_eq!(json.value, expected);
        assert_eq!(yaml.value, expected);
    }

    #[test]
    fn a_field_given_twice_is_named_and_its_last_value_stays() {
        let body = decode(br#"{"spec":{"list":[{"a":1,"a":2}],"b":1,"b":3}}"#, Encoding::Json).unwrap();
        assert_eq!(body.faults, ["duplicate field \"spec.list[0].a\"", "duplicate field \"spec.b\""]);
        assert_eq!(body.value["spec"]["b"], 3);
    }

    #[test]
    fn what_is_no_document_is_refused_with_its_place() {
        for (bytes, place) in [(&b"{\"a\":"[..], "line 1"), (b"{} {}", "trailing"), (b"", "EOF")] {
            let message = decode(bytes, Encoding::Json).unwrap_err().to_status()["message"].to_string();
            assert!(message.contains(place), "{message}");
        }
        let deep = "[".repeat(10_000);
        assert!(decode(deep.as_bytes(), Encoding::Json).is_err());
        assert!(decode(deep.as_bytes(), Encoding::Yaml).is_err());
        assert!(decode(b"a: [1\nb: 2", Encoding::Yaml).is_err());
    }
}
