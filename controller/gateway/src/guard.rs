//! Guard: what every request passes: which host it is for, which site's page sent it (CORS), and the id that it goes by.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::config::GatewayConfig;
use crate::errors::ApiError;
use crate::random::random;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id is replaced.
const MAX_ID_BYTES: usize = 128;
/// How long a browser may remember what it may send: ten minutes.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// What a page may read of an answer beside its body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
);

/// The id that a request goes by: its own, or one that was made for it.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) HeaderValue);

pub(crate) async fn guarded(State(config): State<Arc<GatewayConfig>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let mut response = match admit(&config, &request) {
        Err(error) => error.into_response(),
        Ok(None) => next.run(request).await,
        Ok(Some(origin)) => {
            let preflight = preflight(&request);
            let mut response = match preflight {
                Some(preflight) => preflight,
                None => next.run(request).await,
            };
            let headers = response.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
            response
        }
    };
    response.headers_mut().insert(X_REQUEST_ID, id.0);
    response
}

/// The origin that an answer has to name, if any.
fn admit(config: &GatewayConfig, request: &Request) -> Result<Option<HeaderValue>, ApiError> {
    let (uri, headers) = (request.uri(), request.headers());
    if let Some(hosts) = &config.hosts {
        hosts.check(uri, headers).map_err(|refused| ApiError::not_from_here(&refused))?;
    }
    let origin = config.origins.check(uri, headers).map_err(|refused| ApiError::not_from_here(&refused))?;
    Ok(origin.and_then(|origin| HeaderValue::from_str(origin).ok()))
}

/// The answer to a browser that asks what a page may send.
fn preflight(request: &Request) -> Option<Response> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let allowed = response.headers_mut();
    allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    // Clients send headers of their own, such as what they run on; none means anything here.
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    allowed.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Some(response)
}

// === impl RequestId ===

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let is_good = |id: &&HeaderValue| {
            (1..=MAX_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let made = || {
            let id = format!("req-{:016x}{:016x}", random(), random());
            HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("req"))
        };
        Self(headers.get(X_REQUEST_ID).filter(is_good).cloned().unwrap_or_else(made))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}
