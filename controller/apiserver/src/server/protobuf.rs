//! Protobuf: the few messages that `kubectl` and Helm send in Kubernetes' own encoding, read into JSON.
//!
//! Field numbers are those of Kubernetes' `generated.proto` files; what is not listed here is skipped.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::lifetime::rfc3339;

/// Four bytes before every message: an envelope of `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";

/// Why bytes are not a message that can be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the message does not begin with the bytes of Kubernetes' envelope")]
    Envelope,
    #[error("the message ends early or has a part of wrong form, at byte {at} of its part")]
    Broken { at: usize },
    #[error("{kind} of {api_version} is not read in protobuf: send it as JSON")]
    Unknown { api_version: String, kind: String },
}

/// One field of a message: its number, its name in JSON, and how it is read.
type Field = (u64, &'static str, Sort);

#[derive(Clone, Copy)]
enum Sort {
    Text,
    Texts,
    Flag,
    Number,
    Time,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    MapOfTexts,
    /// In JSON each value is base64.
    MapOfBytes,
}

const OWNER: &[Field] = &[
    (1, "kind", Sort::Text),
    (3, "name", Sort::Text),
    (4, "uid", Sort::Text),
    (5, "apiVersion", Sort::Text),
    (6, "controller", Sort::Flag),
    (7, "blockOwnerDeletion", Sort::Flag),
];
const METADATA: &[Field] = &[
    (1, "name", Sort::Text),
    (2, "generateName", Sort::Text),
    (3, "namespace", Sort::Text),
    (5, "uid", Sort::Text),
    (6, "resourceVersion", Sort::Text),
    (7, "generation", Sort::Number),
    (8, "creationTimestamp", Sort::Time),
    (11, "labels", Sort::MapOfTexts),
    (12, "annotations", Sort::MapOfTexts),
    (13, "ownerReferences", Sort::Messages(OWNER)),
    (14, "finalizers", Sort::Texts),
];
const NAMESPACE: &[Field] =
    &[(1, "metadata", Sort::Message(METADATA)), (2, "spec", Sort::Message(&[(1, "finalizers", Sort::Texts)]))];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Sort::Message(METADATA)),
    (2, "data", Sort::MapOfTexts),
    (3, "binaryData", Sort::MapOfBytes),
    (4, "immutable", Sort::Flag),
];
const SECRET: &[Field] = &[
    (1, "metadata", Sort::Message(METADATA)),
    (2, "data", Sort::MapOfBytes),
    (3, "type", Sort::Text),
    (4, "stringData", Sort::MapOfTexts),
    (5, "immutable", Sort::Flag),
];
const DELETE_OPTIONS: &[Field] = &[
    (2, "preconditions", Sort::Message(&[(1, "uid", Sort::Text), (2, "resourceVersion", Sort::Text)])),
    (3, "orphanDependents", Sort::Flag),
    (4, "propagationPolicy", Sort::Text),
    (5, "dryRun", Sort::Texts),
];

const REVIEW: &[Field] = &[];
const RULES_REVIEW: &[Field] = &[(2, "spec", Sort::Message(&[(1, "namespace", Sort::Text)]))];
const ACCESS_REVIEW: &[Field] = &[(
    2,
    "spec",
    Sort::Message(&[
        (
            1,
            "resourceAttributes",
            Sort::Message(&[
                (1, "namespace", Sort::Text),
                (2, "verb", Sort::Text),
                (3, "group", Sort::Text),
                (4, "version", Sort::Text),
                (5, "resource", Sort::Text),
                (6, "subresource", Sort::Text),
                (7, "name", Sort::Text),
            ]),
        ),
        (2, "nonResourceAttributes", Sort::Message(&[(1, "path", Sort::Text), (2, "verb", Sort::Text)])),
    ]),
)];

/// Reads an enveloped message as the object that it would be in JSON.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    const ENVELOPE: &[Field] = &[(1, "type", Sort::Message(&[(1, "apiVersion", Sort::Text), (2, "kind", Sort::Text)]))];
    let envelope = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Envelope)?;
    let r#type = message(envelope, ENVELOPE)?["type"].take();
    let text = |field: &str| r#type[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let fields = match (api_version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        (_, "DeleteOptions") => DELETE_OPTIONS,
        (_, "SelfSubjectReview") => REVIEW,
        (_, "SelfSubjectAccessReview") => ACCESS_REVIEW,
        (_, "SelfSubjectRulesReview") => RULES_REVIEW,
        _ => return Err(ProtobufError::Unknown { api_version, kind }),
    };
    let mut raw: Option<&[u8]> = None;
    let mut reader = Reader { bytes: envelope, at: 0 };
    while let Some((number, part)) = reader.field()? {
        if let (2, Part::Bytes(bytes)) = (number, part) {
            raw = Some(bytes);
        }
    }
    let mut object = message(raw.ok_or(ProtobufError::Broken { at: envelope.len() })?, fields)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

