//! Comparing: which fields an object has, and which were added, modified or removed between two.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::field_set::{Element, FieldSet, Node};
use super::shape::Shape;

/// What changed from one object to another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

/// The fields of an applied configuration: its leaves, entries of maps and items of lists.
///
/// Fields that the schema does not know are left out: they are pruned before the object is stored.
pub(super) fn fields_of(shape: Shape<'_>, value: &Value) -> FieldSet {
    node_of(shape, value).below
}

fn node_of(shape: Shape<'_>, value: &Value) -> Node {
    match value {
        Value::Object(fields) if !shape.is_atomic_map() => {
            let mut below = FieldSet::default();
            for (name, value) in fields {
                let Some(child) = shape.child(name) else {
                    continue;
                };
                let mut node = node_of(child.shape, value);
                node.member |= !child.declared || value.is_null() || is_empty(value);
                below.insert(Element::field(name), node);
            }
            Node { member: false, below }
        }
        Value::Array(items) => match shape.identify(items) {
            Some(Ok(items)) => {
                let mut below = FieldSet::default();
                for (element, item) in items {
                    let inside = if item.is_object() { node_of(shape.item(), item).below } else { FieldSet::default() };
                    below.insert(element, Node { member: true, below: inside });
                }
                Node { member: false, below }
            }
            None | Some(Err(_)) => Node::leaf(),
        },
        _ => Node::leaf(),
    }
}

/// An empty container is owned itself, since it has nothing inside that could be.
fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// What changed from `old` to `new`; new and gone containers are themselves in the sets.
pub(super) fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Change {
    let mut change = Changes::default();
    change.compare(shape, Some(old), Some(new));
    Change { added: change.added.below, modified: change.modified.below, removed: change.removed.below }
}

/// [`Change`] at one step.
#[derive(Default)]
struct Changes {
    added: Node,
    modified: Node,
    removed: Node,
}

// === impl Change ===

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Without what nobody owns.
    pub(super) fn stripped(self) -> Self {
        Self { added: self.added.stripped(), modified: self.modified.stripped(), removed: self.removed.stripped() }
    }
}

// === impl Changes ===

impl Changes {
    fn compare(&mut self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, None) => return,
            (Some(old), Some(new)) if old == new => return,
            (None, Some(_)) => self.added.member = true,
            (Some(_), None) => self.removed.member = true,
            (Some(_), Some(_)) => {}
        }
        let alike = |is: fn(&Value) -> bool| old.is_none_or(is) && new.is_none_or(is);
        if alike(Value::is_object) && !shape.is_atomic_map() {
            self.maps(shape, old.and_then(Value::as_object), new.and_then(Value::as_object));
            return;
        }
        if alike(Value::is_array) && self.lists(shape, old, new) {
            return;
        }
        if let (Some(old), Some(new)) = (old, new) {
            self.replace(shape, old, new);
        }
    }

    /// One value became another; what was inside is gone, what is inside the new one is there.
    fn replace(&mut self, shape: Shape<'_>, old: &Value, new: &Value) {
        self.modified.member = true;
        self.compare(shape, Some(old), None);
        self.compare(shape, None, Some(new));
        self.removed.member = false;
        self.added.member = false;
    }

    fn maps(&mut self, shape: Shape<'_>, old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>) {
        let names: BTreeSet<&String> = old.into_iter().chain(new).flat_map(Map::keys).collect();
        for name in names {
            let Some(child) = shape.child(name) else {
                continue;
            };
            let (old, new) = (old.and_then(|old| old.get(name)), new.and_then(|new| new.get(name)));
            self.descend(Element::field(name), child.shape, old, new);
        }
    }

    /// Compares two lists by the identities of their items; false if they are each one value.
    fn lists(&mut self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> bool {
        let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
        let (old, new) = (items(old), items(new));
        let (Some(Ok(old)), Some(Ok(new))) = (shape.identify(&old), shape.identify(&new)) else {
            return false;
        };
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (old.into_iter().collect(), new.into_iter().collect());
        let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
        for element in elements {
            let (old, new) = (old.get(element).copied(), new.get(element).copied());
            self.descend(element.clone(), shape.item(), old, new);
        }
        true
    }

    fn descend(&mut self, element: Element, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) {
        let mut inside = Self::default();
        inside.compare(shape, old, new);
        self.added.below.insert(element.clone(), inside.added);
        self.modified.below.insert(element.clone(), inside.modified);
        self.removed.below.insert(element, inside.removed);
    }
}
