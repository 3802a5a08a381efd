//! Following: what the steps of a path lead to. Nothing here fails, and nothing found is copied.

use std::cmp::Ordering;

use serde_json::Value;

use crate::path::{Filter, Operand, Operator, Path, Step};

/// As many values are kept after each step: unions and descents could multiply without end.
const MAX_FOUND: usize = 65_536;

// === impl Path ===

impl Path {
    /// Every value that the path leads to in `root`, in order; nothing where a step is missing.
    ///
    /// After 65,536 values the rest is left out.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        follow(&self.steps, root)
    }
}

fn follow<'a>(steps: &[Step], root: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![root];
    for step in steps {
        found = take(step, &found);
        found.truncate(MAX_FOUND);
    }
    found
}

/// A union is taken member by member over all that was found, every other step value by value: kubectl's order.
fn take<'a>(step: &Step, found: &[&'a Value]) -> Vec<&'a Value> {
    match step {
        Step::Union(members) => members.iter().flat_map(|member| take(member, found)).take(MAX_FOUND).collect(),
        step => {
            let mut next = Vec::new();
            for value in found {
                if next.len() >= MAX_FOUND {
                    break;
                }
                step_into(step, value, &mut next);
            }
            next
        }
    }
}

fn step_into<'a>(step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Field(name), Value::Object(fields)) => next.extend(fields.get(name)),
        (Step::Index(index), Value::Array(items)) => {
            next.extend(usize::try_from(position(*index, items.len())).ok().and_then(|index| items.get(index)));
        }
        (Step::Slice { from, to, stride }, Value::Array(items)) => {
            let bound = |index: i64| position(index, items.len()).clamp(0, items.len() as i64) as usize;
            let (from, to) = (from.map_or(0, bound), to.map_or(items.len(), bound));
            next.extend(items.get(from..to).into_iter().flatten().step_by(*stride));
        }
        (Step::All, Value::Array(items)) => next.extend(items),
        (Step::All, Value::Object(fields)) => next.extend(fields.values()),
        (Step::Descend, value) => descend(value, next),
        (Step::Filter(filter), Value::Array(items)) => next.extend(items.iter().filter(|item| passes(filter, item))),
        _ => {}
    }
}

/// The place of an index; outside the list if there is none.
fn position(index: i64, length: usize) -> i64 {
    if index >= 0 { index } else { index.saturating_add(length as i64) }
}

fn descend<'a>(value: &'a Value, next: &mut Vec<&'a Value>) {
    if next.len() >= MAX_FOUND {
        return;
    }
    match value {
        Value::Object(fields) => {
            next.push(value);
            fields.values().for_each(|child| descend(child, next));
        }
        Value::Array(items) => {
            next.push(value);
            items.iter().for_each(|child| descend(child, next));
        }
        _ => {}
    }
}

fn passes(filter: &Filter, item: &Value) -> bool {
    let left = filter.left.find(item);
    let Some((operator, right)) = &filter.comparison else {
        return !left.is_empty();
    };
    let of_right = match right {
        Operand::Literal(literal) => vec![literal],
        Operand::Path(path) => path.find(item),
    };
    match (left.as_slice(), of_right.as_slice()) {
        ([left], [right]) => operator.holds(left, right),
        _ => false,
    }
}

// === impl Operator ===

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> bool {
        match self {
            Operator::Equal => is_equal(left, right),
            Operator::NotEqual => !is_equal(left, right),
            Operator::Less => order(left, right).is_some_and(Ordering::is_lt),
            Operator::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
            Operator::Greater => order(left, right).is_some_and(Ordering::is_gt),
            Operator::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
        }
    }
}

/// 2 and 2.0 are one number.
fn is_equal(left: &Value, right: &Value) -> bool {
    left == right || order(left, right).is_some_and(Ordering::is_eq)
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
