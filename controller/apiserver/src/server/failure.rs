//! Failures: what a request is answered with when it is not granted, as a metav1 `Status` in Kubernetes' words.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::apply::{ApplyError, Conflict};
use crate::registry::Kind;
use crate::schema::{FieldError, FieldErrorKind};
use crate::store::{Expired, StoreError};

/// A `Status` of status `Failure`.
#[derive(Clone, Debug)]
pub struct Failure(Box<Status>);

#[derive(Clone, Debug)]
struct Status {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
}

// === impl Failure ===

impl Failure {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Failure(Box::new(Status { code, reason, message: message.into(), details: Value::Null }))
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.0.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    fn with_causes(mut self, causes: Vec<Value>) -> Self {
        self.0.details["causes"] = Value::Array(causes);
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// In Kubernetes' one word, and with a reason where that tells nothing to strangers.
    pub fn unauthorized(why: Option<&str>) -> Self {
        let message = why.map_or_else(|| "Unauthorized".to_owned(), |why| format!("Unauthorized: {why}"));
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub fn forbidden_for(kind: &Kind, name: &str, detail: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {detail}", kind.resource());
        Failure::forbidden(message).about(kind, name)
    }

    /// No such path, kind or subresource.
    pub fn unknown_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut failure = Failure::new(StatusCode::NOT_FOUND, "NotFound", message);
        failure.0.details =
            json!({"causes": [{"reason": "UnexpectedServerResponse", "message": "404 page not found"}]});
        failure
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.resource());
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.resource());
        Failure::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    pub fn conflict(kind: &Kind, name: &str, detail: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {detail}", kind.resource());
        Failure::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// The object was changed since the writer read it.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        let detail = "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(kind, name, detail)
    }

    /// The object breaks its schema, or metadata's own rules.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let lines: Vec<String> =
            errors
                .iter()
                .map(|error| {
                    if error.path.is_empty() {
                        error.detail.clone()
                    } else {
                        format!("{}: {}", error.path, error.detail)
                    }
                })
                .collect();
        let text = match lines.as_slice() {
            [line] => line.clone(),
            lines => format!("[{}]", lines.join(", ")),
        };
        let message = format!("{qualified} \"{name}\" is invalid: {text}");
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(kind, name);
        let causes = errors.iter().map(FieldError::cause).collect();
        let mut failure = failure.with_causes(causes);
        failure.0.details["kind"] = json!(kind.kind);
        failure
    }

    pub fn invalid_field(kind: &Kind, name: &str, path: &str, sort: FieldErrorKind, detail: impl Into<String>) -> Self {
        let error = FieldError { path: path.to_owned(), kind: sort, detail: detail.into() };
        Failure::invalid(kind, name, &[error])
    }

    /// The body has fields that are unknown or given twice, and strict validation was asked for.
    pub fn strict(kind: &Kind, faults: &[String]) -> Self {
        let faults = faults.join(", ");
        let (name, version) = (&kind.kind, &kind.version);
        Failure::bad_request(format!(
            "{name} in version \"{version}\" cannot be handled as a {name}: strict decoding error: {faults}"
        ))
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The body did not come in time.
    /// It will be, in a moment: clients come back by themselves.
    pub fn not_yet(why: &str) -> Self {
        let mut failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why);
        failure.0.details = json!({"retryAfterSeconds": 1});
        failure
    }

    pub fn slow() -> Self {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body of the request did not come in time")
    }

    pub fn expired(expired: Expired) -> Self {
        Failure::new(StatusCode::GONE, "Expired", expired.to_string())
    }

    /// The client knows a revision that this server has not reached.
    pub fn too_new(asked: u64, newest: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {newest}");
        let mut failure = Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        failure.0.details = json!({"retryAfterSeconds": 1});
        failure.with_causes(vec![json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"})])
    }

    pub fn too_many_requests(detail: &str) -> Self {
        let mut failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", detail);
        failure.0.details = json!({"retryAfterSeconds": 1});
        failure
    }

    pub fn apply(kind: &Kind, name: &str, error: ApplyError) -> Self {
        let text = error.to_string();
        let ApplyError::Conflicts(conflicts) = error else {
            return Failure::bad_request(text).about(kind, name);
        };
        let mut failure = Failure::new(StatusCode::CONFLICT, "Conflict", text);
        failure.0.details = json!({});
        failure.with_causes(conflicts.iter().map(Conflict::cause).collect())
    }

    pub fn status_code(&self) -> StatusCode {
        self.0.code
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The metav1 `Status`.
    pub fn to_status(&self) -> Value {
        let Status { code, reason, message, details } = &*self.0;
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        if !details.is_null() {
            status["details"] = details.clone();
        }
        status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status_code(), Json(self.to_status())).into_response();
        // Clients wait only for what the header says.
        if let Some(seconds) = self.0.details["retryAfterSeconds"].as_u64() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (code, reason) = match &error {
            StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            StoreError::Full { .. } | StoreError::FullBytes { .. } => (StatusCode::FORBIDDEN, "Forbidden"),
            StoreError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        };
        Failure::new(code, reason, error.to_string())
    }
}
