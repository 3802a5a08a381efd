//! TLS 1.3, and nothing older, of credentials: for a port, and for whom a port belongs to.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::{self, Ticketer};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::ticketer::TicketRotator;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, AlertDescription, CertificateError, ClientConfig, ServerConfig};

use crate::certificate::{Proven, read};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::name::Name;
use crate::verifiers::{Clients, Pinned, Servers};

/// Who may come to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Who shows a certificate that is good now.
    Certified,
    /// Those; who has none, to join; and who had one that ran out no longer ago, to renew it.
    Joining { rejoin_window: Duration },
    /// Anybody, with a certificate or without.
    Anybody,
}

/// Who is to be at the other end of a connection that this program begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Exactly this one.
    Named(Name),
    /// This hub, which tells the time: its certificate must not have ended at a time that has surely passed.
    Hub(Name),
    /// A hub whose root has this digest; the only way for who has joined nothing yet. No certificate of this end is shown.
    Pinned(Digest),
}

/// A ticket that resumes a session is taken for twice as long at most.
const TICKET_SECONDS: u32 = 1_800;

// === impl Credentials ===

impl Credentials {
    /// For a port that speaks `protocol` (ALPN). It goes on with whatever these credentials are replaced by.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn server(&self, audience: Audience, protocol: &[u8]) -> Result<ServerConfig, rustls::Error> {
        let (is_optional, window) = match audience {
            Audience::Certified => (false, Duration::ZERO),
            Audience::Joining { rejoin_window } => (true, rejoin_window),
            Audience::Anybody => (true, Duration::ZERO),
        };
        let clients = Clients { shared: self.shared.clone(), is_optional, window };
        let builder = ServerConfig::builder_with_details(self.shared.provider.clone(), Arc::new(self.clock().clone()));
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(clients))
            .with_cert_resolver(self.shared.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        config.ticketer = Arc::new(TicketRotator::new(TICKET_SECONDS, || Ok(Box::new(Tickets::new()?)))?);
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    /// For connections to others of the installation, by `protocol`.
    ///
    /// # Errors
    /// When there is no TLS 1.3, which cannot be.
    pub fn client(&self, tells_time: bool, protocol: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let servers = Servers { shared: self.shared.clone(), tells_time };
        let builder = ClientConfig::builder_with_details(self.shared.provider.clone(), Arc::new(self.clock().clone()));
        let mut config = builder
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_client_cert_resolver(self.shared.clone());
        config.resumption = Resumption::store(self.shared.sessions.clone());
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

// === impl Whom ===

impl Whom {
    /// The name that is asked for, and looked for in the certificate.
    pub fn server_name(&self) -> ServerName<'static> {
        let name = match self {
            Self::Named(name) | Self::Hub(name) => name.dns(),
            Self::Pinned(_) => format!("controller.hub.{}", crate::name::DEFAULT_DOMAIN),
        };
        ServerName::try_from(name).expect("a name is labels with dots between them")
    }

    /// For who has joined nothing yet: a client without a certificate that takes a hub of that root alone.
    ///
    /// # Errors
    /// When there is no TLS 1.3, which cannot be.
    pub fn pinned_client(hash: Digest, protocol: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Pinned { hash, provider: provider.clone() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

// === impl Proven ===

impl Proven {
    /// Who is at the other end of a connection whose handshake is over; none where no certificate was shown, or one that is none of ours.
    pub fn of_connection(certificates: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        read(certificates?.first()?).ok()
    }
}

/// Why a connection broke off, where it was TLS that did not come about: for people.
pub fn explain(error: &io::Error) -> Option<String> {
    use rustls::Error;
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is of another installation".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has run out, by the time that the host told last: is the host's clock right?".to_owned()
        }
        Error::InvalidCertificate(error) => format!("its certificate cannot be taken: {error}"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the other end asks for a certificate, and this one has none".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "the other end is of another installation: it does not know the authority of this one's certificate"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the other end says that this one's certificate has run out, or begins later: join again with a new token"
                .to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => "the other end speaks no TLS 1.3".to_owned(),
        Error::AlertReceived(alert) => format!("the other end ended TLS: {alert:?}"),
        Error::InvalidMessage(_) => "the other end speaks no TLS".to_owned(),
        Error::PeerIncompatible(_) => "the other end speaks no TLS 1.3".to_owned(),
        other => format!("TLS did not come about: {other}"),
    })
}

/// The library's tickets, of a shorter life.
#[derive(Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

// === impl Tickets ===

impl Tickets {
    fn new() -> Result<Self, rustls::crypto::GetRandomFailed> {
        Ticketer::new().map(Self).map_err(|_| rustls::crypto::GetRandomFailed)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        TICKET_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}
