//! Doorway: `GET /metrics` over HTTP, on loopback unless a closed lab asks for more.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, serve as serve_http};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Metrics;

struct Door {
    metrics: Arc<Metrics>,
    /// One scrape at a time: however many ask, one blocking thread reads sensors.
    turn: Mutex<()>,
}

/// Opens the port of `--metrics-address`.
///
/// # Errors
/// When it is beyond loopback without `--insecure`, or taken.
pub async fn bind(address: SocketAddr, insecure: bool) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() && !insecure {
        bail!(
            "--metrics-address {address} is not loopback, and anyone there could read the phone's state: use 127.0.0.1, or --insecure in a closed lab"
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
    // A connection that is still open when the agent stops is cut: a scrape is worth no waiting.
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = async { serve_http(listener, router).await } => {
            if let Err(error) = ended {
                tracing::error!(%error, "/metrics is no longer served");
            }
        }
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
