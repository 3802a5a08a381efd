//! Discovery: which kinds the server has, and which of them a word means.

use serde_json::Value;

use crate::failure::Failure;
use crate::server::{JSON, Server, path_segment};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A kind that the server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

/// All kinds of a server, preferred versions first.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    resources: Vec<Resource>,
}

/// No kind has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKind {
    #[error("the server doesn't have a resource type {word:?}{}", suggestion(.nearest))]
    Word { word: String, nearest: Option<String> },
    #[error("no matches for kind {kind:?} in version {api_version:?}{}", suggestion(.nearest))]
    Kind { kind: String, api_version: String, nearest: Option<String> },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("\nDid you mean {name:?}?"))
}

// === impl Resource ===

impl Resource {
    /// `phone.polyphony.dev`: the kind as names are prefixed with it.
    pub fn singular_name(&self) -> String {
        qualified(&self.kind.to_lowercase(), &self.group)
    }

    /// `phones.polyphony.dev`.
    pub fn plural_name(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection; all namespaces when `namespace` is none.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let namespace = match namespace {
            Some(namespace) if self.namespaced => format!("namespaces/{}/", path_segment(namespace)),
            _ => String::new(),
        };
        format!("{root}/{}/{namespace}{}", self.api_version(), self.plural)
    }

    /// The path of one object; `namespace` is not read where the kind has none.
    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection_path(Some(namespace)), path_segment(name))
    }

    fn is_called(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short_names.iter().any(|name| name == word)
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

// === impl Catalogue ===

impl Catalogue {
    /// Asks the server, in the aggregated form where it has it.
    ///
    /// # Errors
    /// Any [`Failure`] of the requests.
    pub async fn fetch(server: &Server) -> Result<Self, Failure> {
        let accept = format!("{AGGREGATED},{JSON}");
        let mut resources = Vec::new();
        for root in ["/api", "/apis"] {
            let answer = server.get_as(root, &accept).await?;
            if answer["kind"] == "APIGroupDiscoveryList" {
                resources.extend(from_aggregated(&answer));
                continue;
            }
            for group_version in legacy_group_versions(root, &answer) {
                let path = format!("{root}/{group_version}");
                resources.extend(from_legacy(&group_version, &server.get(&path).await?));
            }
        }
        Ok(Self { resources })
    }

    /// Every kind in its preferred version, by group and name.
    pub fn all(&self) -> Vec<&Resource> {
        let mut found: Vec<&Resource> = Vec::new();
        for resource in &self.resources {
            if !found.iter().any(|known| (&known.group, &known.plural) == (&resource.group, &resource.plural)) {
                found.push(resource);
            }
        }
        found.sort_by(|left, right| (&left.group, &left.plural).cmp(&(&right.group, &right.plural)));
        found
    }

    /// The kind that a word means: singular, plural, short name or kind, perhaps with `.group` or `.version.group`.
    ///
    /// # Errors
    /// [`UnknownKind`] with the nearest word that the server knows.
    pub fn find(&self, word: &str) -> Result<&Resource, UnknownKind> {
        let lower = word.to_lowercase();
        if let Some(resource) = self.resources.iter().find(|resource| resource.is_called(&lower)) {
            return Ok(resource);
        }
        if let Some((name, qualifier)) = lower.split_once('.') {
            let meant = |resource: &&Resource| {
                resource.is_called(name)
                    && (resource.group == qualifier || format!("{}.{}", resource.version, resource.group) == qualifier)
            };
            if let Some(resource) = self.resources.iter().find(meant) {
                return Ok(resource);
            }
        }
        let words = self.resources.iter().flat_map(|resource| {
            let names = [&resource.plural, &resource.singular].into_iter().chain(&resource.short_names);
            names.chain(&resource.categories).map(String::as_str)
        });
        Err(UnknownKind::Word { word: word.to_owned(), nearest: nearest(&lower, words) })
    }

    /// The kinds of a category, such as `all`; empty when no kind is in it.
    pub fn category(&self, word: &str) -> Vec<&Resource> {
        let mut found: Vec<&Resource> = Vec::new();
        for resource in &self.resources {
            let other_version =
                found.iter().any(|known| (&known.group, &known.kind) == (&resource.group, &resource.kind));
            if !other_version && resource.can("list") && resource.categories.iter().any(|category| category == word) {
                found.push(resource);
            }
        }
        found
    }

    /// The kind that a manifest names.
    ///
    /// # Errors
    /// [`UnknownKind`] with the nearest kind that the server knows.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Result<&Resource, UnknownKind> {
        let found =
            self.resources.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version);
        found.ok_or_else(|| {
            let near = match self.resources.iter().find(|resource| resource.kind == kind) {
                Some(resource) => Some(resource),
                None => nearest(kind, self.resources.iter().map(|resource| resource.kind.as_str()))
                    .and_then(|name| self.resources.iter().find(|resource| resource.kind == name)),
            };
            let nearest =
                near.map(|resource| format!("apiVersion: {}, kind: {}", resource.api_version(), resource.kind));
            UnknownKind::Kind { kind: kind.to_owned(), api_version: api_version.to_owned(), nearest }
        })
    }
}

