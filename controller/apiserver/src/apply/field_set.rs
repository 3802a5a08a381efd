//! Field sets: which fields of an object are meant, and their form in `managedFields` (FieldsV1).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// One step into an object, in the words of FieldsV1: `f:replicas`, `k:{"name":"http"}`, `v:"a"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element(String);

/// A set of paths: at each step whether the field itself is in the set, and what of its inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<Element, Node>);

/// One step of a set: the field itself, what is below it, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

/// Fields of `metadata` that the server alone sets, or that name the object: nobody owns them.
const SERVER_OWNED: [&str; 12] = [
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Whether nobody owns this field of `metadata`.
pub(super) fn is_server_owned(field: &str) -> bool {
    SERVER_OWNED.contains(&field)
}

// === impl Element ===

impl Element {
    pub(super) fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    /// An item of a keyed list.
    pub(super) fn key(keys: &BTreeMap<&str, &Value>) -> Self {
        Self(format!("k:{}", json!(keys)))
    }

    /// An item of a set.
    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{value}"))
    }

    pub(super) fn as_field(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// As a conflict names it: `.replicas`, `[name="http"]`, `[="a"]`.
    fn shown(&self) -> String {
        if let Some(name) = self.as_field() {
            return format!(".{name}");
        }
        if let Some(value) = self.0.strip_prefix("v:") {
            return format!("[={value}]");
        }
        let keys =
            self.0.strip_prefix("k:").and_then(|keys| serde_json::from_str::<BTreeMap<String, Value>>(keys).ok());
        let keys: Vec<String> = keys.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        format!("[{}]", keys.join(","))
    }
}

// === impl Node ===

impl Node {
    pub(super) fn leaf() -> Self {
        Self { member: true, below: FieldSet::default() }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

// === impl FieldSet ===

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, element: Element, node: Node) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.0.get(element)
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    fn combine(&self, other: &Self, both: fn(bool, bool) -> bool) -> Self {
        let elements: BTreeSet<&Element> = self.0.keys().chain(other.0.keys()).collect();
        let nothing = Node::default();
        let mut combined = Self::default();
        for element in elements {
            let (a, b) = (self.get(element).unwrap_or(&nothing), other.get(element).unwrap_or(&nothing));
            let node = Node { member: both(a.member, b.member), below: a.below.combine(&b.below, both) };
            combined.insert(element.clone(), node);
        }
        combined
    }

    /// Without what nobody owns: type, identity and the server's own metadata.
    pub(super) fn stripped(mut self) -> Self {
        self.0.remove(&Element::field("apiVersion"));
        self.0.remove(&Element::field("kind"));
        if let Some(metadata) = self.0.remove(&Element::field("metadata")) {
            let mut below = metadata.below;
            below.0.retain(|element, _| !element.as_field().is_some_and(is_server_owned));
            self.insert(Element::field("metadata"), Node { member: false, below });
        }
        self
    }

    /// Every path in the set, as conflicts name them.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, before: &str, paths: &mut Vec<String>) {
        for (element, node) in &self.0 {
            let path = format!("{before}{}", element.shown());
            if node.member {
                paths.push(path.clone());
            }
            node.below.collect_paths(&path, paths);
        }
    }

    /// The FieldsV1 form.
    pub(super) fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        for (element, node) in &self.0 {
            let mut below = node.below.to_fields_v1();
            // A field without an inside is itself by being named at all.
            if node.member
                && !node.below.is_empty()
                && let Some(below) = below.as_object_mut()
            {
                below.insert(".".to_owned(), json!({}));
            }
            fields.insert(element.0.clone(), below);
        }
        fields.into()
    }

    /// Reads the FieldsV1 form; what is not of that form is left out.
    pub(super) fn from_fields_v1(fields: &Value) -> Self {
        let mut set = Self::default();
        for (name, inside) in fields.as_object().into_iter().flatten() {
            let Some(inside_fields) = inside.as_object().filter(|_| name != ".") else {
                continue;
            };
            let below = Self::from_fields_v1(inside);
            let member = inside_fields.is_empty() || inside_fields.contains_key(".");
            if let Some(element) = Element::read(name) {
                set.insert(element, Node { member, below });
            }
        }
        set
    }
}

impl Element {
    /// Reads a key of FieldsV1, in whatever spelling of JSON a client chose.
    fn read(name: &str) -> Option<Self> {
        let (sort, content) = name.split_once(':')?;
        match sort {
            "f" => Some(Self::field(content)),
            "v" => Some(Self::value(&serde_json::from_str(content).ok()?)),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(content).ok()?;
                Some(Self::key(&keys.iter().map(|(key, value)| (key.as_str(), value)).collect()))
            }
            "i" => Some(Self(name.to_owned())),
            _ => None,
        }
    }
}