fn message(bytes: &[u8], fields: &[Field]) -> Result<Value, ProtobufError> {
    let mut object = json!({});
    let mut reader = Reader { bytes, at: 0 };
    while let Some((number, part)) = reader.field()? {
        let Some((_, name, sort)) = fields.iter().find(|(field, ..)| *field == number) else {
            continue;
        };
        read(&mut object[*name], *sort, part).ok_or(ProtobufError::Broken { at: reader.at })??;
    }
    // What is empty was not given: the encoding has no other way to say so for a text.
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && value != "");
    }
    Ok(object)
}

/// Reads one part into its field; none when the part has another form than the field.
fn read(field: &mut Value, sort: Sort, part: Part) -> Option<Result<(), ProtobufError>> {
    let push = |field: &mut Value, item: Value| match field {
        Value::Array(items) => items.push(item),
        _ => *field = json!([item]),
    };
    match (sort, part) {
        (Sort::Text, Part::Bytes(bytes)) => *field = json!(std::str::from_utf8(bytes).ok()?),
        (Sort::Texts, Part::Bytes(bytes)) => push(field, json!(std::str::from_utf8(bytes).ok()?)),
        (Sort::Flag, Part::Number(number)) => *field = json!(number != 0),
        (Sort::Number, Part::Number(number)) => *field = json!(number as i64),
        (Sort::Time, Part::Bytes(bytes)) => {
            let seconds = match message(bytes, &[(1, "seconds", Sort::Number)]) {
                Ok(time) => time["seconds"].as_i64().unwrap_or_default(),
                Err(error) => return Some(Err(error)),
            };
            *field = json!(rfc3339(Timestamp::from_second(seconds).ok()?));
        }
        (Sort::Message(fields), Part::Bytes(bytes)) => match message(bytes, fields) {
            Ok(inner) => *field = inner,
            Err(error) => return Some(Err(error)),
        },
        (Sort::Messages(fields), Part::Bytes(bytes)) => match message(bytes, fields) {
            Ok(inner) => push(field, inner),
            Err(error) => return Some(Err(error)),
        },
        (Sort::MapOfTexts | Sort::MapOfBytes, Part::Bytes(bytes)) => {
            let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
            let mut reader = Reader { bytes, at: 0 };
            loop {
                match reader.field() {
                    Ok(Some((1, Part::Bytes(bytes)))) => key = bytes,
                    Ok(Some((2, Part::Bytes(bytes)))) => value = bytes,
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return Some(Err(error)),
                }
            }
            let value = match sort {
                Sort::MapOfBytes => json!(BASE64_STANDARD.encode(value)),
                _ => json!(std::str::from_utf8(value).ok()?),
            };
            field[std::str::from_utf8(key).ok()?] = value;
        }
        _ => return None,
    }
    Some(Ok(()))
}

/// The content of one field on the wire.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The next field's number and content; none at the end.
    fn field(&mut self) -> Result<Option<(u64, Part<'a>)>, ProtobufError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.number()?;
        let part = match tag & 7 {
            0 => Part::Number(self.number()?),
            1 => Part::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| self.broken())?;
                Part::Bytes(self.take(length)?)
            }
            5 => Part::Bytes(self.take(4)?),
            _ => return Err(self.broken()),
        };
        Ok(Some((tag >> 3, part)))
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.broken())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.broken())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn broken(&self) -> ProtobufError {
        ProtobufError::Broken { at: self.at }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let r#type = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &r#type), field(2, raw)].concat()
    }

    fn secret() -> Vec<u8> {
        let label = [field(1, b"l"), field(2, b"m")].concat();
        let created = field(8, &[]);
        let metadata = [field(1, b"s"), field(3, b""), created, field(11, &label), vec![7 << 3, 2]].concat();
        let entry = [field(1, b"k"), field(2, &[0xff, 0])].concat();
        let raw = [field(1, &metadata), field(2, &entry), field(3, b"Opaque"), vec![5 << 3, 1]].concat();
        enveloped("v1", "Secret", &raw)
    }

    #[test]
    fn a_secret_is_read_as_its_json() {
        let expected = json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"k": "/wA="}, "type": "Opaque", "immutable": true,
            "metadata": {"name": "s", "labels": {"l": "m"}, "generation": 2, "creationTimestamp": "1970-01-01T00:00:00Z"},
        });
        assert_eq!(decode(&secret()).unwrap(), expected);
    }

    #[test]
    fn a_review_is_read_with_what_it_asks() {
        let attributes = [field(2, b"delete"), field(3, b"polyphony.dev"), field(5, b"phones")].concat();
        let review = enveloped(
            "authorization.k8s.io/v1",
            "SelfSubjectAccessReview",
            &[field(1, &[]), field(2, &field(1, &attributes))].concat(),
        );
        let asked = &decode(&review).unwrap()["spec"]["resourceAttributes"];
        assert_eq!(*asked, json!({"verb": "delete", "group": "polyphony.dev", "resource": "phones"}));
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused_and_never_panics() {
        let whole = secret();
        assert_eq!(decode(b"{}"), Err(ProtobufError::Envelope));
        for end in 4..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 4..whole.len() {
            for byte in [0, 0x7f, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = decode(&damaged);
            }
        }
        let pod = decode(&enveloped("v1", "Pod", &[])).unwrap_err();
        assert!(pod.to_string().contains("send it as JSON"));
    }
}
