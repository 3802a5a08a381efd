//! Errors in OpenAI's form: what a client reads when it gets no answer.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use polyphony_doorway::Refused;
use serde::Serialize;

/// An error as a status and as the `error` object of a body or of a stream's last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// Cause and remedy; names the field and what to send.
    pub message: String,
    pub kind: &'static str,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    pub code: Option<&'static str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";

/// The body of an error response, and the data of an error event.
#[derive(Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: String) -> Self {
        Self { status, message, kind, param: None, code, retry_after: None }
    }

    fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// A field holds what it may not hold; `expected` says what to send.
    pub(crate) fn field(param: &str, expected: impl std::fmt::Display) -> Self {
        let message = format!("`{param}`: {expected}");
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("invalid_value"), message).at(param)
    }

    /// A chat with a model that has no template for chats.
    pub(crate) fn no_chat_template(error: impl std::fmt::Display) -> Self {
        let message = format!("`messages`: {error}");
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("no_chat_template"), message).at("messages")
    }

    pub(crate) fn missing(param: &str, expected: &str) -> Self {
        let message = format!("`{param}` is missing: send {expected}");
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("missing_required_parameter"), message).at(param)
    }

    /// The request asks for something that would change the answer and that this gateway cannot do.
    pub(crate) fn unsupported(param: &str, remedy: &str) -> Self {
        let message = format!("`{param}` is not supported: {remedy}");
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("unsupported_parameter"), message).at(param)
    }

    pub(crate) fn body(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("invalid_body"), message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is larger than the limit of {limit} bytes: send a shorter prompt");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, Some("body_too_large"), message)
    }

    pub(crate) fn body_late() -> Self {
        let message = "the body did not come in time: send it at once, or over a better link".to_owned();
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, Some("body_late"), message)
    }

    /// Other requests' bodies and texts take all the memory that there is for them.
    pub(crate) fn too_busy(waited: Duration, retry_after: Duration) -> Self {
        let message = format!(
            "there was no room to read the request within {} s, for others are being read: try again later",
            waited.as_secs()
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("too_busy"), message).after(retry_after)
    }

    /// Others wait for the room that a body takes which comes slowly.
    pub(crate) fn body_in_the_way(retry_after: Duration) -> Self {
        let message = "the body came slowly, and others waited for the room that it took: send it again, over a better link if there is one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("too_busy"), message.to_owned()).after(retry_after)
    }

    /// In OpenAI's words, as far as they fit.
    pub(crate) fn no_key() -> Self {
        let message = "You didn't provide an API key: send one as `Authorization: Bearer KEY`; whoever runs this gateway makes them with `polyctl key create`";
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, Some("missing_api_key"), message.to_owned())
    }

    pub(crate) fn wrong_key() -> Self {
        let message = "Incorrect API key provided: it is none of this gateway's, or was deleted";
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, Some("invalid_api_key"), message.to_owned())
    }

    pub(crate) fn key_expired(name: &str) -> Self {
        let message = format!("the API key {name} has expired: ask for a new one");
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, Some("expired_api_key"), message)
    }

    pub(crate) fn model_not_allowed(model: &str, allowed: &[String]) -> Self {
        let message = format!("this API key may not ask the model `{model}`: send one of: {}", allowed.join(", "));
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, Some("model_not_allowed"), message).at("model")
    }

    pub(crate) fn rate_limited(what: &str, limit: u32, after: Duration) -> Self {
        let seconds = after.as_secs_f64().ceil();
        let message = format!("Rate limit reached for {what}: {limit} a minute. Please try again in {seconds:.0}s");
        let after = Duration::from_secs(seconds as u64);
        Self::new(StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, Some("rate_limit_exceeded"), message).after(after)
    }

    /// A request that a web page may have made a browser send.
    pub(crate) fn not_from_here(refused: &Refused) -> Self {
        let (code, remedy) = match refused {
            Refused::Host { .. } => ("host_not_allowed", "start the controller with --allowed-host"),
            Refused::Origin { .. } => ("origin_not_allowed", "start the controller with --cors-origin"),
        };
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, Some(code), format!("{refused} ({remedy})"))
    }

    pub(crate) fn model_not_found<'a>(model: &str, known: impl Iterator<Item = &'a String>) -> Self {
        let known: Vec<&str> = known.map(String::as_str).collect();
        let remedy = match known.as_slice() {
            [] => "there is no deployment yet, apply an InferenceDeployment".to_owned(),
            known => format!("send one of: {}", known.join(", ")),
        };
        let message = format!("the model `{model}` does not exist: {remedy}");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, Some("model_not_found"), message).at("model")
    }

    pub(crate) fn no_route(method: &http::Method, path: &str) -> Self {
        let message = format!("there is no {method} {path} here: see GET /v1/models for what this gateway serves");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, Some("unknown_url"), message)
    }

    pub(crate) fn wrong_method(method: &http::Method, path: &str) -> Self {
        let message = format!("{path} does not answer {method}: the `Allow` header says which method it does");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, Some("method_not_allowed"), message)
    }

    /// In the words that OpenAI's clients and LiteLLM know it by.
    pub(crate) fn context_length_exceeded(param: &str, n_prompt: usize, context_length: u32) -> Self {
        let n_requested = n_prompt.saturating_add(1);
        let requested = format!("{n_requested} tokens ({n_prompt} in the prompt, at least 1 in the completion)");
        Self::context_length(param, &requested, context_length)
    }

    /// A text that is too long to be counted in tokens.
    pub(crate) fn text_too_long(param: &str, n_bytes: usize, fewest_tokens: usize, context_length: u32) -> Self {
        let requested = format!("at least {fewest_tokens} tokens (a prompt of {n_bytes} bytes)");
        Self::context_length(param, &requested, context_length)
    }

    fn context_length(param: &str, requested: &str, context_length: u32) -> Self {
        let at_most = context_length.saturating_sub(1);
        let message = format!(
            "This model's maximum context length is {context_length} tokens. However, you requested {requested}. Please reduce the length of the prompt to at most {at_most} tokens."
        );
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, Some("context_length_exceeded"), message).at(param)
    }

    pub(crate) fn not_ready(model: &str, reason: Option<&str>, retry_after: Duration) -> Self {
        let reason = reason.unwrap_or("no ring of phones is ready yet");
        let message = format!("the model `{model}` cannot answer now: {reason}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("model_not_ready"), message).after(retry_after)
    }

    /// What was asked of one model file is not for another to answer, nor to go on with.
    pub(crate) fn model_changed(model: &str, retry_after: Duration) -> Self {
        let message = format!("the model file of `{model}` was changed meanwhile: send the request again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("model_changed"), message).after(retry_after)
    }

    pub(crate) fn queue_full(model: &str, n_waiting: usize, retry_after: Duration) -> Self {
        let message = format!("{n_waiting} sessions wait for `{model}` already, which is the limit: try again later");
        Self::new(StatusCode::TOO_MANY_REQUESTS, RATE_LIMIT, Some("queue_full"), message).after(retry_after)
    }

    pub(crate) fn waited_too_long(model: &str, waited: Duration, reason: Option<&str>, retry_after: Duration) -> Self {
        let seconds = waited.as_secs_f32();
        let reason = reason.unwrap_or("every session of its rings is taken");
        let message =
            format!("no ring of `{model}` took the session within {seconds:.0} s ({reason}): try again later");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("no_ring"), message).after(retry_after)
    }

    /// An answer broke off, and nothing is to come that could go on with it.
    pub(crate) fn ring_lost(model: &str, reason: Option<&str>, retry_after: Duration) -> Self {
        let reason = reason.unwrap_or("no ring of phones is ready, and none is planned");
        let message = format!(
            "the answer of `{model}` broke off, and there is no ring to go on with it: {reason}. Send the request again when there is"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("no_ring"), message).after(retry_after)
    }

    pub(crate) fn replays_exhausted(model: &str, n_replays: u32, cause: &str, retry_after: Duration) -> Self {
        let message = format!(
            "the answer of `{model}` broke off, and {n_replays} replays in a row brought no token; the last failure: {cause}. Send the request again"
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("session_lost"), message).after(retry_after)
    }

    /// A stage says that the session's frames are wrong, which no replay can mend.
    pub(crate) fn session_refused(model: &str, cause: &str) -> Self {
        let message = format!("the phones of `{model}` refused the session, which is a fault of this program: {cause}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("session_refused"), message)
    }

    /// A stage says that the model's numbers are none, as they will be wherever it runs.
    pub(crate) fn model_unsound(model: &str, cause: &str) -> Self {
        let message = format!(
            "the model file of `{model}` gives no numbers ({cause}): import a sound file, and name it in the Model"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("model_unsound"), message)
    }

    pub(crate) fn client_too_slow(waited: Duration) -> Self {
        let message = format!("the answer lay unread for {} s, so the session was closed", waited.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, SERVER, Some("client_too_slow"), message)
    }

    pub(crate) fn closing(retry_after: Duration) -> Self {
        let message = "the gateway is shutting down: send the request again when it is back".to_owned();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, Some("shutting_down"), message).after(retry_after)
    }

    /// The host's own copy of the model file is at fault, or this program is.
    pub(crate) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, Some("internal_error"), message)
    }

    pub(crate) fn as_body(&self) -> ErrorBody<'_> {
        let Self { message, kind, param, code, .. } = self;
        ErrorBody { error: ErrorObject { message, r#type: kind, param: param.as_deref(), code: *code } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.as_body())).into_response();
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_has_the_four_fields_of_openai() {
        let error = ApiError::field("temperature", "send a number from 0 to 2");
        let body = serde_json::to_value(error.as_body()).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "`temperature`: send a number from 0 to 2",
            "type": "invalid_request_error", "param": "temperature", "code": "invalid_value",
        }});
        assert_eq!(body, expected);
    }

    #[test]
    fn an_error_that_passes_says_when_to_come_back() {
        let response = ApiError::queue_full("m", 3, Duration::from_secs(7)).into_response();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from(7)));
    }
}
