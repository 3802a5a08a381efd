//! Doorway: `GET /metrics` over HTTP, on loopback: from elsewhere the controller shows what this phone tells it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use polyphony_doorway::{Doorway, Hosts, Limits, only_from_here};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Metrics;

/// Scrapers may take so much of what the agent may open.
const PART_OF_DESCRIPTORS: usize = 16;

struct Door {
    metrics: Arc<Metrics>,
    /// One scrape at a time: however many ask, one blocking thread reads sensors.
    turn: Mutex<()>,
}

/// Opens the port of `--metrics-address`.
///
/// # Errors
/// When it is beyond loopback, or taken.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() {
        bail!(
            "--metrics-address {address} is not loopback, and anyone there could read the phone's state: use 127.0.0.1; the controller shows the metrics of each phone under /metrics/phones/NAME"
        );
    }
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: choose another --metrics-address"))
}

/// Answers scrapes until `shutdown`.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, shutdown: CancellationToken) {
    let door = Arc::new(Door { metrics, turn: Mutex::new(()) });
    let router = Router::new()
        .route("/metrics", get(scrape))
        .fallback(async || (StatusCode::NOT_FOUND, "only GET /metrics is here\n"))
        .with_state(door);
    let bound = listener.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
    let router = only_from_here(router, Hosts::new(bound, [""; 0]));
    let doorway = Doorway::new(listener, Limits::part_of_descriptors(PART_OF_DESCRIPTORS));
    // A connection that is still open when the agent stops is cut: a scrape is worth no waiting.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = doorway.serve(router, shutdown.clone()) => {}
    }
}

async fn scrape(State(door): State<Arc<Door>>) -> Response {
    let _turn = door.turn.lock().await;
    let metrics = door.metrics.clone();
    let why = match tokio::task::spawn_blocking(move || metrics.text()).await {
        Ok(Ok(text)) => return ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(error = %why, "a scrape failed");
    (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
}
