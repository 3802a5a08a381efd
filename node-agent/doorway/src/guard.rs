//! Guard: requests that a web page makes a browser send. Refuses a `Host` that is not served here, and a foreign `Origin`.
//!
//! A page of another site can make its own name lead to this machine; the browser then sends requests here under that name. An address
//! cannot be led anywhere.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri, header};

/// The hosts that requests may be for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    names: Vec<String>,
    any_address: bool,
}

/// The sites whose pages may send requests; none but those of the host itself unless named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    allowed: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "host {host:?} is not served here: use an address that this program listens on, or add the host to the allowed hosts"
    )]
    Host { host: String },
    #[error("pages of {origin:?} may not send requests here: add it to the allowed origins")]
    Origin { origin: String },
}

// === impl Hosts ===

impl Hosts {
    /// The names and addresses of loopback; any other address too where `bound` is not loopback; and `allowed`, where a name that begins
    /// with a dot stands for all names that end in it.
    pub fn new(bound: IpAddr, allowed: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let names = allowed.into_iter().map(|host| bare(host.as_ref()).to_ascii_lowercase()).collect();
        Self { names, any_address: !bound.is_loopback() }
    }

    /// # Errors
    /// [`Refused::Host`], also where there is none.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let host = host_of(uri, headers);
        let name = bare(host).to_ascii_lowercase();
        let address: Option<IpAddr> = name.parse().ok();
        let is_ours = name == "localhost"
            || address.is_some_and(|address| self.any_address || address.is_loopback())
            || self.names.iter().any(|ours| *ours == name || ours.starts_with('.') && name.ends_with(ours));
        if is_ours { Ok(()) } else { Err(Refused::Host { host: host.to_owned() }) }
    }
}

// === impl Origins ===

impl Origins {
    /// Origins as browsers write them, such as `http://localhost:3000`; `*` is all.
    pub fn new(allowed: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let allowed = allowed.into_iter().map(|origin| origin.as_ref().trim_end_matches('/').to_ascii_lowercase());
        Self { allowed: allowed.collect() }
    }

    /// The origin that the answer has to name, where the request comes from another site's page.
    ///
    /// # Errors
    /// [`Refused::Origin`].
    pub fn check<'a>(&self, uri: &Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refused> {
        let Some(value) = headers.get(header::ORIGIN) else { return Ok(None) };
        let origin = value.to_str().unwrap_or_default();
        let host = host_of(uri, headers);
        if origin.split_once("://").is_some_and(|(_, of)| !of.is_empty() && of.eq_ignore_ascii_case(host)) {
            return Ok(None);
        }
        match self.allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
            true => Ok(Some(origin)),
            false => Err(Refused::Origin { origin: String::from_utf8_lossy(value.as_bytes()).into_owned() }),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::FORBIDDEN, format!("{self}\n")).into_response()
    }
}

/// A router that answers requests for `hosts` alone, and no page of another site.
pub fn only_from_here(router: Router, hosts: Hosts) -> Router {
    router.layer(from_fn_with_state(Arc::new(hosts), guarded))
}

async fn guarded(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    let checked = hosts.check(uri, headers).and_then(|()| Origins::default().check(uri, headers).map(|_| ()));
    match checked {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// The host that a request is for, with its port; empty where it names none.
fn host_of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(http::uri::Authority::as_str).or(named).unwrap_or_default()
}

/// A host without its port and brackets.
pub fn bare(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match host.rsplit_once(':') {
        // An address of version 6 without brackets has more colons.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_known_hosts_are_served() {
        let path = Uri::from_static("/api");
        let here = Hosts::new("127.0.0.1".parse().unwrap(), ["api.example.dev:6443", ".lab.svc"]);
        let lab = Hosts::new("0.0.0.0".parse().unwrap(), [""; 0]);
        let is_served = |hosts: &Hosts, host: &str| hosts.check(&path, &headers(host, None)).is_ok();
        for host in ["localhost", "LocalHost:80", "127.0.0.1:6443", "127.9.9.9", "[::1]:1", "::1"] {
            assert!(is_served(&here, host) && is_served(&lab, host), "{host}");
        }
        assert!(
            is_served(&here, "api.example.dev:1") && is_served(&lab, "10.0.0.1:80") && is_served(&lab, "[fd00::1]")
        );
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1.evil.example", ""] {
            assert!(!is_served(&here, host) && !is_served(&lab, host), "{host}");
        }
        assert!(
            !is_served(&here, "10.0.0.1") && !is_served(&here, "lab.svc") && is_served(&here, "x-gateway.lab.svc:8080")
        );
        let absolute = Uri::from_static("http://evil.example/api");
        assert!(here.check(&absolute, &headers("localhost", None)).is_err(), "the address in the request line counts");
    }

    #[test]
    fn only_pages_of_the_host_itself_and_of_named_sites_may_ask() {
        let path = Uri::from_static("/v1/models");
        let origins = Origins::new(["http://localhost:3000/", "app://Notes"]);
        let check = |origins: &Origins, origin| {
            origins.check(&path, &headers("127.0.0.1:8080", origin)).map(|named| named.map(str::to_owned)).ok()
        };
        assert_eq!(check(&origins, None), Some(None));
        assert_eq!(check(&origins, Some("http://127.0.0.1:8080")), Some(None));
        for allowed in ["http://localhost:3000", "app://notes"] {
            assert_eq!(check(&origins, Some(allowed)), Some(Some(allowed.to_owned())));
        }
        for foreign in ["http://evil.example", "null", "http://localhost:3001", "http://127.0.0.1", ""] {
            assert_eq!(check(&origins, Some(foreign)), None, "{foreign}");
        }
        assert_eq!(check(&Origins::new(["*"]), Some("null")), Some(Some("null".to_owned())));
    }
}
