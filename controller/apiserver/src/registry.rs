//! The registry: which kinds are served, as plain data. Knows no object, no store and no request.

mod builtin;
mod definition;
mod rules;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use polyphony_jsonpath::Path;
use serde_json::Value;

pub use rules::{RuleFault, Rules};
pub use schema::Schema;

/// One kind in one version, as it is served.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// The definition's `openAPIV3Schema`; none for kinds that are kept as they come.
    pub schema: Option<Schema>,
    /// Whether `/status` is served, and the main endpoint leaves `status` alone.
    pub status: bool,
    /// Where `/scale` reads and writes; none when it is not served.
    pub scale: Option<ScalePaths>,
    /// The columns of `kubectl get` after the name.
    pub columns: Vec<Column>,
    /// JSON paths (`.spec.phone`) that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
}

/// Where the scale subresource lies in an object, as JSON paths such as `.spec.replicas`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// One printer column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub r#type: String,
    pub format: Option<String>,
    pub description: Option<String>,
    /// 0 is always shown; more only in wide output.
    pub priority: i32,
    pub json_path: String,
    /// None where the text is no path: the column is empty then, as Kubernetes' is.
    pub path: Option<Path>,
}

/// Why a value is not a custom resource definition that can be served.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("custom resource definition {name:?}: {path}: {detail}")]
pub struct RegistryError {
    pub name: String,
    /// The field, as in `spec.versions[0].schema`.
    pub path: String,
    pub detail: String,
}

/// The kinds that are served, found by group, version and plural name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
}

// === impl Kind ===

impl Kind {
    /// Reads the storage version of a `CustomResourceDefinition` (apiextensions.k8s.io/v1).
    pub fn from_crd(crd: &Value) -> Result<Kind, RegistryError> {
        let (storage, _) = definition::parse(crd)?;
        Ok(storage)
    }

    /// Every served version of a `CustomResourceDefinition`.
    pub fn served_by_crd(crd: &Value) -> Result<Vec<Kind>, RegistryError> {
        let (_, served) = definition::parse(crd)?;
        Ok(served)
    }

    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, or the plural alone in the core group: how messages name a resource.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether this kind is served by the definition of some custom resource.
    pub fn is_custom(&self) -> bool {
        !builtin::is_builtin_group(&self.group)
    }
}

// === impl Registry ===

impl Registry {
    /// The kinds that every server has: namespaces, events, leases, config maps, secrets and definitions.
    pub fn builtin() -> Self {
        let mut registry = Registry::default();
        for kind in builtin::kinds() {
            registry.insert(kind);
        }
        registry
    }

    /// Serves `kind`, instead of any kind of the same group, version and plural name.
    pub fn insert(&mut self, kind: Kind) {
        let key = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        self.kinds.insert(key, Arc::new(kind));
    }

    /// The kind at `/apis/{group}/{version}/{plural}`; the core group's name is empty.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind that an object or an owner reference names by `apiVersion` and `kind`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.in_version(group, version).find(|k| k.kind == kind)
    }

    /// Every kind, in the order of group, version and plural name.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// The kinds of one group and version, in the order of plural names.
    pub fn in_version(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds().filter(move |kind| kind.group == group && kind.version == version)
    }

    /// Groups with their versions, each in the order in which discovery lists them: the stable version first.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for kind in self.kinds() {
            let versions = groups.entry(&kind.group).or_default();
            if !versions.contains(&kind.version.as_str()) {
                versions.push(&kind.version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        }
        groups
    }
}

/// Splits `group/version`; the group is empty when there is no slash.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Kubernetes' order of versions: v2 over v1 over v1beta2 over v1alpha1 over anything else.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let (stability, major, minor) = if let Some((major, minor)) = rest.split_once("alpha") {
        (1, major, minor)
    } else if let Some((major, minor)) = rest.split_once("beta") {
        (2, major, minor)
    } else {
        (3, rest, "0")
    };
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => (stability, major, minor),
        _ => (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn widget() -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.dev"},
            "spec": {
                "group": "example.dev", "scope": "Namespaced",
                "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
                "versions": [
                    {"name": "v1alpha1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                    {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
                     "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                     "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1}],
                     "selectableFields": [{"jsonPath": ".spec.color"}]},
                ],
            },
        })
    }

    #[test]
    fn a_definition_becomes_a_kind_with_kubernetes_defaults() {
        let kind = Kind::from_crd(&widget()).unwrap();
        assert_eq!(kind.version, "v1");
        assert_eq!(kind.list_kind, "WidgetList");
        assert_eq!(kind.singular, "widget");
        assert_eq!(kind.resource(), "widgets.example.dev");
        assert!(kind.status && kind.namespaced && kind.is_custom());
        assert_eq!(kind.scale.unwrap().spec_replicas, ".spec.replicas");
        assert_eq!(kind.columns[0].json_path, ".spec.size");
        assert_eq!(kind.selectable_fields, [".spec.color"]);
    }

    #[test]
    fn discovery_lists_the_stable_version_first() {
        let mut registry = Registry::builtin();
        for kind in Kind::served_by_crd(&widget()).unwrap() {
            registry.insert(kind);
        }
        assert_eq!(registry.groups()["example.dev"], ["v1", "v1alpha1"]);
        assert!(registry.by_kind("example.dev/v1", "Widget").is_some());
        assert!(registry.by_kind("v1", "Namespace").is_some());
    }

    #[test]
    fn a_wrong_definition_is_named_with_its_path() {
        for (pointer, wrong, path) in [
            ("/spec/group", json!(3), "spec.group"),
            ("/spec/scope", json!("Galaxy"), "spec.scope"),
            ("/spec/versions", json!([]), "spec.versions"),
            ("/spec/names/kind", Value::Null, "spec.names.kind"),
            ("/metadata/name", json!("gadgets.example.dev"), "metadata.name"),
            ("/spec/versions/1/storage", json!(false), "spec.versions"),
        ] {
            let mut crd = widget();
            *crd.pointer_mut(pointer).unwrap() = wrong;
            assert_eq!(Kind::from_crd(&crd).unwrap_err().path, path);
        }
    }
}
