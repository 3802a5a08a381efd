//! Junctors: `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::Value;

use super::{FieldError, FieldErrorKind};

/// `allOf`, `anyOf`, `oneOf` and `not`; where no branch fits, the nearest branch's errors are told too.
///
/// `judge` says what one branch finds wrong.
pub(super) fn check(
    schema: &Value,
    path: &str,
    judge: &dyn Fn(&Value) -> Vec<FieldError>,
    errors: &mut Vec<FieldError>,
) {
    let empty = Value::from("");
    let mut wrong = |words: String, more: Vec<FieldError>| {
        errors.push(FieldError::invalid(path, &empty, &format!("{path:?} {words}")));
        errors.extend(more);
    };
    if let Some(branches) = branches(schema, "anyOf", judge)
        && branches.iter().all(|branch| !branch.is_empty())
    {
        wrong("must validate at least one schema (anyOf)".to_owned(), nearest(branches));
    }
    if let Some(branches) = branches(schema, "oneOf", judge) {
        match branches.iter().filter(|branch| branch.is_empty()).count() {
            1 => {}
            0 => wrong("must validate one and only one schema (oneOf). Found none valid".to_owned(), nearest(branches)),
            several => wrong(
                format!("must validate one and only one schema (oneOf). Found {several} valid alternatives"),
                Vec::new(),
            ),
        }
    }
    if let Some(branches) = branches(schema, "allOf", judge)
        && branches.iter().any(|branch| !branch.is_empty())
    {
        wrong("must validate all the schemas (allOf)".to_owned(), branches.into_iter().flatten().collect());
    }
    if schema.get("not").is_some_and(|not| judge(not).is_empty()) {
        wrong("must not validate the schema (not)".to_owned(), Vec::new());
    }
}

/// What each branch of a junctor finds wrong.
fn branches(schema: &Value, junctor: &str, judge: &dyn Fn(&Value) -> Vec<FieldError>) -> Option<Vec<Vec<FieldError>>> {
    let branches = schema.get(junctor)?.as_array().filter(|branches| !branches.is_empty())?;
    Some(branches.iter().map(judge).collect())
}

fn nearest(branches: Vec<Vec<FieldError>>) -> Vec<FieldError> {
    // A branch that wants another type is no hint for whoever wrote a value of this one.
    let distance = |branch: &Vec<FieldError>| {
        let types = branch.iter().filter(|error| error.kind == FieldErrorKind::TypeInvalid).count();
        (types, branch.len())
    };
    branches.into_iter().min_by_key(distance).unwrap_or_default()
}
