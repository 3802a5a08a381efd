//! Selectors: which labels a deployment asks of its phones. Pure; knows labels only.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::json;

use crate::inference_deployment::Placement;

/// The most entries of a selector's lists.
const MAX_ENTRIES: u32 = 64;
/// The longest key (a prefix of 253 characters, `/`, and a name) and value of a label.
const MAX_KEY: u32 = 317;
const MAX_VALUE: u32 = 63;

// === impl Placement ===

impl Placement {
    /// Whether a phone with these labels is one that the deployment asks for. A selector that cannot be read, which the
    /// schema refuses, selects nothing.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let has_each = self.phone_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
        has_each && matches(self.selector.as_ref(), labels)
    }

    /// Whether a phone with these labels may see text.
    pub fn trusts(&self, labels: &BTreeMap<String, String>) -> bool {
        matches(self.trusted_phones.as_ref(), labels)
    }

    /// What is asked of labels, as `kubectl get -l` takes it; empty when nothing is.
    pub fn selector_text(&self) -> String {
        let mut selector: Selector = self.phone_selector.clone().into_iter().collect();
        selector.extend(read(self.selector.as_ref()).unwrap_or_default());
        selector.to_string()
    }

    /// What is asked of the labels of phones that may see text; empty when nothing is.
    pub fn trusted_text(&self) -> String {
        read(self.trusted_phones.as_ref()).unwrap_or_default().to_string()
    }
}

/// None for one that cannot be read.
fn read(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.map_or_else(|| Some(Selector::default()), |selector| Selector::try_from(selector.clone()).ok())
}

/// One that cannot be read, which the schema refuses, matches nothing.
fn matches(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    read(selector).is_some_and(|selector| selector.matches(labels))
}

/// A label selector, held to what a cluster's API server checks in code: the operators, and values where they belong.
pub(crate) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::Schema::try_from(json!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that must be there, each with that value.",
                "maxProperties": MAX_ENTRIES,
                "additionalProperties": { "type": "string", "maxLength": MAX_VALUE },
            },
            "matchExpressions": {
                "type": "array",
                "description": "Conditions on labels, each of which must hold.",
                "maxItems": MAX_ENTRIES,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "type": "string",
                            "description": "The label that the condition is about.",
                            "minLength": 1,
                            "maxLength": MAX_KEY,
                        },
                        "operator": {
                            "type": "string",
                            "description": "`In`: it has one of `values`. `NotIn`: it has none of them, or is not there. `Exists` and `DoesNotExist`: whether it is there.",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "type": "array",
                            "description": "At least one with `In` and `NotIn`, none with the others.",
                            "maxItems": MAX_ENTRIES,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": MAX_VALUE },
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
                        "message": "In and NotIn take at least one value, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    }))
    .expect("an object is a schema")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labels(text: &[(&str, &str)]) -> BTreeMap<String, String> {
        text.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_are_selected_as_kubernetes_selects_them() {
        let kitchen = labels(&[("room", "kitchen"), ("fast", "")]);
        let table = [
            (json!({}), true),
            (json!({ "matchLabels": { "room": "kitchen" } }), true),
            (json!({ "matchLabels": { "room": "kitchen", "floor": "1" } }), false),
            (json!({ "matchExpressions": [{ "key": "room", "operator": "In", "values": ["hall", "kitchen"] }] }), true),
            (json!({ "matchExpressions": [{ "key": "floor", "operator": "In", "values": ["1"] }] }), false),
            (json!({ "matchExpressions": [{ "key": "room", "operator": "NotIn", "values": ["kitchen"] }] }), false),
            // As in Kubernetes: what is not there is in no set.
            (json!({ "matchExpressions": [{ "key": "floor", "operator": "NotIn", "values": ["1"] }] }), true),
            (json!({ "matchExpressions": [{ "key": "fast", "operator": "Exists" }] }), true),
            (json!({ "matchExpressions": [{ "key": "fast", "operator": "DoesNotExist" }] }), false),
            (json!({ "matchExpressions": [{ "key": "floor", "operator": "DoesNotExist" }] }), true),
            (
                json!({ "matchLabels": { "room": "kitchen" }, "matchExpressions": [{ "key": "fast", "operator": "DoesNotExist" }] }),
                false,
            ),
            // Nobody can say what it means, so nothing is taken for it.
            (json!({ "matchExpressions": [{ "key": "fast", "operator": "Near" }] }), false),
        ];
        for (selector, expected) in table {
            let placement =
                Placement { selector: serde_json::from_value(selector.clone()).unwrap(), ..Placement::default() };
            assert_eq!(placement.selects(&kitchen), expected, "{selector}");
        }
        let trusting = |selector: serde_json::Value| Placement {
            trusted_phones: serde_json::from_value(selector).unwrap(),
            ..Placement::default()
        };
        assert!(Placement::default().trusts(&kitchen));
        assert!(trusting(json!({ "matchLabels": { "room": "kitchen" } })).trusts(&kitchen));
        assert!(!trusting(json!({ "matchLabels": { "trust.polyphony.dev/own": "true" } })).trusts(&kitchen));
        assert!(!trusting(json!({ "matchExpressions": [{ "key": "room", "operator": "?" }] })).trusts(&kitchen));
        let deprecated = Placement { phone_selector: labels(&[("room", "kitchen")]), ..Placement::default() };
        assert!(deprecated.selects(&kitchen) && !deprecated.selects(&labels(&[("room", "hall")])));
        assert!(Placement::default().selects(&labels(&[])));
    }

    #[test]
    fn what_is_asked_reads_as_a_selector() {
        let selector = json!({ "matchLabels": { "room": "kitchen" }, "matchExpressions": [{ "key": "hot", "operator": "DoesNotExist" }] });
        let placement = Placement { selector: serde_json::from_value(selector).unwrap(), ..Placement::default() };
        assert_eq!(placement.selector_text(), "room=kitchen,!hot");
        assert_eq!(Placement::default().selector_text(), "");
    }
}
