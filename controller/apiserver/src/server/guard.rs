//! The guard: which requests are let in at all, by their `Host` and their bearer token.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

use super::failure::Failure;

/// What a request has to show.
#[derive(Clone, Debug)]
pub struct Guard {
    token: String,
    allowed_hosts: Vec<String>,
}

// === impl Guard ===

impl Guard {
    pub fn new(token: String, allowed_hosts: Vec<String>) -> Self {
        let allowed_hosts = allowed_hosts.iter().map(|host| bare(host).to_ascii_lowercase()).collect();
        Guard { token, allowed_hosts }
    }

    /// Refuses a foreign `Host`, which a web page could make a browser send, and a wrong token.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default();
        if !self.is_allowed(host) {
            return Err(Failure::forbidden(format!(
                "host \"{host}\" is not served here: use a loopback address, or add the host to the allowed hosts"
            )));
        }
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

    fn is_allowed(&self, host: &str) -> bool {
        let host = bare(host).to_ascii_lowercase();
        host == "localhost"
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            || self.allowed_hosts.contains(&host)
    }
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
