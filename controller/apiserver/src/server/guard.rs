//! The guard: which requests are let in at all, by their `Host` and their bearer token.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, Uri, header};
use polyphony_doorway::Hosts;

use super::failure::Failure;

/// What a request has to show.
#[derive(Clone, Debug)]
pub struct Guard {
    token: String,
    hosts: Hosts,
}

// === impl Guard ===

impl Guard {
    pub fn new(token: String, allowed_hosts: Vec<String>) -> Self {
        let hosts = Hosts::new(IpAddr::V4(Ipv4Addr::LOCALHOST), allowed_hosts);
        Guard { token, hosts }
    }

    /// Refuses a foreign `Host`, which a web page could make a browser send, and a wrong token.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        self.hosts.check(uri, headers).map_err(|refused| Failure::forbidden(refused.to_string()))?;
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) if is_equal(token.as_bytes(), self.token.as_bytes()) => Ok(()),
            _ => Err(Failure::unauthorized()),
        }
    }
}

/// Compares in a time that does not tell where the two differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && !b.is_empty() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_known_hosts_with_the_token_come_in() {
        let guard = Guard::new("secret".into(), vec!["api.example.dev:6443".into()]);
        let check = |host: &str, authorization: &str| {
            let headers = HeaderMap::from_iter([
                (header::HOST, host.parse().unwrap()),
                (header::AUTHORIZATION, authorization.parse().unwrap()),
            ]);
            guard.check(&Uri::from_static("/api"), &headers).err().map(|failure| failure.status_code().as_u16())
        };
        for host in ["localhost", "LocalHost:80", "127.0.0.1:6443", "127.9.9.9", "[::1]:1", "::1", "api.example.dev:1"]
        {
            assert_eq!(check(host, "Bearer secret"), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            assert_eq!(check(host, "Bearer secret"), Some(403), "{host}");
        }
        for authorization in ["Bearer secreu", "Bearer ", "Basic secret", "secret"] {
            assert_eq!(check("localhost", authorization), Some(401), "{authorization}");
        }
        assert!(
            Guard::new(String::new(), vec![])
                .check(&Uri::from_static("http://localhost/api"), &HeaderMap::new())
                .is_err()
        );
    }
}
