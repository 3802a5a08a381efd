//! JSONPath as printer columns use it: `.spec.a`, `['a.b']`, `a\.b`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `..a`, `[?(@.type=="Ready")]`.

use std::cmp::Ordering;

use serde_json::Value;

/// Why a text is not a path that can be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "path {path:?} cannot be read at byte {at}: {found}; write it like .spec.replicas or .status.conditions[?(@.type==\"Ready\")].status"
)]
pub struct PathError {
    pub path: String,
    pub at: usize,
    pub found: String,
}

/// Everything in `value` that the path leads to, in order; nothing if a step is missing.
pub fn find<'a>(path: &str, value: &'a Value) -> Result<Vec<&'a Value>, PathError> {
    let steps = parse(path)?;
    Ok(follow(&steps, value))
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    /// The field at any depth.
    Anywhere(String),
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Vec<Step>,
    /// Without it, whatever has the left side passes.
    comparison: Option<(Operator, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

// === following ===

fn follow<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| next(step, value)).collect();
    }
    found
}

fn next<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), value) => value.get(name).into_iter().collect(),
        (Step::Index(index), Value::Array(items)) => {
            position(*index, items.len()).and_then(|index| items.get(index)).into_iter().collect()
        }
        (Step::Slice(from, to), Value::Array(items)) => {
            let bound = |index: i64| position(index, items.len()).unwrap_or(0).min(items.len());
            let (from, to) = (from.map_or(0, bound), to.map_or(items.len(), bound));
            items.get(from..to).into_iter().flatten().collect()
        }
        (Step::All, Value::Array(items)) => items.iter().collect(),
        (Step::All, Value::Object(fields)) => fields.values().collect(),
        (Step::Anywhere(name), value) => {
            let mut found = Vec::new();
            anywhere(name, value, &mut found);
            found
        }
        (Step::Filter(filter), Value::Array(items)) => items.iter().filter(|item| passes(filter, item)).collect(),
        _ => Vec::new(),
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        usize::try_from(index).ok()
    } else {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    }
}

fn anywhere<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    let children: Vec<&Value> = match value {
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields.values().collect()
        }
        Value::Array(items) => items.iter().collect(),
        _ => return,
    };
    for child in children {
        anywhere(name, child, found);
    }
}

fn passes(filter: &Filter, item: &Value) -> bool {
    let found = follow(&filter.left, item);
    let Some((operator, right)) = &filter.comparison else {
        return !found.is_empty();
    };
    found.first().is_some_and(|left| match operator {
        Operator::Equal => *left == right,
        Operator::NotEqual => *left != right,
        Operator::Less => order(left, right).is_some_and(Ordering::is_lt),
        Operator::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
        Operator::Greater => order(left, right).is_some_and(Ordering::is_gt),
        Operator::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
    })
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

// === reading ===

fn parse(path: &str) -> Result<Vec<Step>, PathError> {
    let inner = path.trim();
    let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
    let inner = inner.strip_prefix('$').unwrap_or(inner);
    let mut reader = Reader { whole: path, text: inner, at: 0 };
    let steps = reader.steps(|_| false)?;
    Ok(steps)
}

struct Reader<'t> {
    whole: &'t str,
    text: &'t str,
    at: usize,
}

// === impl Reader ===

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error<T>(&self, found: impl Into<String>) -> Result<T, PathError> {
        Err(PathError { path: self.whole.to_owned(), at: self.at, found: found.into() })
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Steps up to the end, or to a character that ends them.
    fn steps(&mut self, ends: impl Fn(char) -> bool) -> Result<Vec<Step>, PathError> {
        let mut steps = Vec::new();
        while let Some(next) = self.rest().chars().next() {
            if ends(next) {
                break;
            }
            if self.take("..") {
                steps.push(Step::Anywhere(self.name()?));
            } else if self.take(".") {
                if self.take("*") {
                    steps.push(Step::All);
                } else if !self.rest().is_empty() && !self.rest().starts_with('[') {
                    steps.push(Step::Field(self.name()?));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() {
                steps.push(Step::Field(self.name()?));
            } else {
                return self.error(format!("unexpected {next:?}"));
            }
        }
        Ok(steps)
    }

    /// A name, whose `\.` is a dot of the name itself.
    fn name(&mut self) -> Result<String, PathError> {
        let mut name = String::new();
        while let Some(next) = self.rest().chars().next() {
            if next == '\\' {
                self.at += 1;
                let Some(escaped) = self.rest().chars().next() else {
                    return self.error("a lone backslash");
                };
                name.push(escaped);
                self.at += escaped.len_utf8();
            } else if ".[]=!<>()'\"".contains(next) || next.is_whitespace() {
                break;
            } else {
                name.push(next);
                self.at += next.len_utf8();
            }
        }
        if name.is_empty() { self.error("no name") } else { Ok(name) }
    }

    /// What stands between `[` and `]`.
    fn bracket(&mut self) -> Result<Step, PathError> {
        self.skip_spaces();
        let step = if self.take("*") {
            Step::All
        } else if self.take("?(") {
            let filter = self.filter()?;
            if !self.take(")") {
                return self.error("a filter without its closing parenthesis");
            }
            Step::Filter(filter)
        } else if self.rest().starts_with(['\'', '"']) {
            Step::Field(self.quoted()?)
        } else {
            let from = self.integer()?;
            if self.take(":") {
                Step::Slice(from, self.integer()?)
            } else if let Some(index) = from {
                Step::Index(index)
            } else {
                return self.error("neither index, name nor filter");
            }
        };
        self.skip_spaces();
        if self.take("]") { Ok(step) } else { self.error("a bracket that is not closed") }
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        let length = self.rest().find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest().len());
        if length == 0 {
            return Ok(None);
        }
        let Ok(integer) = self.rest()[..length].parse() else {
            return self.error("no integer");
        };
        self.at += length;
        Ok(Some(integer))
    }

    fn quoted(&mut self) -> Result<String, PathError> {
        let Some(quote) = self.rest().chars().next() else {
            return self.error("no text");
        };
        self.at += quote.len_utf8();
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        while let Some((at, next)) = characters.next() {
            match next {
                '\\' => match characters.next() {
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                next if next == quote => {
                    self.at += at + quote.len_utf8();
                    return Ok(text);
                }
                next => text.push(next),
            }
        }
        self.error("a text that is not closed")
    }

    fn filter(&mut self) -> Result<Filter, PathError> {
        self.skip_spaces();
        if !self.take("@") {
            return self.error("a filter that does not begin with @");
        }
        let left = self.steps(|next| next == ')' || "=!<>".contains(next) || next.is_whitespace())?;
        self.skip_spaces();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        for (token, operator) in operators {
            if self.take(token) {
                let right = self.literal()?;
                return Ok(Filter { left, comparison: Some((operator, right)) });
            }
        }
        Ok(Filter { left, comparison: None })
    }

    fn literal(&mut self) -> Result<Value, PathError> {
        self.skip_spaces();
        let value = if self.rest().starts_with(['\'', '"']) {
            Value::from(self.quoted()?)
        } else {
            let length = self.rest().find([')', ' ']).unwrap_or(self.rest().len());
            let Ok(value) = serde_json::from_str(&self.rest()[..length]) else {
                return self.error("neither a text, a number, true nor false");
            };
            self.at += length;
            value
        };
        self.skip_spaces();
        Ok(value)
    }
}
