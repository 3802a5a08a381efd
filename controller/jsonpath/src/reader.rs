//! Reading: a text becomes steps, one byte after the other and never twice.

use std::str::FromStr;

use serde_json::Value;

use crate::fault::{Fault, JsonPathError, MAX_DEPTH, MAX_STEPS};
use crate::path::{Filter, Operand, Operator, Path, Step};

const OPERATORS: [(&str, Operator); 6] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

// === impl Path ===

impl FromStr for Path {
    type Err = JsonPathError;

    /// `{.a.b}`, `{$.a.b}`, `.a.b` and `a.b` mean the same.
    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let mut reader = Reader::new(text);
        reader.skip_spaces();
        let braced = reader.take("{");
        let path = reader.path()?;
        reader.skip_spaces();
        if braced && !reader.take("}") {
            return Err(reader.error(if reader.is_at_end() { Fault::OpenBrace } else { Fault::NoStep }));
        }
        reader.skip_spaces();
        if reader.is_at_end() { Ok(path) } else { Err(reader.error(Fault::NoStep)) }
    }
}

pub(crate) struct Reader<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

// === impl Reader ===

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Reader { text, at: 0, depth: 0 }
    }

    pub(crate) fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    pub(crate) fn error(&self, fault: Fault) -> JsonPathError {
        JsonPathError { text: self.text.to_owned(), at: self.at, fault }
    }

    pub(crate) fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    /// The next `length` bytes, which have to end between two characters.
    pub(crate) fn advance(&mut self, length: usize) -> &'t str {
        let (taken, _) = self.rest().split_at(length);
        self.at += length;
        taken
    }

    pub(crate) fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Runs `read` one level deeper.
    pub(crate) fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, JsonPathError>,
    ) -> Result<T, JsonPathError> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(Fault::TooLong));
        }
        self.depth += 1;
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    /// A path that may lack its `$` and its first dot.
    pub(crate) fn path(&mut self) -> Result<Path, JsonPathError> {
        self.skip_spaces();
        let rooted = self.take("$") || self.take("@");
        let bare = !rooted && !self.rest().starts_with(['.', '[', '}']) && !self.is_at_end();
        let first = if bare { Some(Step::Field(self.name(false)?)) } else { None };
        self.steps(first, false)
    }

    /// Steps for as long as there are any.
    fn steps(&mut self, first: Option<Step>, in_filter: bool) -> Result<Path, JsonPathError> {
        let mut steps: Vec<Step> = first.into_iter().collect();
        loop {
            if steps.len() > MAX_STEPS {
                return Err(self.error(Fault::TooLong));
            }
            if !in_filter && self.rest().trim_start().starts_with(['.', '[']) {
                self.skip_spaces();
            }
            if self.take("..") {
                if self.rest().starts_with('*') {
                    return Err(self.error(Fault::NoName));
                }
                steps.push(Step::Descend);
                if !self.rest().starts_with('[') {
                    steps.push(Step::Field(self.name(in_filter)?));
                }
            } else if self.take(".") {
                // A lone dot is the value itself, and `.[0]` is `[0]`.
                let ends = steps.is_empty() && (self.is_at_end() || self.rest().starts_with('}'));
                if self.take("*") {
                    steps.push(Step::All);
                } else if !ends && !self.rest().starts_with('[') {
                    steps.push(Step::Field(self.name(in_filter)?));
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(Path { steps });
            }
        }
    }

    /// A name, whose `\.` is a dot of the name itself.
    fn name(&mut self, in_filter: bool) -> Result<String, JsonPathError> {
        let mut name = String::new();
        while let Some(next) = self.rest().chars().next() {
            let ends = ".,[]{}$@\"'".contains(next) || next.is_whitespace() || (in_filter && "=!<>()".contains(next));
            if ends {
                break;
            }
            self.at += next.len_utf8();
            match next {
                '\\' => name.push(self.escaped()?),
                next => name.push(next),
            }
        }
        if name.is_empty() { Err(self.error(Fault::NoName)) } else { Ok(name) }
    }

    fn escaped(&mut self) -> Result<char, JsonPathError> {
        let Some(escaped) = self.rest().chars().next() else {
            return Err(self.error(Fault::NoName));
        };
        self.at += escaped.len_utf8();
        Ok(escaped)
    }

    /// What stands between `[` and `]`.
    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        let mut members = Vec::new();
        loop {
            self.skip_spaces();
            members.push(self.element()?);
            self.skip_spaces();
            if members.len() > MAX_STEPS {
                return Err(self.error(Fault::TooLong));
            }
            if !self.take(",") {
                break;
            }
        }
        if !self.take("]") {
            return Err(self.error(Fault::OpenBracket));
        }
        match members.pop() {
            Some(only) if members.is_empty() => Ok(only),
            last => {
                members.extend(last);
                Ok(Step::Union(members))
            }
        }
    }

    fn element(&mut self) -> Result<Step, JsonPathError> {
        if self.take("*") {
            return Ok(Step::All);
        }
        if self.take("?(") {
            return self.deeper(Self::filter).map(Step::Filter);
        }
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Step::Field(self.quoted()?));
        }
        let from = self.integer()?;
        if self.take(":") {
            let to = self.integer()?;
            let stride = if self.take(":") { self.integer()?.unwrap_or(1) } else { 1 };
            return match usize::try_from(stride) {
                Ok(stride) if stride > 0 => Ok(Step::Slice { from, to, stride }),
                _ => Err(self.error(Fault::NoStride)),
            };
        }
        from.map(Step::Index).ok_or_else(|| self.error(Fault::NoElement))
    }

    fn integer(&mut self) -> Result<Option<i64>, JsonPathError> {
        let length = self.rest().find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest().len());
        if length == 0 {
            return Ok(None);
        }
        let Ok(integer) = self.rest()[..length].parse() else {
            return Err(self.error(Fault::NoNumber));
        };
        self.at += length;
        Ok(Some(integer))
    }

    /// A text in the quotes that it begins with; `\n`, `\t` and `\r` are what they are elsewhere.
    pub(crate) fn quoted(&mut self) -> Result<String, JsonPathError> {
        let start = self.at;
        let Some(quote) = self.rest().chars().next() else {
            return Err(self.error(Fault::OpenQuote));
        };
        self.at += quote.len_utf8();
        let mut text = String::new();
        while let Some(next) = self.rest().chars().next() {
            self.at += next.len_utf8();
            match next {
                '\\' if self.is_at_end() => break,
                '\\' => text.push(match self.escaped()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                next if next == quote => return Ok(text),
                next => text.push(next),
            }
        }
        self.at = start;
        Err(self.error(Fault::OpenQuote))
    }

    fn filter(&mut self) -> Result<Filter, JsonPathError> {
        self.skip_spaces();
        if !self.take("@") {
            return Err(self.error(Fault::NoElementInFilter));
        }
        let left = self.steps(None, true)?;
        self.skip_spaces();
        let operator = OPERATORS.iter().find(|(token, _)| self.take(token)).map(|(_, operator)| *operator);
        let comparison = match operator {
            Some(operator) => Some((operator, self.operand()?)),
            None => None,
        };
        self.skip_spaces();
        if self.take(")") { Ok(Filter { left, comparison }) } else { Err(self.error(Fault::NoOperator)) }
    }

    fn operand(&mut self) -> Result<Operand, JsonPathError> {
        self.skip_spaces();
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Operand::Literal(Value::from(self.quoted()?)));
        }
        if self.take("@") {
            return Ok(Operand::Path(self.steps(None, true)?));
        }
        let length = self.rest().find(|c: char| c == ')' || c.is_whitespace()).unwrap_or(self.rest().len());
        match serde_json::from_str(&self.rest()[..length]) {
            Ok(literal @ (Value::Number(_) | Value::Bool(_))) => {
                self.at += length;
                Ok(Operand::Literal(literal))
            }
            _ => Err(self.error(Fault::NoOperand)),
        }
    }
}