fn from_aggregated(answer: &Value) -> Vec<Resource> {
    let mut resources = Vec::new();
    for group in items(&answer["items"]) {
        for version in items(&group["versions"]) {
            for entry in items(&version["resources"]) {
                let kind = text(&entry["responseKind"]["kind"]);
                let singular = text(&entry["singularResource"]);
                resources.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    plural: text(&entry["resource"]),
                    singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                    kind,
                    short_names: texts(&entry["shortNames"]),
                    categories: texts(&entry["categories"]),
                    namespaced: entry["scope"] == "Namespaced",
                    verbs: texts(&entry["verbs"]),
                });
            }
        }
    }
    resources
}

/// `v1`, or `group/version` with the preferred version of each group first.
fn legacy_group_versions(root: &str, answer: &Value) -> Vec<String> {
    if root == "/api" {
        return texts(&answer["versions"]);
    }
    let mut found = Vec::new();
    for group in items(&answer["groups"]) {
        let preferred = text(&group["preferredVersion"]["groupVersion"]);
        let mut versions: Vec<String> =
            items(&group["versions"]).iter().map(|version| text(&version["groupVersion"])).collect();
        versions.sort_by_key(|version| *version != preferred);
        found.extend(versions);
    }
    found
}

fn from_legacy(group_version: &str, list: &Value) -> Vec<Resource> {
    let (group, version) = group_version.rsplit_once('/').unwrap_or(("", group_version));
    items(&list["resources"])
        .iter()
        .filter(|entry| !text(&entry["name"]).contains('/'))
        .map(|entry| {
            let kind = text(&entry["kind"]);
            let singular = text(&entry["singularName"]);
            Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: text(&entry["name"]),
                singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                kind,
                short_names: texts(&entry["shortNames"]),
                categories: texts(&entry["categories"]),
                namespaced: entry["namespaced"] == true,
                verbs: texts(&entry["verbs"]),
            }
        })
        .collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}

