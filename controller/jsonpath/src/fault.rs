//! Faults: why a text is no path and no template, and where.

/// Of one path.
pub(crate) const MAX_STEPS: usize = 64;
/// Of filters within filters, and of ranges within ranges.
pub(crate) const MAX_DEPTH: usize = 16;

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "jsonpath {text:?} cannot be read at byte {at}: {fault}; write it like {{.spec.replicas}} or {{.status.conditions[?(@.type==\"Ready\")].status}}"
)]
pub struct JsonPathError {
    pub text: String,
    pub at: usize,
    pub fault: Fault,
}

/// What is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the name of a field was expected")]
    NoName,
    #[error("a field (.name) or an element ([0], [*], [?(…)]) was expected")]
    NoStep,
    #[error("an index, a slice, *, a quoted name or a filter was expected")]
    NoElement,
    #[error("a number that fits into 64 bits was expected")]
    NoNumber,
    #[error("the step of a slice has to be over 0")]
    NoStride,
    #[error("a closing bracket was expected")]
    OpenBracket,
    #[error("a closing quote was expected")]
    OpenQuote,
    #[error("a closing brace was expected")]
    OpenBrace,
    #[error("a filter on the element (@) was expected")]
    NoElementInFilter,
    #[error("==, !=, <, <=, >, >= or a closing parenthesis was expected")]
    NoOperator,
    #[error("a quoted text, a number, true, false or a path (@.name) was expected")]
    NoOperand,
    #[error("{{end}} without a {{range}} before it")]
    NothingToEnd,
    #[error("a path has at most {limit} steps, and filters and ranges lie at most {depth} deep", limit = MAX_STEPS, depth = MAX_DEPTH)]
    TooLong,
}
