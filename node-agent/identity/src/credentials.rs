//! Credentials: who this program is to others, as it stands now. Renewal replaces them under open ports and clients.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, RootCertStore};

use crate::certificate::{CertificateError, Proven, key_digest, read};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::key::Key;
use crate::name::Name;
use crate::sessions::Sessions;

/// A certificate with what leads to its root, and the roots that others are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Papers {
    /// The holder's own first.
    pub chain: Vec<CertificateDer<'static>>,
    pub roots: Vec<CertificateDer<'static>>,
}

/// Key, papers and clock of this program. Clones are the same.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) sessions: Arc<Sessions>,
    current: RwLock<Arc<Current>>,
}

/// All that changes together.
pub(crate) struct Current {
    pub(crate) own: Proven,
    pub(crate) certified: Arc<CertifiedKey>,
    /// Check who dials this program, and whom it dials.
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
}

/// Why papers are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("there is no certificate among them")]
    Empty,
    #[error("the first certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error("they are not of this device's key")]
    OtherKey,
    #[error("a text of them is no certificate in PEM")]
    Pem,
    #[error("TLS takes them not: {0}")]
    Tls(#[from] rustls::Error),
    #[error("their roots cannot be trusted: {0}")]
    Roots(#[from] VerifierBuilderError),
}

// === impl Papers ===

impl Papers {
    /// Reads what [`Papers::chain_pem`] and [`Papers::roots_pem`] wrote.
    ///
    /// # Errors
    /// [`CredentialsError::Pem`].
    pub fn from_pem(chain: &str, roots: &str) -> Result<Self, CredentialsError> {
        let all = |pem: &str| {
            let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            read.map_err(|_| CredentialsError::Pem)
        };
        Ok(Self { chain: all(chain)?, roots: all(roots)? })
    }

    pub fn chain_pem(&self) -> String {
        to_pem(&self.chain)
    }

    pub fn roots_pem(&self) -> String {
        to_pem(&self.roots)
    }

    /// Whether a root of that key is among those to trust.
    pub fn has_root(&self, hash: &Digest) -> bool {
        self.roots.iter().any(|root| key_digest(root) == Some(*hash))
    }

    /// Whose they are.
    ///
    /// # Errors
    /// When there is no certificate of ours.
    pub fn holder(&self) -> Result<Proven, CredentialsError> {
        Ok(read(self.chain.first().ok_or(CredentialsError::Empty)?)?)
    }
}

// === impl Credentials ===

impl Credentials {
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(key: &Key, papers: &Papers, clock: Clock) -> Result<Self, CredentialsError> {
        let provider = Arc::new(ring::default_provider());
        let current = RwLock::new(Arc::new(Current::new(key, papers, &provider)?));
        let sessions = Arc::new(Sessions::new());
        Ok(Self { shared: Arc::new(Shared { clock, provider, sessions, current }) })
    }

    /// Takes other papers from now on; connections that are open go on.
    ///
    /// # Errors
    /// [`CredentialsError`]; those of before stay then.
    pub fn replace(&self, key: &Key, papers: &Papers) -> Result<(), CredentialsError> {
        let new = Arc::new(Current::new(key, papers, &self.shared.provider)?);
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.shared.sessions.forget();
        Ok(())
    }

    /// Whose they are, and until when.
    pub fn own(&self) -> Proven {
        self.shared.current().own.clone()
    }

    /// Somebody else of the same installation.
    pub fn named(&self, name: impl Fn(&str) -> Name) -> Name {
        name(&self.shared.current().own.name.domain)
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.own().name)
    }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.current().own.name)
    }
}

// === impl Current ===

impl Current {
    fn new(key: &Key, papers: &Papers, provider: &Arc<CryptoProvider>) -> Result<Self, CredentialsError> {
        let own = papers.holder()?;
        if own.key != key.digest() {
            return Err(CredentialsError::OtherKey);
        }
        let signing = provider.key_provider.load_private_key(key.der())?;
        let certified = Arc::new(CertifiedKey::new(papers.chain.clone(), signing));
        let mut roots = RootCertStore::empty();
        papers.roots.iter().try_for_each(|root| roots.add(root.clone()))?;
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build()?;
        Ok(Self { own, certified, clients, servers })
    }
}

pub(crate) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let one = |der: &CertificateDer<'_>| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), lines);
    certificates.iter().map(one).collect()
}
