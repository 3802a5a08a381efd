//! What `wait --for` waits for, and whether an object has it. Never believes a condition older than the object's spec.

use std::str::FromStr;

use polyphony_jsonpath::{JsonPathError, Path, text_of};
use serde_json::Value;

/// The value of `--for`.
#[derive(Clone, Debug, PartialEq)]
pub enum Goal {
    /// The condition of that type says that status; both without regard to case.
    Condition {
        type_: String,
        status: String,
    },
    /// The path leads to one value, which is this text if one is given.
    JsonPath {
        path: Path,
        value: Option<String>,
    },
    Delete,
    Create,
}

/// Why a text is no goal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoalError {
    #[error(
        "unrecognized condition: {text:?}: write condition=TYPE, condition=TYPE=STATUS, jsonpath='{{PATH}}'=VALUE, delete or create"
    )]
    Unknown { text: String },
    #[error(transparent)]
    JsonPath(#[from] JsonPathError),
}

impl FromStr for Goal {
    type Err = GoalError;

    fn from_str(text: &str) -> Result<Self, GoalError> {
        let unknown = || GoalError::Unknown { text: text.to_owned() };
        match text.split_once('=') {
            None if text.eq_ignore_ascii_case("delete") => Ok(Goal::Delete),
            None if text.eq_ignore_ascii_case("create") => Ok(Goal::Create),
            Some(("condition", rest)) => {
                let (type_, status) = rest.split_once('=').unwrap_or((rest, "true"));
                if type_.is_empty() || status.is_empty() {
                    return Err(unknown());
                }
                Ok(Goal::Condition { type_: type_.to_owned(), status: status.to_owned() })
            }
            Some(("jsonpath", rest)) => {
                let rest = rest.trim_matches('\'');
                let end = if rest.starts_with('{') { rest.rfind('}').map(|end| end + 1) } else { rest.find('=') };
                let (path, value) = rest.split_at(end.unwrap_or(rest.len()));
                let path = path.trim_matches('\'');
                if path.is_empty() {
                    return Err(unknown());
                }
                let value = match value.trim_start_matches('\'') {
                    "" => None,
                    value => match value.strip_prefix('=') {
                        None | Some("") => return Err(unknown()),
                        Some(value) => Some(value.trim_matches(['\'', '"']).to_owned()),
                    },
                };
                Ok(Goal::JsonPath { path: path.parse()?, value })
            }
            _ => Err(unknown()),
        }
    }
}

// === impl Goal ===

impl Goal {
    /// Whether an object, or none, is as it is waited for.
    pub fn is_met(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Goal::Delete, object) => object.is_none(),
            (_, None) => false,
            (Goal::Create, Some(_)) => true,
            (Goal::Condition { type_, status }, Some(object)) => condition(object, type_).is_some_and(|condition| {
                let says = condition["status"].as_str().unwrap_or_default();
                says.eq_ignore_ascii_case(status) && is_current(object, condition)
            }),
            (Goal::JsonPath { path, value }, Some(object)) => match (path.find(object).as_slice(), value) {
                ([found], Some(value)) => text_of(found) == *value,
                ([_], None) => true,
                _ => false,
            },
        }
    }

    /// What the object says instead, for the message of a wait that was in vain.
    pub fn why_not(&self, object: Option<&Value>) -> String {
        let Some(object) = object else { return "it does not exist".to_owned() };
        match self {
            Goal::Delete => {
                match object["metadata"]["finalizers"].as_array().filter(|finalizers| !finalizers.is_empty()) {
                    Some(finalizers) => format!("it still exists: finalizers {}", Value::from(finalizers.clone())),
                    None => "it still exists".to_owned(),
                }
            }
            Goal::Create => "it exists".to_owned(),
            Goal::Condition { type_, .. } => match condition(object, type_) {
                None => format!("it has no condition {type_} yet"),
                Some(condition) => {
                    let text = |field: &str| condition[field].as_str().unwrap_or_default();
                    let stale = if is_current(object, condition) { "" } else { " (of an older generation)" };
                    format!("{}={}{stale} ({}): {}", text("type"), text("status"), text("reason"), text("message"))
                }
            },
            Goal::JsonPath { path, .. } => {
                let found: Vec<String> = path.find(object).into_iter().map(text_of).collect();
                if found.is_empty() {
                    "the path leads to nothing".to_owned()
                } else {
                    format!("the path leads to {}", found.join(", "))
                }
            }
        }
    }
}

fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(type_)))
}

/// Whether the condition, and the status it stands in, were written for the spec as it is now.
fn is_current(object: &Value, condition: &Value) -> bool {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    let observed = [&condition["observedGeneration"], &object["status"]["observedGeneration"]];
    observed.iter().filter_map(|observed| observed.as_i64()).all(|observed| observed >= generation)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn deployment(generation: i64, observed: Value, of_condition: Value) -> Value {
        let mut object = json!({"metadata": {"generation": generation}, "status": {"phase": "Ready", "n": 2, "conditions": [
            {"type": "Available", "status": "True", "reason": "AllReady", "message": "m"}]}});
        if !observed.is_null() {
            object["status"]["observedGeneration"] = observed;
        }
        if !of_condition.is_null() {
            object["status"]["conditions"][0]["observedGeneration"] = of_condition;
        }
        object
    }

    #[test]
    fn a_condition_of_an_older_generation_is_not_believed() {
        let goal: Goal = "condition=available".parse().unwrap();
        for (observed, of_condition, met) in [
            (json!(2), json!(2), true),
            (json!(1), json!(2), false),
            (json!(2), json!(1), false),
            (json!(null), json!(null), true),
            (json!(2), json!(null), true),
            (json!(3), json!(3), true),
        ] {
            let object = deployment(2, observed.clone(), of_condition.clone());
            assert_eq!(goal.is_met(Some(&object)), met, "{observed} {of_condition}");
        }
        let stale = deployment(2, json!(1), json!(1));
        assert_eq!(goal.why_not(Some(&stale)), "Available=True (of an older generation) (AllReady): m");
    }

    #[test]
    fn every_form_of_for_is_read() {
        let object = deployment(1, json!(1), json!(1));
        for (text, met, met_by_none) in [
            ("condition=Available", true, false),
            ("condition=Available=true", true, false),
            ("condition=Available=False", false, false),
            ("condition=Ready", false, false),
            ("delete", false, true),
            ("create", true, false),
            ("jsonpath={.status.phase}=Ready", true, false),
            ("jsonpath='{.status.phase}'=Ready", true, false),
            ("jsonpath={.status.conditions[?(@.type==\"Available\")].status}=True", true, false),
            ("jsonpath=.status.n=2", true, false),
            ("jsonpath={.status.n}", true, false),
            ("jsonpath={.status.missing}", false, false),
            ("jsonpath={.status.phase}='Draining'", false, false),
        ] {
            let goal: Goal = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((goal.is_met(Some(&object)), goal.is_met(None)), (met, met_by_none), "{text}");
        }
        for text in [
            "",
            "condition",
            "condition=",
            "condition=A=",
            "jsonpath=",
            "jsonpath={.a[}=1",
            "jsonpath={.a}=",
            "jsonpath={.a}x",
            "ready",
        ] {
            assert!(text.parse::<Goal>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_waited_for_in_vain_is_explained() {
        let object = deployment(1, json!(1), json!(1));
        assert_eq!("condition=Ready".parse::<Goal>().unwrap().why_not(Some(&object)), "it has no condition Ready yet");
        assert_eq!("condition=Ready".parse::<Goal>().unwrap().why_not(None), "it does not exist");
        assert_eq!(
            "jsonpath={.status.phase}=X".parse::<Goal>().unwrap().why_not(Some(&object)),
            "the path leads to Ready"
        );
        let held = json!({"metadata": {"finalizers": ["polyphony.dev/drain"]}});
        assert_eq!(Goal::Delete.why_not(Some(&held)), "it still exists: finalizers [\"polyphony.dev/drain\"]");
    }
}
