//! Verifiers: the stock ones of rustls by whatever roots count now, and the three exceptions that joining, renewing and waking up need.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use crate::certificate::{key_digest, read};
use crate::credentials::Shared;
use crate::digest::Digest;
use crate::name::Role;

/// Why a host is not the one that is meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotThatHost {
    #[error(
        "its authority is not the one of --ca-hash {expected}: is this the right host? The token was not sent; compare with the line that `polyctl join-command` prints there"
    )]
    Hash { expected: Digest },
    #[error("its certificate has the role {found}, and hub was expected: is HOST:PORT the hub's?")]
    Role { found: Role },
    #[error("its certificate names nobody: {0}")]
    Nameless(#[from] crate::certificate::CertificateError),
}

// === Who this program is ===

impl ResolvesServerCert for Shared {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }
}

impl ResolvesClientCert for Shared {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

// === Who dials it ===

/// Checks certificates of who dials.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) shared: Arc<Shared>,
    /// Who has none comes in too.
    pub(crate) is_optional: bool,
    /// So does who had one that ran out no longer ago. Whoever lets them in looks at its end again.
    pub(crate) window: Duration,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        !self.is_optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.shared.current();
        let end = read(certificate).map(|holder| holder.not_after).unwrap_or(u64::MAX);
        let is_late = now.as_secs() > end && now.as_secs() <= end.saturating_add(self.window.as_secs());
        let at = if is_late { UnixTime::since_unix_epoch(Duration::from_secs(end)) } else { now };
        current.clients.verify_client_cert(certificate, others, at)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shared.current().clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.current().clients.supported_verify_schemes()
    }
}

// === Whom it dials ===

/// Checks certificates of who is dialled, name and role included: both are in the name that is dialled.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) shared: Arc<Shared>,
    /// The time is not known yet, but what has passed: nothing is held against a certificate that begins later.
    pub(crate) tells_time: bool,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let begin = read(certificate).map(|holder| holder.not_before).unwrap_or(0);
        let at = if self.tells_time { now.as_secs().max(begin) } else { now.as_secs() };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        self.shared.current().servers.verify_server_cert(certificate, others, name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.shared.current().servers.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.shared.current().servers.supported_verify_schemes()
    }
}

/// Checks a hub that nothing is known of but its root's hash. The device knows no time yet: the certificate is judged at its own beginning.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) hash: Digest,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = others.iter().find(|one| key_digest(one) == Some(self.hash));
        let root = root.ok_or_else(|| refused(NotThatHost::Hash { expected: self.hash }))?;
        let holder = read(certificate).map_err(|error| refused(error.into()))?;
        if holder.name.role != Role::Hub {
            return Err(refused(NotThatHost::Role { found: holder.name.role }));
        }
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(holder.not_before));
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, at, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refused(why: NotThatHost) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

fn only_tls13() -> Error {
    PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}
