//! Doorway: takes connections in, one task each, and shows them out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::body::{Answer, Asked};
use crate::hall::{Guest, Hall, Place};
use crate::limits::Limits;
use crate::stream::Stream;
use crate::tls::Tls;
use crate::visit::Visit;

/// After the system had no connection to give: out of descriptors, say.
const PAUSE: Duration = Duration::from_millis(200);

/// A port that is open for HTTP.
pub struct Doorway {
    listener: TcpListener,
    limits: Arc<Limits>,
    tls: Option<Tls>,
}

// === impl Doorway ===

impl Doorway {
    /// Plain HTTP.
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        Self { listener, limits: Arc::new(limits), tls: None }
    }

    /// TLS, and plain HTTP from this machine alone, on the one port, told apart by a connection's first byte.
    #[must_use]
    pub fn with_tls(self, acceptor: TlsAcceptor) -> Self {
        Self { tls: Some(Tls { acceptor, plain_from_loopback: true }), ..self }
    }

    /// TLS and nothing else.
    #[must_use]
    pub fn only_tls(self, acceptor: TlsAcceptor) -> Self {
        Self { tls: Some(Tls { acceptor, plain_from_loopback: false }), ..self }
    }

    /// Serves until `shutdown`; then takes nobody in, lets who rests go, and ends when the last answer is over. Dropping it ends all at
    /// once.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let hall = Hall::new(self.limits.connections);
        let mut visits = JoinSet::new();
        loop {
            let next = async {
                hall.room().await;
                self.listener.accept().await
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = visits.join_next() => continue,
                accepted = next => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (limits, tls) = (self.limits.clone(), self.tls.clone());
                    visits.spawn(attend(stream, tls, hall.take_in(), router.clone(), limits, shutdown.clone()));
                }
                Err(error) => {
                    // A descriptor that is not used serves who wants in.
                    let made_room = hall.dismiss_longest_idle();
                    tracing::warn!(%error, made_room, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while visits.join_next().await.is_some() {}
    }
}

/// One connection from its acceptance to its end.
async fn attend(
    stream: TcpStream,
    tls: Option<Tls>,
    place: Place,
    router: Router,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
) {
    let (guest, from) = (&place.guest, stream.peer_addr().ok());
    let mut overdue = pin!(guest.overdue(&limits));
    let entered = tokio::select! {
        biased;
        entered = Stream::enter(stream, tls.as_ref(), guest.clone()) => entered,
        () = overdue.as_mut() => return,
        () = shutdown.cancelled() => return,
    };
    let stream = match entered {
        Ok(stream) => stream,
        // Who speaks neither has no way to read an answer.
        Err(error) => {
            if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) {
                tracing::info!(target: "audit", from = ?from, %error, "TLS did not come about");
            }
            return;
        }
    };
    let certificates = stream.certificates();
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().extend(certificates.clone());
        answer(request, router.clone(), guest.clone(), limits.clone())
    });
    let mut http = http1::Builder::new();
    // Time is kept here, for all phases together.
    http.header_read_timeout(None).max_buf_size(limits.head_bytes);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_leaving = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = overdue.as_mut() => return,
            () = shutdown.cancelled(), if !is_leaving => {
                // Who rests goes by that; who has not asked yet has nothing to lose.
                connection.as_mut().graceful_shutdown();
                if guest.has_not_asked() {
                    return;
                }
                is_leaving = true;
            }
        }
    }
}

fn answer(
    request: Request<Incoming>,
    router: Router,
    guest: Arc<Guest>,
    limits: Arc<Limits>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> {
    guest.note(Visit::ask);
    let is_held_back = request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| Body::new(Asked::new(body, is_held_back, guest.clone(), limits)));
    async move {
        let response = router.oneshot(request).await?;
        Ok(response.map(|body| Answer::new(body, guest)))
    }
}
