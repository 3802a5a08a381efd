//! Fetching manifests and tensors from the host over HTTP, straight into the cache; every byte is checked against a digest.
//!
//! Disk and digests are a blocking thread's work: no link waits for them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use polyphony_identity::{Credentials, Name, Role};
use polyphony_model::{Manifest, TensorEntry};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::cache::{Cache, CacheError, Hold, Incoming, KeepError};

/// The host that serves manifests and tensors.
#[derive(Clone)]
pub struct Host {
    client: reqwest::Client,
    base_url: String,
}

/// Why nothing can be fetched from an address.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{0:?} is no address of weights (https://IP:PORT): are host and agent of one version?")]
    Address(String),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    #[error("the HTTP client does not start: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why a tensor or manifest could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the host did not send {what}: {source}: is the controller still running?")]
    Http { what: String, source: reqwest::Error },
    #[error("the host answered {status} to the request for {what}: {body}")]
    Status { what: String, status: u16, body: String },
    #[error(
        "the digest of {what} is {actual}, {expected} expected: the file on the host has changed or the transfer was damaged; make a new Model of it"
    )]
    Digest { what: String, actual: String, expected: String },
    #[error("the host sent {actual} bytes for {what}, {expected} expected")]
    Length { what: String, actual: u64, expected: u64 },
    #[error("the manifest {digest} cannot be used: {why}")]
    Manifest { digest: String, why: String },
    #[error("the cache of {} MiB has no room for {what}; raise --cache-size", limit >> 20)]
    NoRoom { what: String, limit: u64 },
    #[error("{what} was not kept: the agent shuts down")]
    ShutDown { what: String },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What is spoken there, in TLS's own words (ALPN).
const HTTP: &[u8] = b"http/1.1";
/// A transfer that brings nothing for this long has failed.
const STALL: Duration = Duration::from_secs(30);
/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Pieces of a transfer that wait for the disk.
const PIECES: usize = 8;

/// One thing to fetch.
#[derive(Clone)]
struct Wanted<'a> {
    /// Its name in messages.
    what: String,
    path: String,
    sha256: &'a str,
    length: Length,
}

/// How long it is.
#[derive(Clone, Copy)]
enum Length {
    Exactly(u64),
    AtMost(u64),
}

// === impl Host ===

