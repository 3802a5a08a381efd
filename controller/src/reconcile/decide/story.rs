//! Stories: events before they are written, so that `describe` tells what happened and why.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};

use super::Action;

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    pub about: ObjectReference,
    pub severity: Severity,
    /// CamelCase, for machines.
    pub reason: String,
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// An action that tells a story about `object`.
pub(crate) fn tell<K>(object: &K, severity: Severity, reason: impl Into<String>, note: impl Into<String>) -> Action
where
    K: Resource<DynamicType = ()>,
{
    // References come without a resource version: the story is about the object, not about one version of it.
    let about = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(object.name_any()),
        namespace: object.namespace(),
        uid: object.uid(),
        ..ObjectReference::default()
    };
    Action::Tell(Story { about, severity, reason: reason.into(), note: note.into() })
}
