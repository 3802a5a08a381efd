//! Settings of fetching: the hub, who may be asked, where files go. Set by flags, once.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::super::source::cache_folder;

/// The hub that everybody means.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How models are fetched.
#[derive(Clone, Debug)]
pub struct FetchSettings {
    /// The hub's address; its host may be asked wherever it is.
    pub endpoint: Url,
    /// Hosts beside the endpoint's that may be asked, redirects included; all where there are none.
    pub hosts: Vec<String>,
    /// Whether sources and redirects may lead into this machine and its network.
    pub private_addresses: bool,
    /// Polyphony's cache folder.
    pub cache: Option<PathBuf>,
    /// Before a source that failed is asked again; each further time it is twice as long.
    pub first_pause: Duration,
    /// Authorities to trust in place of the machine's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
}

/// Why a text is no address of a hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address of a hub: write https://host, such as {DEFAULT_ENDPOINT}")]
pub struct EndpointError {
    pub text: String,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            endpoint: Url::parse(DEFAULT_ENDPOINT).expect("it is an address"),
            hosts: Vec::new(),
            private_addresses: false,
            cache: cache_folder(),
            first_pause: Duration::from_secs(1),
            roots: None,
        }
    }
}

/// Reads an address of a hub, which may have a path.
///
/// # Errors
/// [`EndpointError`] for what is no `http` or `https` address of a host.
pub fn parse_endpoint(text: &str) -> Result<Url, EndpointError> {
    let wrong = || EndpointError { text: text.to_owned() };
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| wrong())?;
    let is_web = ["http", "https"].contains(&url.scheme()) && url.has_host();
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if is_web && is_plain && url.fragment().is_none() { Ok(url) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_is_the_address_of_a_host() {
        for text in ["https://huggingface.co", "https://huggingface.co/", "http://127.0.0.1:8000", "https://h/mirror/"]
        {
            assert!(parse_endpoint(text).is_ok(), "{text}");
        }
        for text in ["", "huggingface.co", "ftp://h", "https://u:p@h", "https://h?x", "file:///a"] {
            assert_eq!(parse_endpoint(text), Err(EndpointError { text: text.to_owned() }));
        }
    }
}
