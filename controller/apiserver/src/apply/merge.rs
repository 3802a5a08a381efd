//! Merging: lays a configuration over an object, and takes away what nobody wants any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::field_set::{Element, FieldSet};
use super::shape::{Child, Shape};

/// `config` laid over `live`: maps by field, sets and keyed lists by item, all else replaced.
///
/// An error names the list in `config` whose items cannot be told apart. A list of `live` that cannot is replaced.
pub(super) fn merge(shape: Shape<'_>, live: Option<&Value>, config: &Value) -> Result<Value, String> {
    merge_at(shape, live, config, "")
}

fn merge_at(shape: Shape<'_>, live: Option<&Value>, config: &Value, path: &str) -> Result<Value, String> {
    match config {
        Value::Object(fields) if !shape.is_atomic_map() => {
            let live = live.and_then(Value::as_object);
            let mut merged: Map<String, Value> = live.cloned().unwrap_or_default();
            for (name, value) in fields {
                let child = shape.child(name).map_or(Shape::Free, |child| child.shape);
                let live = live.and_then(|live| live.get(name));
                merged.insert(name.clone(), merge_at(child, live, value, &format!("{path}.{name}"))?);
            }
            Ok(merged.into())
        }
        Value::Array(items) => {
            let Some(items) = shape.identify(items) else {
                return Ok(config.clone());
            };
            let items = items.map_err(|error| format!("{path}: {error}"))?;
            let nothing = Vec::new();
            let live = live.and_then(Value::as_array).unwrap_or(&nothing);
            let live = shape.identify(live).and_then(Result::ok).unwrap_or_default();
            let mut merged = Vec::with_capacity(live.len().max(items.len()));
            for (live, config) in interleave(&live, &items) {
                merged.push(match (live, config) {
                    (live, Some(config)) => merge_at(shape.item(), live, config, &format!("{path}[{}]", merged.len()))?,
                    (live, None) => live.cloned().unwrap_or_default(),
                });
            }
            Ok(merged.into())
        }
        _ => Ok(config.clone()),
    }
}

type Pair<'v> = (Option<&'v Value>, Option<&'v Value>);

/// Pairs the items of two lists: configured ones in their order, the others where they stood among them.
fn interleave<'v>(live: &[(Element, &'v Value)], config: &[(Element, &'v Value)]) -> Vec<Pair<'v>> {
    let configured: BTreeSet<&Element> = config.iter().map(|(element, _)| element).collect();
    let living: BTreeMap<&Element, &'v Value> = live.iter().map(|(element, value)| (element, *value)).collect();
    let mut pairs = Vec::with_capacity(live.len().max(config.len()));
    let mut rest = live.iter().peekable();
    for (element, value) in config {
        // Live items that nobody configures keep their place before the next that somebody does.
        while let Some((_, alone)) = rest.next_if(|(other, _)| !configured.contains(other)) {
            pairs.push((Some(*alone), None));
        }
        rest.next();
        pairs.push((living.get(element).copied(), Some(*value)));
    }
    let alone = rest.filter(|(other, _)| !configured.contains(other));
    pairs.extend(alone.map(|(_, value)| (Some(*value), None)));
    pairs
}

/// Takes away the fields of `last` that are not in `wanted`, and containers that this empties.
///
/// A field that the schema names stays while anything in it is wanted; an entry of a map or an item of a list goes
/// with all that is in it once nobody wants the entry itself.
pub(super) fn remove(shape: Shape<'_>, value: &mut Value, last: &FieldSet, wanted: &FieldSet) {
    match value {
        Value::Object(fields) => fields.retain(|name, field| {
            let child = shape.child(name);
            child.is_none_or(|child| keep(child, Element::field(name), field, last, wanted))
        }),
        Value::Array(items) => {
            let Some(Ok(identified)) = shape.identify(items) else {
                return;
            };
            let mut elements: VecDeque<Element> = identified.into_iter().map(|(element, _)| element).collect();
            let child = Child { shape: shape.item(), declared: false };
            items
                .retain_mut(|item| elements.pop_front().is_none_or(|element| keep(child, element, item, last, wanted)));
        }
        _ => {}
    }
}

/// Removes inside a field or an item, and says whether it is itself to stay.
fn keep(child: Child<'_>, element: Element, value: &mut Value, last: &FieldSet, wanted: &FieldSet) -> bool {
    let Some(node) = last.get(&element) else {
        return true;
    };
    let nothing = FieldSet::default();
    let wanted_node = wanted.get(&element);
    let wanted_below = wanted_node.map_or(&nothing, |node| &node.below);
    let kept = wanted_node.is_some_and(|node| node.member) || (child.declared && !wanted_below.is_empty());
    if node.member && !kept {
        return false;
    }
    let was_empty = is_empty(value);
    remove(child.shape, value, &node.below, wanted_below);
    kept || !child.declared || was_empty || !is_empty(value)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
