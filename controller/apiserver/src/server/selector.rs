//! Selectors: which objects a list or a watch is about, by label and by field.

use std::str::FromStr;

use serde_json::Value;

use super::failure::Failure;
use super::path::lookup;
use crate::registry::Kind;

/// `a=b,c in (d,e),!f`: all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector(Vec<LabelTerm>);

#[derive(Clone, Debug, PartialEq)]
enum LabelTerm {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Greater(String, i64),
    Less(String, i64),
}

/// `metadata.name=a,spec.phone!=b`: all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector(Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

// === impl LabelSelector ===

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        self.0.iter().all(|term| match term {
            LabelTerm::Exists(key) => label(key).is_some(),
            LabelTerm::Absent(key) => label(key).is_none(),
            LabelTerm::In(key, values) => label(key).is_some_and(|label| values.iter().any(|value| value == label)),
            LabelTerm::NotIn(key, values) => label(key).is_none_or(|label| values.iter().all(|value| value != label)),
            LabelTerm::Greater(key, bound) => {
                label(key).and_then(|label| label.parse().ok()).is_some_and(|n: i64| n > *bound)
            }
            LabelTerm::Less(key, bound) => {
                label(key).and_then(|label| label.parse().ok()).is_some_and(|n: i64| n < *bound)
            }
        })
    }
}

impl FromStr for LabelSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |term: &str| format!("unable to parse requirement: {term:?} is not a label requirement");
        let mut terms = Vec::new();
        for term in split_outside_parentheses(text) {
            let term = term.trim();
            if term.is_empty() {
                continue;
            }
            if let Some(key) = term.strip_prefix('!') {
                terms.push(LabelTerm::Absent(key.trim().to_owned()));
            } else if let Some((head, values)) = term.split_once('(') {
                let values = values.strip_suffix(')').ok_or_else(|| wrong(term))?;
                let values = values.split(',').map(|value| value.trim().to_owned()).collect();
                let mut words = head.split_whitespace();
                let (Some(key), Some(operator), None) = (words.next(), words.next(), words.next()) else {
                    return Err(wrong(term));
                };
                match operator {
                    "in" => terms.push(LabelTerm::In(key.to_owned(), values)),
                    "notin" => terms.push(LabelTerm::NotIn(key.to_owned(), values)),
                    _ => return Err(wrong(term)),
                }
            } else if let Some((key, value)) = term.split_once("!=") {
                terms.push(LabelTerm::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()]));
            } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                terms.push(LabelTerm::In(key.trim().to_owned(), vec![value.trim().to_owned()]));
            } else if let Some((key, value)) = term.split_once('>') {
                let bound = value.trim().parse().map_err(|_| wrong(term))?;
                terms.push(LabelTerm::Greater(key.trim().to_owned(), bound));
            } else if let Some((key, value)) = term.split_once('<') {
                let bound = value.trim().parse().map_err(|_| wrong(term))?;
                terms.push(LabelTerm::Less(key.trim().to_owned(), bound));
            } else if term.contains(char::is_whitespace) {
                return Err(wrong(term));
            } else {
                terms.push(LabelTerm::Exists(term.to_owned()));
            }
        }
        Ok(LabelSelector(terms))
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

// === impl FieldSelector ===

impl FieldSelector {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same, for one object by its name.
    pub fn named(mut self, name: &str) -> Self {
        self.0.push(FieldTerm { path: "metadata.name".into(), value: name.to_owned(), equal: true });
        self
    }

    /// The one name that can match, if the selector says so.
    pub fn name(&self) -> Option<&str> {
        let term = self.0.iter().find(|term| term.equal && term.path == "metadata.name");
        term.map(|term| term.value.as_str())
    }

    /// Whether objects of `kind` can be selected by these fields.
    pub fn check(&self, kind: &Kind) -> Result<(), Failure> {
        for term in &self.0 {
            let path = term.path.as_str();
            let known = matches!(path, "metadata.name" | "metadata.namespace")
                || kind.selectable_fields.iter().any(|field| field.trim_start_matches('.') == path);
            if !known {
                let message = format!("field label not supported: {path}");
                return Err(Failure::bad_request(message));
            }
        }
        Ok(())
    }

    /// Whether the object, in its served form, has these fields. An absent field is the empty text.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|term| {
            let found = match lookup(object, &term.path) {
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_unescaped(text).iter().filter(|term| !term.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (path, value, true)
            } else {
                return Err(format!("invalid selector: {text:?}; can't understand {term:?}"));
            };
            terms.push(FieldTerm { path: path.trim().to_owned(), value: unescape(value), equal });
        }
        Ok(FieldSelector(terms))
    }
}

/// Commas in values are written `\,`.
fn split_unescaped(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match (escaped, c) {
            (false, ',') => parts.push(String::new()),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

fn unescape(value: &str) -> String {
    let (mut text, mut escaped) = (String::new(), false);
    for c in value.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_selected_by_every_operator() {
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "3"}}});
        let cases = [
            ("app=a", true),
            ("app==b", false),
            ("app!=b", true),
            ("other!=b", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app in (a, b),tier", true),
            ("app notin (a,b)", false),
            ("other notin (a)", true),
            ("tier>2", true),
            ("tier<3", false),
            ("app=a,tier in (4)", false),
            ("", true),
        ];
        for (selector, expected) in cases {
            assert_eq!(selector.parse::<LabelSelector>().unwrap().matches(&object), expected, "{selector}");
        }
        for wrong in ["a in b", "a within (b)", "a > b", "a b"] {
            assert!(wrong.parse::<LabelSelector>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_are_selected_with_escapes() {
        let object = json!({"metadata": {"name": "a,b"}, "spec": {"on": true}});
        for (selector, expected) in [
            (r"metadata.name=a\,b", true),
            ("metadata.name!=a", true),
            ("spec.on=true", true),
            ("spec.off=", true),
            ("spec.on==false", false),
        ] {
            assert_eq!(selector.parse::<FieldSelector>().unwrap().matches(&object), expected, "{selector}");
        }
        assert!("metadata.name".parse::<FieldSelector>().is_err());
    }
}
