//! Field selectors: `metadata.name=a,spec.phone!=b`, read as Kubernetes reads them.

use std::str::FromStr;

use serde_json::Value;

/// What some fields of an object have to be; all terms hold, and none is no restriction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
struct Term {
    path: String,
    value: String,
    equal: bool,
}

/// Why a text is no field selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    NoOperator { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {sequence}")]
    Escape { sequence: String },
    /// Kubernetes tells the character by its number.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.character))]
    Unescaped { character: char },
}

// === impl FieldSelector ===

impl FieldSelector {
    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it selects every object.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The same, for one object by its name.
    pub fn named(mut self, name: &str) -> Self {
        self.terms.push(Term { path: "metadata.name".into(), value: name.to_owned(), equal: true });
        self
    }

    /// The one name that can match, if the selector says so.
    pub fn name(&self) -> Option<&str> {
        let term = self.terms.iter().find(|term| term.equal && term.path == "metadata.name");
        term.map(|term| term.value.as_str())
    }

    /// The fields that it asks for, dotted and without a leading dot.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.path.as_str())
    }

    /// Whether the object, in its served form, has these fields. An absent field is the empty text.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found = match term.path.split('.').try_fold(object, |value, field| value.get(field)) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                // The name by which core/v1 knows the component of `source`.
                Some(Value::Object(fields)) => {
                    fields.get("component").and_then(Value::as_str).unwrap_or_default().to_owned()
                }
                Some(other) => other.to_string(),
            };
            (found == term.value) == term.equal
        })
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        let mut terms = Vec::new();
        for term in split_unescaped(text).into_iter().filter(|term| !term.is_empty()) {
            let operator = term.char_indices().find_map(|(at, _)| {
                let operator = ["!=", "==", "="].into_iter().find(|operator| term[at..].starts_with(operator))?;
                Some((at, operator))
            });
            let Some((at, operator)) = operator else {
                return Err(FieldSelectorError::NoOperator { selector: text.to_owned(), term: term.to_owned() });
            };
            terms.push(Term {
                path: term[..at].to_owned(),
                value: unescape(&term[at + operator.len()..])?,
                equal: operator != "!=",
            });
        }
        Ok(FieldSelector { text: text.to_owned(), terms })
    }
}

/// Commas in values are written `\,`.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == ',' && !escaped {
            parts.push(&text[start..at]);
            start = at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// `\\`, `\,` and `\=` are the characters themselves, which may not stand alone.
fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('\\' | ',' | '=')) => text.push(c),
                other => {
                    let sequence = ['\\'].into_iter().chain(other).collect();
                    return Err(FieldSelectorError::Escape { sequence });
                }
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped { character: c }),
            c => text.push(c),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_selected_with_escapes() {
        let object = json!({"metadata": {"name": "a,b"}, "spec": {"on": true, "sum": "a=\\"}});
        for (selector, expected) in [
            (r"metadata.name=a\,b", true),
            ("metadata.name!=a", true),
            ("spec.on=true", true),
            ("spec.off=", true),
            ("spec.on==false", false),
            (r"spec.sum=a\=\\", true),
            (r"metadata.name=a\,b,spec.on!=true", false),
            ("", true),
            (",", true),
        ] {
            assert_eq!(selector.parse::<FieldSelector>().unwrap().matches(&object), expected, "{selector}");
        }
        assert!(",".parse::<FieldSelector>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_field_selector_is_refused_in_kubernetes_words() {
        for (selector, expected) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("a=b,!!!!", "invalid selector: 'a=b,!!!!'; can't understand '!!!!'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a===c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(selector.parse::<FieldSelector>().unwrap_err().to_string(), expected, "{selector}");
        }
    }
}
