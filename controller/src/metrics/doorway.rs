//! Doorway: `/metrics` of the whole process, and the list of what Prometheus is to scrape.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use polyphony_gateway::Gateway;

use super::{Metrics, targets};
use crate::reconcile::reach::Reach;

/// Where the list is.
const TARGETS: &str = "/v1alpha1/prometheus/targets";

struct Door {
    gateway: Arc<Gateway>,
    metrics: Arc<Metrics>,
    reach: Arc<Reach>,
    own_address: SocketAddr,
}

/// What `--metrics-address` serves; `own_address` is where that is.
pub fn router(gateway: Arc<Gateway>, metrics: Arc<Metrics>, reach: Arc<Reach>, own_address: SocketAddr) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route(
            TARGETS,
            get(async |State(door): State<Arc<Door>>| Json(targets::listing(door.own_address, &door.metrics.agents()))),
        )
        .route("/healthz", get(async |State(door): State<Arc<Door>>| ok_unless(door.reach.hangs(Instant::now()))))
        .route("/readyz", get(async |State(door): State<Arc<Door>>| ok_unless(door.reach.out_of_reach(Instant::now()))))
        .fallback(async || (StatusCode::NOT_FOUND, format!("GET /metrics, /healthz, /readyz and {TARGETS} are here\n")))
        .with_state(Arc::new(Door { gateway, metrics, reach, own_address }))
}

/// What is wrong with the control plane, for a probe.
fn ok_unless(trouble: Option<String>) -> Response {
    match trouble {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn scrape(State(door): State<Arc<Door>>) -> Response {
    match door.gateway.metrics().text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("no metrics: {error}\n")).into_response(),
    }
}