/// The word nearest to `word`, if one is near enough to be a slip of the finger.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let distance = |other: &str| edit_distance(&word.to_lowercase(), &other.to_lowercase());
    let nearest = known.into_iter().map(|other| (distance(other), other)).min()?;
    (nearest.0 <= allowed).then(|| nearest.1.to_owned())
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
fn edit_distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, from) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in right.iter().enumerate() {
            let mut cost = (rows[i][j] + usize::from(from != to)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *from == right[j - 1] && left[i - 1] == *to {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// A catalogue with our kinds and the core ones that tests need.
    pub(crate) fn catalogue() -> Catalogue {
        let aggregated = json!({"kind": "APIGroupDiscoveryList", "items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [
                {"resource": "namespaces", "responseKind": {"kind": "Namespace"}, "singularResource": "namespace", "shortNames": ["ns"],
                 "scope": "Cluster", "verbs": ["get", "list"]},
                {"resource": "events", "responseKind": {"kind": "Event"}, "shortNames": ["ev"], "scope": "Namespaced", "verbs": ["get", "list"]},
            ]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                {"resource": "events", "responseKind": {"kind": "Event"}, "shortNames": ["ev"], "scope": "Namespaced", "verbs": ["get", "list"]},
            ]}]},
            {"metadata": {"name": "polyphony.dev"}, "versions": [{"version": "v1alpha1", "resources": [
                ours("InferenceDeployment", "inferencedeployments", "infer", "Namespaced"),
                ours("Model", "models", "mdl", "Namespaced"),
                ours("Phone", "phones", "ph", "Cluster"),
                ours("SegmentPlacement", "segmentplacements", "seg", "Namespaced"),
            ]}]},
        ]});
        Catalogue { resources: from_aggregated(&aggregated) }
    }

    fn ours(kind: &str, plural: &str, short: &str, scope: &str) -> Value {
        json!({"resource": plural, "responseKind": {"kind": kind}, "singularResource": kind.to_lowercase(), "shortNames": [short],
               "categories": ["polyphony", "all"], "scope": scope, "verbs": ["get", "list", "watch"]})
    }

    #[test]
    fn every_name_of_a_kind_finds_it() {
        let catalogue = catalogue();
        for word in ["phone", "phones", "ph", "Phone", "PHONES", "phones.polyphony.dev", "phone.v1alpha1.polyphony.dev"]
        {
            assert_eq!(catalogue.find(word).unwrap().kind, "Phone", "{word}");
        }
        assert_eq!(catalogue.find("events").unwrap().group, "");
        assert_eq!(catalogue.find("ev.events.k8s.io").unwrap().group, "events.k8s.io");
    }

    #[test]
    fn a_slip_of_the_finger_is_answered_with_the_word_meant() {
        let error = |word| catalogue().find(word).unwrap_err().to_string();
        assert_eq!(error("phnoes"), "the server doesn't have a resource type \"phnoes\"\nDid you mean \"phones\"?");
        assert_eq!(
            error("inferencedeploymnet"),
            "the server doesn't have a resource type \"inferencedeploymnet\"\nDid you mean \"inferencedeployment\"?"
        );
        assert_eq!(error("kangaroo"), "the server doesn't have a resource type \"kangaroo\"");
        let kind = catalogue().find_kind("polyphony.dev/v1", "Model").unwrap_err().to_string();
        assert_eq!(
            kind,
            "no matches for kind \"Model\" in version \"polyphony.dev/v1\"\nDid you mean \"apiVersion: polyphony.dev/v1alpha1, kind: Model\"?"
        );
    }

    #[test]
    fn a_category_lists_its_kinds() {
        let kinds: Vec<_> = catalogue().category("all").iter().map(|resource| resource.plural.clone()).collect();
        assert_eq!(kinds, ["inferencedeployments", "models", "phones", "segmentplacements"]);
        assert!(catalogue().category("none").is_empty());
    }

    #[test]
    fn paths_are_those_of_the_kubernetes_api() {
        let catalogue = catalogue();
        assert_eq!(catalogue.find("ph").unwrap().object_path("lab", "p"), "/apis/polyphony.dev/v1alpha1/phones/p");
        assert_eq!(
            catalogue.find("mdl").unwrap().object_path("lab", "m"),
            "/apis/polyphony.dev/v1alpha1/namespaces/lab/models/m"
        );
        assert_eq!(catalogue.find("ev").unwrap().collection_path(None), "/api/v1/events");
    }

    #[test]
    fn the_legacy_form_says_the_same() {
        let groups = json!({"groups": [{"versions": [{"groupVersion": "g/v1"}, {"groupVersion": "g/v2"}], "preferredVersion": {"groupVersion": "g/v2"}}]});
        assert_eq!(legacy_group_versions("/apis", &groups), ["g/v2", "g/v1"]);
        let list = json!({"resources": [
            {"name": "phones", "singularName": "", "kind": "Phone", "namespaced": false, "shortNames": ["ph"], "verbs": ["get"]},
            {"name": "phones/status", "kind": "Phone", "namespaced": false, "verbs": ["get"]},
        ]});
        let found = from_legacy("g/v2", &list);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].singular.as_str(), found[0].api_version().as_str()), ("phone", "g/v2"));
    }
}
