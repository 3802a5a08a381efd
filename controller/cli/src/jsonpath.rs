//! JSONPath in kubectl's dialect, as far as conditions and columns need it: fields, indices, `[*]` and equality filters.
//! It has no scripts, no slices and no recursive descent, and says so.

use std::str::FromStr;

use serde_json::Value;

/// A path to values of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative ones count from the end.
    Index(i64),
    All,
    /// Elements whose value at the path equals (or does not equal) the literal; without a literal, those that have one.
    Filter {
        path: JsonPath,
        test: Option<(bool, Value)>,
    },
}

/// Text with paths in braces, as `-o jsonpath=` takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(JsonPath),
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("jsonpath {text:?}, at {rest:?}: {expected}, such as {{.status.conditions[?(@.type==\"Ready\")].status}}")]
pub struct JsonPathError {
    text: String,
    rest: String,
    expected: &'static str,
}

// === impl JsonPath ===

impl JsonPath {
    /// Every value that the path leads to in `root`.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found
    }
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    /// `{.a.b}`, `.a.b` and `a.b` mean the same, as in kubectl.
    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text).trim();
        let inner = inner.strip_prefix('$').unwrap_or(inner);
        let mut reader = Reader { text, rest: inner };
        let path = reader.path(true)?;
        if reader.rest.is_empty() {
            Ok(path)
        } else {
            Err(reader.error("a field (.name) or an element ([0], [*], [?(…)]) was expected"))
        }
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect(),
            (Step::Index(index), Value::Array(elements)) => {
                let index = if *index < 0 { index + elements.len() as i64 } else { *index };
                usize::try_from(index).ok().and_then(|index| elements.get(index)).into_iter().collect()
            }
            (Step::All, Value::Array(elements)) => elements.iter().collect(),
            (Step::All, Value::Object(fields)) => fields.values().collect(),
            (Step::Filter { path, test }, Value::Array(elements)) => {
                let holds = |element: &&Value| match (path.find(element).first(), test) {
                    (Some(found), Some((equal, literal))) => (*found == literal) == *equal,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                elements.iter().filter(holds).collect()
            }
            _ => Vec::new(),
        }
    }
}

// === impl Template ===

impl Template {
    /// The template's text for `root`; several values of one path are separated by spaces.
    pub fn render(&self, root: &Value) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Path(path) => {
                    text.push_str(&path.find(root).into_iter().map(value_text).collect::<Vec<_>>().join(" "))
                }
            }
        }
        text
    }
}

impl FromStr for Template {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        if !text.contains('{') {
            return Ok(Self { parts: vec![Part::Path(text.parse()?)] });
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let fault = |expected| JsonPathError { text: text.to_owned(), rest: rest[start..].to_owned(), expected };
            let end = start + rest[start..].find('}').ok_or_else(|| fault("a closing brace was expected"))?;
            let inner = rest[start + 1..end].trim();
            if inner.starts_with("range") || inner == "end" {
                return Err(fault("a path was expected (range is not supported; use [*])"));
            }
            match inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
                Some(literal) => parts.push(Part::Text(literal.replace("\\n", "\n").replace("\\t", "\t"))),
                None => parts.push(Part::Path(inner.parse()?)),
            }
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }
}

