//! Doorway: `/metrics` of the whole process and of each phone, and the list of what Prometheus is to scrape.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use polyphony_doorway::Certificates;
use polyphony_gateway::Gateway;
use polyphony_identity::Clock;
use tokio::sync::watch;

use super::targets::OF_PHONES;
use super::{Metrics, targets};
use crate::door::users::Accounts;
use crate::hub::registry::Registry;
use crate::reconcile::reach::Reach;
use crate::secret::Secret;

/// Where the list is.
const TARGETS: &str = "/v1alpha1/prometheus/targets";

/// A phone that does not answer a scrape by then is silent.
const ANSWER: Duration = Duration::from_secs(5);

/// What is shown.
pub struct Door {
    pub gateway: Arc<Gateway>,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<Registry>,
    pub reach: Arc<Reach>,
    /// Where.
    pub own_address: SocketAddr,
    /// What who scrapes has to show, or a user's certificate; none where everybody here may.
    pub token: Option<Secret>,
    pub users: watch::Receiver<Arc<Option<Accounts>>>,
}

// === impl Door ===

impl Door {
    fn is_user(&self, shown: Option<&Certificates>) -> bool {
        let accounts = self.users.borrow().clone();
        let accounts = accounts.as_ref().as_ref();
        shown.zip(accounts).is_some_and(|(shown, accounts)| accounts.user(shown, Clock::system().now()).is_ok())
    }
}

/// What `--metrics-address` serves.
pub fn router(door: Door) -> Router {
    let door = Arc::new(door);
    Router::new()
        .route("/metrics", get(scrape))
        .route(&format!("{OF_PHONES}{{phone}}"), get(scrape_phone))
        .route(
            TARGETS,
            get(async |State(door): State<Arc<Door>>| Json(targets::listing(door.own_address, &door.metrics.phones()))),
        )
        .layer(from_fn_with_state(door.clone(), let_in))
        .route("/healthz", get(async |State(door): State<Arc<Door>>| ok_unless(door.reach.hangs(Instant::now()))))
        .route("/readyz", get(async |State(door): State<Arc<Door>>| ok_unless(door.reach.out_of_reach(Instant::now()))))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                format!("GET /metrics, {OF_PHONES}NAME, /healthz, /readyz and {TARGETS} are here\n"),
            )
        })
        .with_state(door)
}

async fn let_in(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let is_let_in = match &door.token {
        None => true,
        // A token that is shown counts, as at the API.
        Some(token) => match given {
            Some(given) => token.matches(given.strip_prefix("Bearer ").unwrap_or_default()),
            None => door.is_user(request.extensions().get::<Certificates>()),
        },
    };
    if !is_let_in {
        tracing::warn!(path = %request.uri().path(), "a scrape without the token of --metrics-token-file, or a user's certificate, was refused");
        let why = "send the token of --metrics-token-file as a bearer token, or show a user's certificate\n";
        return (StatusCode::UNAUTHORIZED, why).into_response();
    }
    next.run(request).await
}

async fn scrape_phone(State(door): State<Arc<Door>>, Path(phone): Path<String>) -> Response {
    let Some(answer) = door.registry.ask_metrics(&phone) else {
        return (StatusCode::NOT_FOUND, "no phone of that name is linked\n").into_response();
    };
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        // Another scrape took its place, or the link ended.
        Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "the phone is asked by another, or has gone\n").into_response(),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "the phone does not answer\n").into_response(),
    }
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
