//! Fetching manifests and tensors from the host over HTTP; every byte is checked against a digest before it is used.

use std::time::Duration;

use polyphony_model::{Manifest, TensorEntry};
use sha2::{Digest, Sha256};

use super::cache::{Cache, CacheError};

/// The host that serves manifests and tensors.
#[derive(Clone)]
pub struct Host {
    client: reqwest::Client,
    base_url: String,
    token: String,
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
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A transfer that brings nothing for this long has failed.
const STALL: Duration = Duration::from_secs(30);
/// The largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;

// === impl Host ===

impl Host {
    /// # Errors
    /// When the HTTP client cannot start.
    pub fn new(base_url: String, token: String) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(STALL)
            .build()?;
        Ok(Self { client, base_url, token })
    }

    /// The manifest of that digest, from the cache or the host, checked.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn manifest(&self, cache: &Cache, digest: &str) -> Result<Manifest, FetchError> {
        let bytes = match cache.get(digest)? {
            Some(bytes) => bytes,
            None => {
                let what = format!("manifest {digest}");
                let bytes =
                    self.get(&format!("v1alpha1/manifests/{digest}"), &what, MAX_MANIFEST_BYTES, &mut |_| {}).await?;
                check_digest(&what, &bytes, digest)?;
                cache.put(digest, &bytes, &|_| false)?;
                bytes
            }
        };
        let unusable = |why: String| FetchError::Manifest { digest: digest.to_owned(), why };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        manifest.check().map_err(|error| unusable(error.to_string()))?;
        Ok(manifest)
    }

    /// The bytes of one tensor, checked. `progress` hears of every piece that arrives.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn tensor(
        &self,
        manifest_digest: &str,
        index: usize,
        tensor: &TensorEntry,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<u8>, FetchError> {
        let what = format!("tensor {}", tensor.name);
        let path = format!("v1alpha1/tensors/{manifest_digest}/{index}");
        let bytes = self.get(&path, &what, tensor.n_bytes, progress).await?;
        if bytes.len() as u64 != tensor.n_bytes {
            return Err(FetchError::Length { what, actual: bytes.len() as u64, expected: tensor.n_bytes });
        }
        check_digest(&what, &bytes, &tensor.sha256)?;
        Ok(bytes)
    }

    async fn get(
        &self,
        path: &str,
        what: &str,
        limit: u64,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Vec<u8>, FetchError> {
        let http = |source| FetchError::Http { what: what.to_owned(), source };
        let url = format!("{}/{path}", self.base_url.trim_end_matches('/'));
        let mut response = self.client.get(url).bearer_auth(&self.token).send().await.map_err(http)?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let body: String = response.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(FetchError::Status { what: what.to_owned(), status, body });
        }
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(http)? {
            let actual = (bytes.len() + piece.len()) as u64;
            if actual > limit {
                return Err(FetchError::Length { what: what.to_owned(), actual, expected: limit });
            }
            bytes.extend_from_slice(&piece);
            progress(piece.len() as u64);
        }
        Ok(bytes)
    }
}

fn check_digest(what: &str, bytes: &[u8], expected: &str) -> Result<(), FetchError> {
    let actual = hex::encode(Sha256::digest(bytes));
    if actual == expected {
        return Ok(());
    }
    Err(FetchError::Digest { what: what.to_owned(), actual, expected: expected.to_owned() })
}