/// A value as text: strings bare, everything else as JSON.
pub fn value_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn error(&self, expected: &'static str) -> JsonPathError {
        JsonPathError { text: self.text.to_owned(), rest: self.rest.to_owned(), expected }
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Steps for as long as there are any; `bare` allows the first field to lack its dot.
    fn path(&mut self, bare: bool) -> Result<JsonPath, JsonPathError> {
        let mut steps = Vec::new();
        let mut bare = bare && !self.rest.is_empty() && !self.rest.starts_with(['.', '[']);
        loop {
            if self.rest.starts_with("..") {
                return Err(self.error("recursive descent is not supported; a field (.name) was expected"));
            }
            if bare || self.eat(".") {
                bare = false;
                if self.eat("*") {
                    steps.push(Step::All);
                } else if !(self.rest.is_empty() && steps.is_empty()) {
                    steps.push(Step::Field(self.field()?));
                }
            } else if self.eat("[") {
                steps.push(self.element()?);
            } else {
                return Ok(JsonPath { steps });
            }
        }
    }

    /// A name up to the next `.`, `[` or operator; a backslash escapes the dots of label names.
    fn field(&mut self) -> Result<String, JsonPathError> {
        let mut name = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
                '.' | '[' | ']' | ')' | '=' | '!' | ' ' | '{' | '}' => {
                    end = at;
                    break;
                }
                character => name.push(character),
            }
        }
        if name.is_empty() {
            return Err(self.error("the name of a field was expected"));
        }
        self.rest = &self.rest[end..];
        Ok(name)
    }

    fn element(&mut self) -> Result<Step, JsonPathError> {
        let step = if self.eat("*") {
            Step::All
        } else if self.eat("?(") {
            self.filter()?
        } else if self.rest.starts_with(['\'', '"']) {
            match self.literal()? {
                Value::String(name) => Step::Field(name),
                _ => return Err(self.error("a quoted name was expected")),
            }
        } else {
            let end = self.rest.find(']').unwrap_or(self.rest.len());
            let index = self.rest[..end]
                .trim()
                .parse()
                .map_err(|_| self.error("an index, *, a quoted name or a filter was expected"))?;
            self.rest = &self.rest[end..];
            Step::Index(index)
        };
        if self.eat("]") { Ok(step) } else { Err(self.error("a closing bracket was expected")) }
    }

    fn filter(&mut self) -> Result<Step, JsonPathError> {
        self.rest = self.rest.trim_start();
        if !self.eat("@") {
            return Err(self.error("a filter on the element (@) was expected"));
        }
        let path = self.path(false)?;
        self.rest = self.rest.trim_start();
        let equal = if self.eat("==") {
            Some(true)
        } else if self.eat("!=") {
            Some(false)
        } else {
            None
        };
        let test = match equal {
            Some(equal) => {
                self.rest = self.rest.trim_start();
                Some((equal, self.literal()?))
            }
            None => None,
        };
        self.rest = self.rest.trim_start();
        if self.eat(")") {
            Ok(Step::Filter { path, test })
        } else {
            Err(self.error("==, != or a closing parenthesis was expected"))
        }
    }

    /// A quoted text, a number, true or false.
    fn literal(&mut self) -> Result<Value, JsonPathError> {
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let inner = &self.rest[1..];
            let end = inner.find(quote).ok_or_else(|| self.error("a closing quote was expected"))?;
            self.rest = &inner[end + 1..];
            return Ok(Value::String(inner[..end].to_owned()));
        }
        let end = self.rest.find([')', ' ', ']']).unwrap_or(self.rest.len());
        let value = serde_json::from_str(&self.rest[..end])
            .map_err(|_| self.error("a quoted text, a number, true or false was expected"))?;
        self.rest = &self.rest[end..];
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectl_says() {
        let object = json!({"a": {"b": [1, 2, 3]}, "labels": {"app.io/x": "y"},
            "c": [{"type": "Ready", "status": "True", "n": 1}, {"type": "Old", "status": "False"}]});
        for (path, expected) in [
            ("{.a.b[1]}", json!([2])),
            (".a.b[-1]", json!([3])),
            ("a.b[*]", json!([1, 2, 3])),
            ("{$.c[?(@.type==\"Ready\")].status}", json!(["True"])),
            ("{.c[?(@.type != 'Ready')].status}", json!(["False"])),
            ("{.c[?(@.n==1)].type}", json!(["Ready"])),
            ("{.c[?(@.n)].type}", json!(["Ready"])),
            ("{.labels.app\\.io/x}", json!(["y"])),
            ("{.labels['app.io/x']}", json!(["y"])),
            ("{.a.missing.deep}", json!([])),
            ("{.a.b[9]}", json!([])),
        ] {
            let path: JsonPath = path.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(json!(path.find(&object)), expected, "{path:?}");
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused_with_its_place() {
        for path in [
            "{.a[}",
            "{.a[x]}",
            "{..a}",
            "{.a[?(@.b=1)]}",
            "{.a[?(@.b=='x]}",
            "{.a.}",
            "{.a b}",
            "{.a[0}",
            "{.a[?(b)]}",
        ] {
            assert!(path.parse::<JsonPath>().is_err(), "{path}");
        }
        assert!("{range .a}{end}".parse::<Template>().unwrap_err().to_string().contains("range is not supported"));
    }

    #[test]
    fn a_template_mixes_text_and_paths() {
        let template: Template = "{.a}/{.b[*]}{\"\\n\"}".parse().unwrap();
        assert_eq!(template.render(&json!({"a": "x", "b": [1, "two"]})), "x/1 two\n");
    }
}
