//! The client: one request, whose redirects it follows itself, each hop judged before it is made and looked at once it is connected.
//!
//! Who carries a token carries it to the first host alone. Knows nothing of hubs.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, Proxy, Response, StatusCode, Url};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::addresses::is_public;
use super::error::FetchError;
use super::guard::{Guard, Leave, shown};
use super::settings::FetchSettings;
use crate::proxy::Way;
use crate::secret::Secret;

/// A hub leads to its store of files by one hop or two.
const MAX_REDIRECTS: usize = 5;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Something has to be heard within this.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Nobody is waited for longer, whatever it asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What asks.
pub(super) struct Client {
    guard: Guard,
    anywhere: reqwest::Client,
    public_only: reqwest::Client,
    /// By the proxy that the environment names.
    proxied: reqwest::Client,
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub url: Url,
    pub token: Option<&'a Secret>,
    /// The first byte that is wanted, and of what: a file that is another one by now comes whole.
    pub from: u64,
    pub if_range: Option<&'a str>,
}

/// What came.
pub(super) struct Answer {
    pub response: Response,
    /// The headers of the last answer of the first host, where that of another follows it.
    pub first: HeaderMap,
    pub url: Url,
}

// === impl Client ===

impl Client {
    /// # Errors
    /// When the machine has no certificates to know others by.
    pub(super) fn new(settings: &FetchSettings) -> Result<Self, FetchError> {
        let tls = tls(settings)?;
        let made = |builder: reqwest::ClientBuilder| {
            let builder = builder
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_DEADLINE)
                .read_timeout(READ_DEADLINE)
                .user_agent(concat!("polyphony/", env!("CARGO_PKG_VERSION")));
            builder.build().map_err(|error| FetchError::Client { why: causes(&error) })
        };
        let builder = || reqwest::Client::builder().no_proxy();
        Ok(Self {
            guard: Guard::new(settings),
            anywhere: made(builder())?,
            public_only: made(builder().dns_resolver(Arc::new(PublicOnly)))?,
            proxied: made(builder().proxy(Proxy::custom(|url| way_to(url).and_then(|proxy| Url::parse(&proxy).ok()))))?,
        })
    }

    /// Asks, and follows where the answer leads.
    ///
    /// # Errors
    /// What is not allowed, what cannot be reached, and what is busy. Any other status is an answer.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Answer, FetchError> {
        let mut url = ask.url.clone();
        let mut from: Option<Url> = None;
        let mut is_with_token = true;
        let mut first = HeaderMap::new();
        for _ in 0..=MAX_REDIRECTS {
            is_with_token &= url.origin() == ask.url.origin();
            let response = self.hop(ask, &url, from.as_ref(), is_with_token).await?;
            if url.origin() == ask.url.origin() {
                first = response.headers().clone();
            }
            let Some(next) = redirected(&response, &url)? else {
                return busy(&response, &url).map_or(Ok(Answer { response, first, url }), Err);
            };
            from = Some(std::mem::replace(&mut url, next));
        }
        Err(FetchError::TooManyRedirects { url: shown(&ask.url), limit: MAX_REDIRECTS })
    }

    async fn hop(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        from: Option<&Url>,
        is_with_token: bool,
    ) -> Result<Response, FetchError> {
        let leave = self.guard.judge(url, from)?;
        let is_proxied = way_to(url).is_some();
        let client = match leave {
            // Who is asked through a proxy is looked for by that one.
            _ if is_proxied => &self.proxied,
            Leave::Anywhere => &self.anywhere,
            Leave::PublicOnly => &self.public_only,
        };
        let mut request = client.request(ask.method.clone(), url.clone());
        if let Some(token) = ask.token.filter(|_| is_with_token) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
            if let Some(tag) = ask.if_range {
                request = request.header(IF_RANGE, tag);
            }
        }
        let response = request.send().await.map_err(|error| match private_of(&error) {
            Some(private) => self.guard.private(url.host_str().unwrap_or_default(), private.address.to_string(), from),
            None => FetchError::Unreachable { url: shown(url), why: causes(&error.without_url()) },
        })?;
        // What the connection shows has the last word.
        match response.remote_addr() {
            Some(address) if leave == Leave::PublicOnly && !is_proxied && !is_public(address.ip()) => {
                Err(self.guard.private(url.host_str().unwrap_or_default(), address.ip().to_string(), from))
            }
            _ => Ok(response),
        }
    }
}

/// Where an answer leads on to.
fn redirected(response: &Response, url: &Url) -> Result<Option<Url>, FetchError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let wrong = || FetchError::Answer {
        url: shown(url),
        status: response.status().to_string(),
        message: Some("it leads on to nowhere".to_owned()),
    };
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok()).ok_or_else(wrong)?;
    url.join(location).map(Some).map_err(|_| wrong())
}

/// What a server says that is overloaded, or down for a while.
fn busy(response: &Response, url: &Url) -> Option<FetchError> {
    let status = response.status();
    let is_busy = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    if !is_busy && status != StatusCode::TOO_MANY_REQUESTS && status != StatusCode::REQUEST_TIMEOUT {
        return None;
    }
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| pause(text, jiff::Timestamp::now()));
    Some(FetchError::Busy { url: shown(url), status: status.to_string(), retry_after })
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(super) fn pause(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    let pause = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// Looks names up, and gives their public addresses alone: those are what is connected to.
struct PublicOnly;

/// All addresses of a name are private.
#[derive(Debug, thiserror::Error)]
#[error("{host} is {address}, which is no public address")]
struct OnlyPrivate {
    host: String,
    address: std::net::IpAddr,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let public: Vec<SocketAddr> = found.iter().copied().filter(|address| is_public(address.ip())).collect();
            match found.first() {
                Some(address) if public.is_empty() => {
                    Err(OnlyPrivate { host: name.as_str().to_owned(), address: address.ip() }.into())
                }
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

fn private_of(error: &reqwest::Error) -> Option<&OnlyPrivate> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(private) = error.downcast_ref() {
            return Some(private);
        }
        source = error.source();
    }
    None
}

/// The proxy that the environment names for an address.
fn way_to(url: &Url) -> Option<String> {
    let uri = url.as_str().parse().ok()?;
    Way::to(&uri, |name| std::env::var(name).ok()).ok()?.proxy.map(|proxy| proxy.to_string())
}

fn tls(settings: &FetchSettings) -> Result<ClientConfig, FetchError> {
    let wrong = |why: String| FetchError::Client { why };
    let mut roots = RootCertStore::empty();
    match &settings.roots {
        Some(given) => drop(roots.add_parsable_certificates(given.iter().cloned())),
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            // A hub of one's own may do without any.
            if let (true, Some(error)) = (roots.is_empty(), found.errors.first()) {
                tracing::warn!(%error, "this machine's certificates cannot be read: no HTTPS source will be known");
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// An error with all that it came from, each once.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut words = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if words.last().is_none_or(|last| !last.contains(&said)) {
            words.push(said);
        }
        source = error.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pause_is_said_in_seconds_or_by_a_date() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(pause("7", now), Some(Duration::from_secs(7)));
        assert_eq!(pause("Thu, 01 Jan 2026 00:01:30 GMT", now), Some(Duration::from_secs(90)));
        assert_eq!(pause("Wed, 31 Dec 2025 00:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(pause("99999999", now), Some(LONGEST_PAUSE));
        assert_eq!(pause("soon", now), None);
    }
}
