//! Label selectors: `a=b,c in (d,e),!f,g>3`, read as Kubernetes reads them.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::Value;

use crate::name;
use crate::token::{Token, tokens};

/// What the labels of an object have to be; all requirements hold, and none is no restriction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Exists,
    Absent,
    In(BTreeSet<String>),
    /// An object without the label is no exception.
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    #[error("found '{found}', expected: {expected}")]
    Unexpected { found: String, expected: &'static str },
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Requirement { found: String, expected: &'static str },
    /// Here Kubernetes leaves the comma out.
    #[error("unable to parse requirement: found '{found}' expected: '('")]
    NoValues { found: String },
    #[error("unable to parse requirement: <nil>: Invalid value: {key:?}: {fault}")]
    Key { key: String, fault: String },
    #[error("unable to parse requirement: {}", aggregate(.faults))]
    Values { faults: Vec<String> },
}

/// Several faults in brackets, as Kubernetes joins errors.
fn aggregate(faults: &[String]) -> String {
    match faults {
        [fault] => fault.clone(),
        faults => format!("[{}]", faults.join(", ")),
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    /// The text that it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it selects every object.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.requirements.iter().all(|requirement| {
            let label = labels.get(&requirement.key).and_then(Value::as_str);
            requirement.condition.holds(label)
        })
    }
}

impl Condition {
    fn holds(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match self {
            Condition::Exists => label.is_some(),
            Condition::Absent => label.is_none(),
            Condition::In(values) => label.is_some_and(|label| values.contains(label)),
            Condition::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
            Condition::Greater(bound) => number().is_some_and(|number| number > *bound),
            Condition::Less(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        let mut reader = Reader { tokens: tokens(text).into_iter().peekable() };
        let mut requirements = Vec::new();
        let mut expected = "!, identifier, or 'end of string'";
        if *reader.peek() == Token::End {
            return Ok(LabelSelector { text: text.to_owned(), requirements });
        }
        loop {
            if !matches!(reader.peek(), Token::Word(_) | Token::Bang) {
                return Err(LabelSelectorError::Unexpected { found: reader.next().to_string(), expected });
            }
            requirements.push(reader.requirement()?);
            match reader.next() {
                Token::End => return Ok(LabelSelector { text: text.to_owned(), requirements }),
                Token::Comma => expected = "identifier after ','",
                other => {
                    let expected = "',' or 'end of string'";
                    return Err(LabelSelectorError::Unexpected { found: other.to_string(), expected });
                }
            }
        }
    }
}

struct Reader {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

// === impl Reader ===

impl Reader {
    fn peek(&mut self) -> &Token {
        self.tokens.peek().unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let absent = *self.peek() == Token::Bang;
        if absent {
            self.next();
        }
        let key = self.word("identifier")?;
        let faults = name::key_faults(&key);
        if !faults.is_empty() {
            return Err(LabelSelectorError::Key { key, fault: faults.join("; ") });
        }
        let ends = matches!(self.peek(), Token::End | Token::Comma);
        let condition = match (absent, ends) {
            (true, _) => Condition::Absent,
            (false, true) => Condition::Exists,
            (false, false) => self.comparison(&key)?,
        };
        Ok(Requirement { key, condition })
    }

    fn comparison(&mut self, key: &str) -> Result<Condition, LabelSelectorError> {
        let operator = self.next();
        let mut faults = Vec::new();
        let condition = match &operator {
            Token::Word(word) if word == "in" => Condition::In(self.values(key, &mut faults)?),
            Token::Word(word) if word == "notin" => Condition::NotIn(self.values(key, &mut faults)?),
            Token::Equal | Token::DoubleEqual => Condition::In([self.value(key, &mut faults)?].into()),
            Token::NotEqual => Condition::NotIn([self.value(key, &mut faults)?].into()),
            Token::Greater => Condition::Greater(self.number(key, &mut faults)?),
            Token::Less => Condition::Less(self.number(key, &mut faults)?),
            other => {
                let expected = "in, notin, =, ==, !=, gt, lt";
                return Err(LabelSelectorError::Requirement { found: other.to_string(), expected });
            }
        };
        if faults.is_empty() { Ok(condition) } else { Err(LabelSelectorError::Values { faults }) }
    }

    /// What stands between parentheses; nothing at all is the one empty value.
    fn values(&mut self, key: &str, faults: &mut Vec<String>) -> Result<BTreeSet<String>, LabelSelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(LabelSelectorError::NoValues { found: other.to_string() }),
        }
        if !matches!(self.peek(), Token::Word(_) | Token::Comma | Token::Close) {
            let found = self.next().to_string();
            return Err(LabelSelectorError::Requirement { found, expected: "',', ')' or identifier" });
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Comma | Token::Close => String::new(),
                _ => self.word("',', or identifier")?,
            };
            values.insert(value);
            match self.next() {
                Token::Comma => {}
                Token::Close => break,
                other => {
                    let found = other.to_string();
                    return Err(LabelSelectorError::Requirement { found, expected: "',' or ')'" });
                }
            }
        }
        for (i, value) in values.iter().enumerate() {
            check_value(key, i, value, faults);
        }
        Ok(values)
    }

    /// One value; none is the empty one.
    fn value(&mut self, key: &str, faults: &mut Vec<String>) -> Result<String, LabelSelectorError> {
        let value = match self.peek() {
            Token::End | Token::Comma => String::new(),
            _ => self.word("identifier")?,
        };
        check_value(key, 0, &value, faults);
        Ok(value)
    }

    fn number(&mut self, key: &str, faults: &mut Vec<String>) -> Result<i64, LabelSelectorError> {
        let mut of_value = Vec::new();
        let value = self.value(key, &mut of_value)?;
        let number = value.parse();
        if number.is_err() {
            let fault = "for 'Gt', 'Lt' operators, the value must be an integer";
            faults.push(format!("values[0]: Invalid value: {value:?}: {fault}"));
        }
        faults.extend(of_value);
        Ok(number.unwrap_or_default())
    }

    fn word(&mut self, expected: &'static str) -> Result<String, LabelSelectorError> {
        match self.next() {
            Token::Word(word) => Ok(word),
            other => Err(LabelSelectorError::Requirement { found: other.to_string(), expected }),
        }
    }
}

fn check_value(key: &str, i: usize, value: &str, faults: &mut Vec<String>) {
    let of_value = name::value_faults(value);
    if !of_value.is_empty() {
        faults.push(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", of_value.join("; ")));
    }
}

#[cfg(test)]
mod tests;
