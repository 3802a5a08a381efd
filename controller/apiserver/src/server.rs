//! The server: HTTP on one side, the store on the other. No rule about objects lives in this file.

mod answer;
mod apply;
mod body;
mod delete;
mod discovery;
mod failure;
mod form;
mod garbage;
mod guard;
mod housekeeping;
mod identity;
mod kinds;
mod kubeconfig;
mod lifetime;
mod list;
mod patch;
mod path;
mod places;
mod protobuf;
mod random;
mod request;
mod resource;
mod reviews;
mod scale;
mod special;
mod start;
mod watch;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, Uri, header};
use polyphony_doorway::{Certificates, Doorway, Limits as DoorLimits};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::openapi;
use crate::registry::RegistryError;
use crate::store::backup::Backup;
use crate::store::{Limits, Store, StoreError};
use failure::Failure;
pub use guard::{Bearer, ByCertificate, NobodyKnown, Role, User};
use guard::{Guard, is_write};
use kinds::Kinds;
pub use kubeconfig::{Credential, kubeconfig};
use places::Places;

/// The Kubernetes whose surface this is.
const VERSION: (&str, &str, &str) = ("1", "34", "v1.34.0+polyphony");
/// The name of who has the token of the configuration.
const ADMIN: &str = "polyphony";
/// Where an admin gets all that is stored, as [`Backup`]; no part of Kubernetes.
pub const BACKUP_PATH: &str = "/backup";
/// Its connections may take so much of what the process may open.
const PART_OF_DESCRIPTORS: usize = 4;
/// How long open requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(3);

/// What a server needs.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// The file of the store; made when it is not there, its directory is not.
    pub store_path: PathBuf,
    /// The bearer token of the admin: every request but those for health has to carry it, or that of another user.
    pub token: String,
    /// Who else may come in by a token.
    pub bearers: Vec<Bearer>,
    /// Who may by the certificate of a connection, which whoever made the acceptor has checked; nobody where none is told.
    pub by_certificate: Option<ByCertificate>,
    /// `CustomResourceDefinition`s (apiextensions.k8s.io/v1) that are stored, or brought up to date, at the start.
    pub crds: Vec<Value>,
    /// Hosts beside the loopback names and addresses that requests may be for.
    pub allowed_hosts: Vec<String>,
}

/// An open API server. Dropping it, and every router made of it, closes the store.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

/// Why a server does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApiServerError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Definition(#[from] RegistryError),
    #[error("the API server cannot be prepared: {detail}")]
    Prepare { detail: String },
    #[error("the API server has no token: give it one, so that not everyone on this machine is let in")]
    NoToken,
}

struct Inner {
    store: Store,
    kinds: Kinds,
    guard: Guard,
    closing: CancellationToken,
    watches: Places,
    housekeeper: Option<JoinHandle<()>>,
}

// === impl ApiServer ===

impl ApiServer {
    /// Opens the store, brings definitions and namespaces up to date, and begins to keep house on a thread of its own.
    ///
    /// Blocks while it reads the store.
    pub fn open(config: ApiServerConfig) -> Result<Self, ApiServerError> {
        if config.token.is_empty() {
            return Err(ApiServerError::NoToken);
        }
        let store = Store::open(&config.store_path, Limits::default())?;
        let kinds = Kinds::default();
        let closing = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| ApiServerError::Prepare { detail: error.to_string() })?;
        let (reader, writer) = (store.reader().clone(), store.writer().clone());
        // On the thread, because the caller may itself be inside a runtime, where blocking on one is refused.
        let (prepared, outcome) = std::sync::mpsc::sync_channel(1);
        let housekeeper = std::thread::Builder::new()
            .name("housekeeper".to_owned())
            .spawn({
                let (kinds, closing) = (kinds.clone(), closing.clone());
                move || {
                    runtime.block_on(async move {
                        let outcome = start::prepare(&reader, &writer, &kinds, config.crds).await;
                        let ready = outcome.is_ok();
                        // The one who asked waits for exactly this message.
                        let _ = prepared.send(outcome);
                        if ready {
                            housekeeping::run(reader, writer, kinds, closing).await;
                        }
                    });
                }
            })
            .map_err(|error| ApiServerError::Prepare { detail: error.to_string() })?;
        let prepared =
            outcome.recv().unwrap_or_else(|_| Err(ApiServerError::Prepare { detail: "its thread ended".to_owned() }));
        if let Err(error) = prepared {
            // It ends by itself, and the store may close only then.
            let _ = housekeeper.join();
            return Err(error);
        }
        let admin = Bearer { token: config.token, user: User { name: ADMIN.to_owned(), role: Role::Admin } };
        let bearers = std::iter::once(admin).chain(config.bearers).collect();
        let inner = Inner {
            store,
            kinds,
            guard: Guard::new(bearers, config.by_certificate, config.allowed_hosts),
            closing,
            watches: Places::default(),
            housekeeper: Some(housekeeper),
        };
        Ok(ApiServer { inner: Arc::new(inner) })
    }

    /// The whole HTTP surface.
    pub fn router(&self) -> Router {
        let inner = self.inner.clone();
        Router::new()
            .route("/version", get(version))
            .route(BACKUP_PATH, get(backup))
            .route("/openapi/v3", get(openapi_index))
            .fallback(anything)
            .layer(middleware::from_fn_with_state(inner.clone(), guarded))
            .route("/healthz", get(health))
            .route("/livez", get(health))
            .route("/readyz", get(health))
            .with_state(inner)
    }

    /// Serves until `shutdown`: plain HTTP, and TLS on the same port where there is an acceptor. Watches end then, and other requests get a moment to
    /// finish.
    pub async fn serve(self, listener: TcpListener, tls: Option<TlsAcceptor>, shutdown: CancellationToken) {
        let closing = self.inner.closing.clone();
        let router = self.router();
        let doorway = Doorway::new(listener, DoorLimits::part_of_descriptors(PART_OF_DESCRIPTORS));
        let doorway = match tls {
            Some(acceptor) => doorway.with_tls(acceptor),
            None => doorway,
        };
        drop(self);
        let late = async {
            shutdown.cancelled().await;
            closing.cancel();
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = doorway.serve(router, shutdown.clone()) => closing.cancel(),
            () = late => {}
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(housekeeper) = self.housekeeper.take() {
            // It holds a writer; the store closes only after it.
            let _ = housekeeper.join();
        }
    }
}

