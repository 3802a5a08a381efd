//! Security: how the two ends of a connection know each other, and nobody else reads what they say.

use std::sync::Arc;

use polyphony_identity::{Audience, Credentials, Proven, Whom};
use tokio_rustls::rustls::{self, ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::LinkError;
use crate::stream::{Metered, Stream};
use crate::transport::Transport;

/// By what a program meets others.
#[derive(Clone)]
pub enum Security {
    /// Mutual TLS 1.3: each end shows a certificate of the installation, and has the name that is meant.
    Mutual(Mutual),
    /// Of who has joined nothing yet: it dials a hub whose root it knows the digest of, and lets nobody in.
    Joining,
    /// Nothing: whoever is on the way reads all, and each end is who it says. For benches that measure what TLS costs.
    Plain,
}

/// Configurations of TLS, made once of credentials that may be replaced under them.
#[derive(Clone)]
pub struct Mutual {
    named: Arc<ClientConfig>,
    hub: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// What is known of the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It holds the key of this certificate.
    Certificate(Proven),
    /// It showed none: a device that wants to join.
    None,
    /// Nobody shows anything here.
    Plain,
}

/// What the connections of this crate carry, in TLS's own words (ALPN): who means another protocol gets no further than that.
pub const PROTOCOL: &[u8] = b"polyphony";

// === impl Security ===

impl Security {
    /// Mutual TLS by `credentials`; `audience` says who may dial this program.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn mutual(credentials: &Credentials, audience: Audience) -> Result<Self, rustls::Error> {
        Ok(Self::Mutual(Mutual {
            named: Arc::new(credentials.client(false, PROTOCOL)?),
            hub: Arc::new(credentials.client(true, PROTOCOL)?),
            server: Arc::new(credentials.server(audience, PROTOCOL)?),
        }))
    }

    pub(crate) async fn dial(&self, stream: Metered<Transport>, whom: &Whom) -> Result<Stream, LinkError> {
        let config = match (self, whom) {
            (Self::Plain, _) => return Ok(Stream::Plain(stream)),
            (_, Whom::Pinned(hash)) => Arc::new(Whom::pinned_client(*hash, PROTOCOL).map_err(tls)?),
            (Self::Mutual(mutual), Whom::Hub(_)) => mutual.hub.clone(),
            (Self::Mutual(mutual), Whom::Named(_)) => mutual.named.clone(),
            (Self::Joining, Whom::Hub(_) | Whom::Named(_)) => {
                return Err(LinkError::Tls(
                    "this device has joined nothing yet, and has no certificate to show".into(),
                ));
            }
        };
        let stream = TlsConnector::from(config).connect(whom.server_name(), stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }

    pub(crate) async fn let_in(&self, stream: Metered<Transport>) -> Result<Stream, LinkError> {
        match self {
            Self::Plain => Ok(Stream::Plain(stream)),
            Self::Mutual(mutual) => {
                let stream = TlsAcceptor::from(mutual.server.clone()).accept(stream).await?;
                Ok(Stream::Tls(Box::new(stream.into())))
            }
            Self::Joining => Err(LinkError::Tls("this device has joined nothing yet, and lets nobody in".into())),
        }
    }

    pub(crate) fn proof(&self, stream: &Stream) -> Proof {
        match (self, stream) {
            (Self::Plain, _) | (_, Stream::Plain(_)) => Proof::Plain,
            (_, Stream::Tls(stream)) => {
                Proven::of_connection(stream.get_ref().1.peer_certificates()).map_or(Proof::None, Proof::Certificate)
            }
        }
    }
}

fn tls(error: rustls::Error) -> LinkError {
    LinkError::Tls(error.to_string())
}

// === impl Proof ===

impl Proof {
    /// Who the other end has shown to be.
    pub fn proven(&self) -> Option<&Proven> {
        match self {
            Self::Certificate(proven) => Some(proven),
            Self::None | Self::Plain => None,
        }
    }
}