impl Host {
    /// The one at `url`, which has to show that it may serve weights; it is told who asks by a certificate.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn new(url: &str, credentials: &Credentials) -> Result<Self, HostError> {
        polyphony_wire::take_ring();
        let unusable = || HostError::Address(url.to_owned());
        let address: SocketAddr =
            url.strip_prefix("https://").and_then(|rest| rest.parse().ok()).ok_or_else(unusable)?;
        // Whoever listens there is asked for by role and name, which its certificate has.
        let name = credentials.named(|domain| Name::of_controller(Role::Weights, domain));
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(credentials.client(false, HTTP)?)
            .resolve(&name.dns(), address)
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(STALL)
            .build()?;
        Ok(Self { client, base_url: format!("https://{}:{}", name.dns(), address.port()) })
    }

    /// The manifest of that digest, from the cache or the host, checked; what `hold` holds stays there.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn manifest(&self, cache: &Cache, hold: &Hold, digest: &str) -> Result<Manifest, FetchError> {
        let what = format!("manifest {digest}");
        let cached = async || {
            let (cache, digest) = (cache.clone(), digest.to_owned());
            spawn_blocking(move || cache.get(&digest, MAX_MANIFEST_BYTES))
                .await
                .map_err(|_| FetchError::ShutDown { what: what.clone() })
        };
        let bytes = match cached().await?? {
            Some(bytes) => bytes,
            None => {
                let path = format!("v1alpha1/manifests/{digest}");
                let length = Length::AtMost(MAX_MANIFEST_BYTES);
                let wanted = Wanted { what: what.clone(), path, sha256: digest, length };
                self.fetch(cache, wanted, hold, &mut |_| {}).await?;
                let vanished = || FetchError::Manifest {
                    digest: digest.to_owned(),
                    why: "the disk does not give back what was written to it".to_owned(),
                };
                cached().await??.ok_or_else(vanished)?
            }
        };
        let unusable = |why: String| FetchError::Manifest { digest: digest.to_owned(), why };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        manifest.check().map_err(|error| unusable(error.to_string()))?;
        Ok(manifest)
    }

    /// Brings one tensor into the cache, checked; what `hold` holds stays there. `progress` hears of every piece that arrives.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn tensor(
        &self,
        cache: &Cache,
        manifest_digest: &str,
        (index, tensor): (usize, &TensorEntry),
        hold: &Hold,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), FetchError> {
        let wanted = Wanted {
            what: format!("tensor {}", tensor.name),
            path: format!("v1alpha1/tensors/{manifest_digest}/{index}"),
            sha256: &tensor.sha256,
            length: Length::Exactly(tensor.n_bytes),
        };
        self.fetch(cache, wanted, hold, progress).await
    }

    async fn fetch(
        &self,
        cache: &Cache,
        wanted: Wanted<'_>,
        hold: &Hold,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), FetchError> {
        match self.fetch_once(cache, wanted.clone(), hold, progress).await {
            // Others than this cache have filled the disk: before it gives up, what nobody needs goes, as much as is wanted.
            Err(FetchError::Cache(error)) if error.is_full_disk() => {
                let freed = cache.make_way(wanted.length.limit());
                if freed == 0 {
                    return Err(error.into());
                }
                tracing::warn!(%error, freed, "the disk is full; cached weights that no segment needs were removed");
                self.fetch_once(cache, wanted, hold, progress).await
            }
            end => end,
        }
    }

    async fn fetch_once(
        &self,
        cache: &Cache,
        wanted: Wanted<'_>,
        hold: &Hold,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), FetchError> {
        let Wanted { what, path, sha256, length } = wanted;
        let http = |source| FetchError::Http { what: what.clone(), source };
        let url = format!("{}/{path}", self.base_url);
        let mut response = self.client.get(url).send().await.map_err(http)?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let body: String = response.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(FetchError::Status { what, status, body });
        }
        let (pieces, arriving) = mpsc::channel(PIECES);
        let kept = spawn_blocking({
            let (cache, sha256, hold) = (cache.clone(), sha256.to_owned(), hold.clone());
            let room = response.content_length().unwrap_or(0).min(length.limit()).max(length.least());
            move || match cache.receive(&sha256, room, &hold)? {
                None => Ok(None),
                Some(incoming) => take_in(incoming, arriving).map(Some),
            }
        });
        let mut actual = 0;
        while let Some(piece) = response.chunk().await.map_err(http)? {
            actual += piece.len() as u64;
            if actual > length.limit() {
                return Err(FetchError::Length { what, actual, expected: length.limit() });
            }
            let n_bytes = piece.len() as u64;
            // Whoever keeps them says why it does so no more.
            if pieces.send(piece).await.is_err() {
                break;
            }
            progress(n_bytes);
        }
        drop(pieces);
        let kept: Result<_, CacheError> = kept.await.map_err(|_| FetchError::ShutDown { what: what.clone() })?;
        let Some(incoming) = kept? else {
            return Err(FetchError::NoRoom { what, limit: cache.limit_bytes() });
        };
        if actual < length.least() {
            return Err(FetchError::Length { what, actual, expected: length.least() });
        }
        incoming.keep().map_err(|error| match error {
            KeepError::Digest { actual } => FetchError::Digest { what, actual, expected: sha256.to_owned() },
            KeepError::Cache(error) => error.into(),
        })
    }
}

fn take_in(mut incoming: Incoming, mut arriving: mpsc::Receiver<Bytes>) -> Result<Incoming, CacheError> {
    while let Some(piece) = arriving.blocking_recv() {
        incoming.write(&piece)?;
    }
    Ok(incoming)
}

// === impl Length ===

impl Length {
    fn limit(self) -> u64 {
        match self {
            Self::Exactly(n_bytes) | Self::AtMost(n_bytes) => n_bytes,
        }
    }

    fn least(self) -> u64 {
        match self {
            Self::Exactly(n_bytes) => n_bytes,
            Self::AtMost(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