async fn health() -> &'static str {
    "ok"
}

async fn backup(State(inner): State<Arc<Inner>>) -> Json<Backup> {
    Json(inner.store.reader().everything().into())
}

async fn version() -> Json<Value> {
    let (major, minor, git_version) = VERSION;
    Json(json!({
        "major": major, "minor": minor, "gitVersion": git_version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    }))
}

async fn openapi_index(State(inner): State<Arc<Inner>>) -> Json<Value> {
    Json(openapi::index(&inner.kinds.current()))
}

/// Lets requests in, and writes one line of audit for each that changes something, or would have.
async fn guarded(State(inner): State<Arc<Inner>>, mut request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let user = match inner.guard.check(&uri, request.headers(), request.extensions().get::<Certificates>()) {
        Ok(user) => user,
        Err(failure) => {
            tracing::info!(target: "audit", %method, path = uri.path(), code = failure.status_code().as_u16(), why = failure.message(), "refused at the door");
            return failure.into_response();
        }
    };
    let checked = no_impersonation(request.headers()).and_then(|()| user.check(&method, &uri));
    let is_told = user.role != Role::Program && (is_write(&method, &uri) || checked.is_err());
    let response = match checked {
        Ok(()) => {
            request.extensions_mut().insert(user.clone());
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    };
    if is_told {
        tracing::info!(target: "audit", user = %user.name, %method, path = uri.path(), code = response.status().as_u16(), "a write");
    }
    response
}

/// Whoever asks as somebody else is not answered as who they are.
fn no_impersonation(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.keys().find(|name| name.as_str().starts_with("impersonate-")) {
        Some(_) => Err(Failure::forbidden("nobody is impersonated here: ask as who you are, without --as")),
        None => Ok(()),
    }
}

/// Discovery, schema documents, reviews and resources: all that lies under `/api`, `/apis` and `/openapi`.
async fn anything(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let registry = inner.kinds.current();
    let path = request.uri().path();
    if request.method() == http::Method::GET {
        if let Some(answer) = discovery::answer(&registry, path, request.headers()) {
            return answer;
        }
        if let Some(document) = openapi_document(&registry, request.uri(), request.headers()) {
            return document;
        }
    }
    resource::answer(inner, request).await.unwrap_or_else(Failure::into_response)
}

fn openapi_document(registry: &crate::registry::Registry, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    if uri.path() == "/openapi/v2" {
        return Some(openapi_v2(registry, headers));
    }
    let path = uri.path().strip_prefix("/openapi/v3/")?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let document = match parts.as_slice() {
        ["api", version] => openapi::document(registry, "", version)?,
        ["apis", group, version] => openapi::document(registry, group, version)?,
        _ => return None,
    };
    Some(Json(document).into_response())
}

/// In protobuf for who asks for it first, as kubectl does; in JSON for everyone else.
fn openapi_v2(registry: &crate::registry::Registry, headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.split(',').next().is_some_and(|first| first.contains("proto-openapi.spec.v2")) {
        return ([(header::CONTENT_TYPE, openapi::v2::PROTOBUF)], openapi::v2::protobuf(registry)).into_response();
    }
    Json(openapi::v2::json(registry)).into_response()
}
