//! Sessions: what TLS remembers of servers, to resume them. A session resumes as who began it, so all are forgotten with a certificate.

use std::sync::{PoisonError, RwLock};

use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use tokio_rustls::rustls::pki_types::ServerName;

/// The library's cache, which can be emptied.
#[derive(Debug)]
pub(crate) struct Sessions(RwLock<ClientSessionMemoryCache>);

/// Servers that are remembered.
const SERVERS: usize = 256;

// === impl Sessions ===

impl Sessions {
    pub(crate) fn new() -> Self {
        Self(RwLock::new(ClientSessionMemoryCache::new(SERVERS)))
    }

    pub(crate) fn forget(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ClientSessionMemoryCache::new(SERVERS);
    }

    fn with<T>(&self, work: impl FnOnce(&ClientSessionMemoryCache) -> T) -> T {
        work(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.with(|cache| cache.set_kx_hint(server, group));
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|cache| cache.kx_hint(server))
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|cache| cache.set_tls12_session(server, value));
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|cache| cache.tls12_session(server))
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.with(|cache| cache.remove_tls12_session(server));
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(|cache| cache.insert_tls13_ticket(server, value));
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|cache| cache.take_tls13_ticket(server))
    }
}
