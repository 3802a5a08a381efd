//! TLS on a port: who may speak plain HTTP there, and what a client has shown.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// TLS on a port, and who may speak plain HTTP there.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) plain_from_loopback: bool,
}

/// Of each request over TLS: the certificates that the client showed, its own first. They have been checked by whoever made the acceptor.
#[derive(Clone, Debug, Default)]
pub struct Certificates(pub Arc<[CertificateDer<'static>]>);
