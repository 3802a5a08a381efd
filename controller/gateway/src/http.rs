//! HTTP: every route of the gateway, behind one guard. Answers for health and metrics; each API over the sessions is a file of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{Method, StatusCode, Uri, header};

use crate::callers::{Callers, recognised};
use crate::config::GatewayConfig;
use crate::desk::Desk;
use crate::door::Door;
use crate::errors::ApiError;
use crate::guard::guarded;
use crate::metrics::Metrics;
use crate::openai;
use crate::sessions::Sessions;

pub(crate) fn router(
    sessions: Arc<dyn Sessions>,
    config: Arc<GatewayConfig>,
    metrics: Arc<Metrics>,
    callers: Arc<Callers>,
) -> Router {
    let desk = Desk::new(config.clone());
    openai::routes()
        .route("/health", get(health))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .fallback(async |method: Method, uri: Uri| ApiError::no_route(&method, uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| ApiError::wrong_method(&method, uri.path()))
        .layer(from_fn_with_state(callers, recognised))
        .layer(from_fn_with_state(config.clone(), guarded))
        .with_state(Arc::new(Door { sessions, config, metrics, desk }))
}

async fn health() -> &'static str {
    "ok"
}

/// Ready when any model can answer; otherwise says of each why not.
async fn ready(State(door): State<Arc<Door>>) -> Response {
    match crate::models::why_not_ready(&door.sessions.models()) {
        None => "ok".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn scrape(State(door): State<Arc<Door>>) -> Result<Response, ApiError> {
    let text = door.metrics.text().map_err(|error| ApiError::internal(format!("no metrics: {error}")))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}
