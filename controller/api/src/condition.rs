//! Conditions: the standard Kubernetes list of statements about a resource, keyed by type.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;

/// A statement before it is dated: what a decision says, without a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub type_: &'static str,
    pub status: Truth,
    /// CamelCase, for machines.
    pub reason: String,
    /// For people: cause, place, remedy.
    pub message: String,
}

/// The three values of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Sets `statement` in `conditions`. The transition time moves only when the status does.
pub fn set(conditions: &mut Vec<Condition>, statement: &Statement, observed_generation: Option<i64>, now: &Time) {
    let status = statement.status.as_str();
    let found = conditions.iter_mut().find(|condition| condition.type_ == statement.type_);
    let since = match &found {
        Some(condition) if condition.status == status => condition.last_transition_time.clone(),
        _ => now.clone(),
    };
    let condition = Condition {
        type_: statement.type_.to_owned(),
        status: status.to_owned(),
        reason: statement.reason.clone(),
        message: statement.message.clone(),
        last_transition_time: since,
        observed_generation,
    };
    match found {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// As [`set`], but what was said first is said until the reason is another: figures in a message change all the time.
pub fn say(conditions: &mut Vec<Condition>, statement: &Statement, observed_generation: Option<i64>, now: &Time) {
    let mut statement = statement.clone();
    if let Some(said) = find(conditions, statement.type_).filter(|said| said.reason == statement.reason) {
        statement.message.clone_from(&said.message);
    }
    set(conditions, &statement, observed_generation, now);
}

/// Whether the condition `type_` says True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The schema of a condition list: a map keyed by type, so that two writers can each own their own condition.
pub(crate) fn list_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = generator.subschema_for::<Condition>();
    schemars::Schema::try_from(json!({
        "type": "array",
        "description": "What is true of this object now, one entry a type.",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }))
    .expect("an object is a schema")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
    }

    fn ready(status: Truth) -> Statement {
        Statement { type_: "Ready", status, reason: "Test".into(), message: String::new() }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, &ready(Truth::True), None, &at(1));
        set(&mut conditions, &ready(Truth::True), None, &at(2));
        assert_eq!(conditions[0].last_transition_time, at(1));
        set(&mut conditions, &ready(Truth::Unknown), None, &at(3));
        assert_eq!(conditions[0].last_transition_time, at(3));
        assert_eq!(conditions.len(), 1);
        assert!(!is_true(&conditions, "Ready"));
    }
}
