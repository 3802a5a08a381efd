//! Paths: the steps from a value to those below it, as plain data. Reads no text and follows nothing.

use serde_json::Value;

/// A path to values of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Field(String),
    /// From the end if negative.
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        stride: usize,
    },
    All,
    Union(Vec<Step>),
    /// The value itself and everything below it.
    Descend,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Filter {
    pub(crate) left: Path,
    /// Without it, whatever has the left side passes.
    pub(crate) comparison: Option<(Operator, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Literal(Value),
    Path(Path),
}
