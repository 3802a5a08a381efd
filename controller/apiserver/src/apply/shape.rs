//! Shapes: how the parts of an object are merged, as its schema says; where none says, maps merge and lists are whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::field_set::Element;
use crate::registry::{Kind, Schema};

/// What is known of a part of an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// A whole resource: its own schema, and the metadata that all have.
    Resource(Option<&'a Value>),
    Schema(&'a Value),
    /// No schema speaks of it.
    Free,
}

/// A field's shape, and whether the schema names the field itself (else it is an entry of a map).
#[derive(Clone, Copy, Debug)]
pub(super) struct Child<'a> {
    pub(super) shape: Shape<'a>,
    pub(super) declared: bool,
}

/// How a list is merged.
#[derive(Clone, Debug)]
pub(super) enum List<'a> {
    /// As one value.
    Atomic,
    /// Items are their own identity.
    Set,
    /// Items are told apart by these fields.
    Keyed(Vec<&'a str>),
}

static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": text()});
    json!({
        "type": "object",
        "properties": {
            "name": text(), "generateName": text(), "namespace": text(), "uid": text(),
            "resourceVersion": text(), "selfLink": text(), "creationTimestamp": text(),
            "deletionTimestamp": text(), "deletionGracePeriodSeconds": text(), "generation": text(),
            "labels": texts(),
            "annotations": texts(),
            "finalizers": {"type": "array", "items": text(), "x-kubernetes-list-type": "set"},
            "ownerReferences": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uid"],
                "items": {"type": "object", "x-kubernetes-map-type": "atomic"},
            },
        },
    })
});

// === impl Shape ===

impl<'a> Shape<'a> {
    pub(super) fn resource(kind: &'a Kind) -> Self {
        Self::Resource(kind.schema.as_ref().map(Schema::document))
    }

    /// The shape of a field; none if the schema knows no such field.
    pub(super) fn child(self, name: &str) -> Option<Child<'a>> {
        let declared = |shape| Some(Child { shape, declared: true });
        let entry = |shape| Some(Child { shape, declared: false });
        let resource = match self {
            Self::Resource(_) => true,
            Self::Schema(schema) => flag(schema, "x-kubernetes-embedded-resource"),
            Self::Free => false,
        };
        match (resource, name) {
            (true, "metadata") => return declared(Self::Schema(&METADATA)),
            (true, "apiVersion" | "kind") => return declared(Self::Free),
            _ => {}
        }
        let schema = match self {
            Self::Resource(Some(schema)) | Self::Schema(schema) => schema,
            Self::Resource(None) => return declared(Self::Free),
            Self::Free => return entry(Self::Free),
        };
        if let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)) {
            return declared(Self::Schema(property));
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => entry(Self::Free),
            Some(additional @ Value::Object(_)) => entry(Self::Schema(additional)),
            _ if flag(schema, "x-kubernetes-preserve-unknown-fields") => entry(Self::Free),
            _ => None,
        }
    }

    pub(super) fn item(self) -> Shape<'a> {
        match self {
            Self::Resource(_) | Self::Free => Self::Free,
            Self::Schema(schema) => schema.get("items").map_or(Self::Free, Self::Schema),
        }
    }

    /// Whether an object is one value, merged as a whole.
    pub(super) fn is_atomic_map(self) -> bool {
        matches!(self, Self::Schema(schema) if text(schema, "x-kubernetes-map-type") == Some("atomic"))
    }

    pub(super) fn list(self) -> List<'a> {
        let Self::Schema(schema) = self else {
            return List::Atomic;
        };
        match text(schema, "x-kubernetes-list-type") {
            Some("set") => List::Set,
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                List::Keyed(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            _ => List::Atomic,
        }
    }

    /// The items of a set or keyed list by their identities; `None` for an atomic list.
    ///
    /// An error says which item has no identity, or one that another has.
    pub(super) fn identify<'v>(self, items: &'v [Value]) -> Option<Result<Vec<(Element, &'v Value)>, String>>
    where
        'a: 'v,
    {
        let list = self.list();
        if matches!(list, List::Atomic) {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut identified = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let element = match &list {
                List::Keyed(keys) => match self.key(keys, item) {
                    Ok(element) => element,
                    Err(missing) => {
                        return Some(Err(format!(
                            "element {index}: associative list with keys has an element that omits key field {missing:?} (and doesn't have default value)"
                        )));
                    }
                },
                List::Set | List::Atomic => Element::value(item),
            };
            if !seen.insert(element.clone()) {
                return Some(Err(format!("element {index}: duplicate entries for key {item}")));
            }
            identified.push((element, item));
        }
        Some(Ok(identified))
    }

    /// The identity of an item; a key field that it lacks and that has no default is the error.
    fn key<'k>(self, keys: &[&'k str], item: &Value) -> Result<Element, &'k str> {
        let mut found = BTreeMap::new();
        for key in keys {
            let default = || match self.item() {
                Shape::Schema(schema) => schema.get("properties")?.get(key)?.get("default"),
                _ => None,
            };
            let value = item.get(key).filter(|value| !value.is_null()).or_else(default).ok_or(*key)?;
            found.insert(*key, value);
        }
        Ok(Element::key(&found))
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn text<'a>(schema: &'a Value, name: &str) -> Option<&'a str> {
    schema.get(name)?.as_str()
}
