//! Requests: what a path names, what a query asks for, and which form of answer is accepted.

use std::sync::Arc;

use axum::extract::Query;
use http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;
use polyphony_selector::{FieldSelector, FieldSelectorError, LabelSelector, LabelSelectorError};

use super::failure::Failure;
use crate::registry::{Kind, Registry};
use crate::schema::FieldValidation;
use crate::store::Key;

/// What a path names.
#[derive(Clone, Debug)]
pub struct Target {
    pub kind: Arc<Kind>,
    /// None for cluster scope, and for a list over all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Subresource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Main,
    Status,
    Scale,
}

/// The query parameters that this server knows.
#[derive(Clone, Debug)]
pub struct Params {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub limit: Option<usize>,
    pub continue_token: Option<String>,
    /// None when absent; "0" is any.
    pub resource_version: Option<u64>,
    pub resource_version_match: Option<String>,
    pub watch: bool,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
    pub field_manager: Option<String>,
    pub validation: FieldValidation,
    pub force: bool,
    pub dry_run: bool,
    pub propagation_policy: Option<String>,
    pub include_object: Option<String>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Whole,
    Table,
    /// `PartialObjectMetadata`: metadata alone.
    Metadata,
}

// === impl Target ===

impl Target {
    /// Reads `/api/v1/…` and `/apis/{group}/{version}/…`.
    pub fn parse(registry: &Registry, path: &str) -> Result<Target, Failure> {
        let mut parts = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let part = percent_decode_str(part).decode_utf8().map_err(|_| Failure::unknown_path())?;
            parts.push(part.into_owned());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(Failure::unknown_path()),
        };
        let find = |plural: &str| registry.get(group, version, plural).cloned();
        let found = match rest {
            // `namespaces` is a kind and a scope: one or two parts name namespaces, and so does a subresource as third.
            ["namespaces", namespace, plural, rest @ ..] if find(plural).is_some_and(|kind| kind.namespaced) => {
                let kind = find(plural).ok_or_else(Failure::unknown_path)?;
                (kind, Some((*namespace).to_owned()), rest)
            }
            [plural, rest @ ..] => (find(plural).ok_or_else(Failure::unknown_path)?, None, rest),
            [] => return Err(Failure::unknown_path()),
        };
        let (kind, namespace, rest) = found;
        if kind.namespaced && namespace.is_none() && !rest.is_empty() {
            return Err(Failure::unknown_path());
        }
        let (name, subresource) = match rest {
            [] => (None, Subresource::Main),
            [name] => (Some((*name).to_owned()), Subresource::Main),
            [name, "status"] if kind.status => (Some((*name).to_owned()), Subresource::Status),
            [name, "scale"] if kind.scale.is_some() => (Some((*name).to_owned()), Subresource::Scale),
            _ => return Err(Failure::unknown_path()),
        };
        Ok(Target { kind, namespace, name, subresource })
    }

    /// The key of the named object, or of one called `name`.
    pub fn key(&self, name: &str) -> Key {
        Key::new(&storage_resource(&self.kind), self.namespace.as_deref().unwrap_or_default(), name)
    }
}

impl Subresource {
    /// As field managers record it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Subresource::Main => None,
            Subresource::Status => Some("status"),
            Subresource::Scale => Some("scale"),
        }
    }
}

/// Under which resource objects of `kind` are kept: events of both groups are the same objects.
pub fn storage_resource(kind: &Kind) -> String {
    match kind.group.as_str() {
        "events.k8s.io" => kind.plural.clone(),
        _ => kind.resource(),
    }
}

// === impl Params ===

impl Params {
    pub fn parse(uri: &Uri) -> Result<Params, Failure> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Failure::bad_request(format!("invalid query: {error}")))?;
        let mut params = Params {
            labels: LabelSelector::default(),
            fields: FieldSelector::default(),
            limit: None,
            continue_token: None,
            resource_version: None,
            resource_version_match: None,
            watch: false,
            bookmarks: false,
            send_initial_events: None,
            timeout_seconds: None,
            field_manager: None,
            validation: FieldValidation::Warn,
            force: false,
            dry_run: false,
            propagation_policy: None,
            include_object: None,
        };
        for (name, value) in pairs {
            if !value.is_empty() {
                params.set(&name, value)?;
            }
        }
        Ok(params)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), Failure> {
        match name {
            "labelSelector" => self.labels = value.parse().map_err(refused::<LabelSelectorError>)?,
            "fieldSelector" => self.fields = value.parse().map_err(refused::<FieldSelectorError>)?,
            "limit" => self.limit = Some(number(name, &value)?).filter(|limit| *limit > 0).map(|limit| limit as usize),
            "continue" => self.continue_token = Some(value),
            "resourceVersion" => self.resource_version = Some(number(name, &value)?),
            "resourceVersionMatch" => self.resource_version_match = Some(value),
            "watch" => self.watch = flag(&value),
            "allowWatchBookmarks" => self.bookmarks = flag(&value),
            "sendInitialEvents" => self.send_initial_events = Some(flag(&value)),
            "timeoutSeconds" => self.timeout_seconds = Some(number(name, &value)?).filter(|seconds| *seconds > 0),
            "fieldManager" => self.field_manager = Some(value),
            "fieldValidation" => {
                self.validation = match value.as_str() {
                    "Strict" => FieldValidation::Strict,
                    "Warn" => FieldValidation::Warn,
                    "Ignore" => FieldValidation::Ignore,
                    _ => {
                        return Err(unsupported("fieldValidation", &value, "Ignore, Strict, Warn"));
                    }
                }
            }
            "force" => self.force = flag(&value),
            "dryRun" if value == "All" => self.dry_run = true,
            "dryRun" => return Err(unsupported("dryRun", &value, "All")),
            "propagationPolicy" => self.propagation_policy = Some(value),
            "includeObject" => self.include_object = Some(value),
            // As Kubernetes does: what is not known is not looked at.
            _ => {}
        }
        Ok(())
    }
}

fn refused<E: std::fmt::Display>(error: E) -> Failure {
    Failure::bad_request(error.to_string())
}

fn flag(value: &str) -> bool {
    matches!(value, "true" | "1" | "t" | "T" | "True" | "TRUE")
}

fn number(name: &str, value: &str) -> Result<u64, Failure> {
    value.parse().map_err(|_| Failure::bad_request(format!("invalid {name} {value:?}: must be a whole number")))
}

fn unsupported(name: &str, value: &str, supported: &str) -> Failure {
    Failure::bad_request(format!("{name}: Unsupported value: {value:?}: supported values: {supported}"))
}

// === impl Form ===

impl Form {
    /// The first form that the client accepts and the server has.
    pub fn accepted(headers: &HeaderMap) -> Result<Form, Failure> {
        let Some(accept) = headers.get(header::ACCEPT) else {
            return Ok(Form::Whole);
        };
        let accept = accept.to_str().map_err(|_| Failure::bad_request("the Accept header is not text"))?;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default();
            if !matches!(media_type, "" | "*/*" | "application/*" | "application/json") {
                continue;
            }
            let parameter = |wanted: &str| {
                let mut parts = range.split(';').map(str::trim);
                parts.find_map(|part| part.strip_prefix(wanted)?.strip_prefix('='))
            };
            match (parameter("as"), parameter("v")) {
                (None, _) => return Ok(Form::Whole),
                (Some("Table"), Some("v1")) => return Ok(Form::Table),
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                    return Ok(Form::Metadata);
                }
                _ => {}
            }
        }
        let message = "only the following media types are accepted: application/json";
        Err(Failure::new(http::StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_name_namespaces_and_what_lies_in_them() {
        let registry = Registry::builtin();
        let cases = [
            ("/api/v1/namespaces", "namespaces", None, None),
            ("/api/v1/namespaces/a", "namespaces", None, Some("a")),
            ("/api/v1/namespaces/a/status", "namespaces", None, Some("a")),
            ("/api/v1/namespaces/a/secrets", "secrets", Some("a"), None),
            ("/api/v1/namespaces/a/secrets/b%2Ec", "secrets", Some("a"), Some("b.c")),
            ("/api/v1/events", "events", None, None),
            ("/apis/coordination.k8s.io/v1/namespaces/a/leases/b", "leases.coordination.k8s.io", Some("a"), Some("b")),
        ];
        for (path, resource, namespace, name) in cases {
            let target = Target::parse(&registry, path).unwrap();
            assert_eq!(target.kind.resource(), resource, "{path}");
            assert_eq!(target.namespace.as_deref(), namespace, "{path}");
            assert_eq!(target.name.as_deref(), name, "{path}");
        }
        for path in ["/api/v1/secrets/a", "/api/v1/pods", "/api/v1", "/apis/x", "/api/v1/namespaces/a/secrets/b/status"]
        {
            assert!(Target::parse(&registry, path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_first_form_that_exists_is_taken() {
        let cases = [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Form::Table),
            ),
            ("application/vnd.kubernetes.protobuf,application/json", Some(Form::Whole)),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Form::Metadata)),
            ("*/*", Some(Form::Whole)),
            ("application/vnd.kubernetes.protobuf", None),
        ];
        for (accept, expected) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Form::accepted(&headers).ok(), expected, "{accept}");
        }
    }
}
