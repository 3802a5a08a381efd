//! Guard: which addresses may be asked. Judges each hop on its own, and knows nothing of what is fetched. Pure.

use reqwest::Url;

use super::addresses::is_public;
use super::error::FetchError;
use super::settings::FetchSettings;

/// What a person allowed.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    endpoint: Url,
    hosts: Vec<String>,
    private_addresses: bool,
}

/// How a hop may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Wherever its host is.
    Anywhere,
    /// To public addresses alone, which the connection shows.
    PublicOnly,
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(settings: &FetchSettings) -> Self {
        let hosts = settings.hosts.iter().map(|host| plain(host)).collect();
        Self { endpoint: settings.endpoint.clone(), hosts, private_addresses: settings.private_addresses }
    }

    /// Judges one hop: to `url`, where `from` led on to it.
    ///
    /// # Errors
    /// When it may not be made.
    pub(super) fn judge(&self, url: &Url, from: Option<&Url>) -> Result<Leave, FetchError> {
        let host = url.host_str().unwrap_or_default();
        let said_from = || from.map(|from| from.origin().ascii_serialization());
        // Whoever set the endpoint knows where it is; a hop within it stays there.
        let is_endpoint =
            url.origin() == self.endpoint.origin() && from.is_none_or(|from| from.origin() == self.endpoint.origin());
        // A hub without encryption, in a closed network, may lead to a store without.
        let is_lab = self.private_addresses && from.is_some_and(|from| from.scheme() == "http");
        let is_plain_allowed = is_endpoint || (is_lab && url.scheme() == "http");
        if url.scheme() != "https" && !is_plain_allowed {
            let from = said_from().unwrap_or_else(|| "spec.source".to_owned());
            return Err(FetchError::Downgrade { from, to: shown(url) });
        }
        if is_endpoint {
            return Ok(Leave::Anywhere);
        }
        if !self.hosts.is_empty() && !self.hosts.iter().any(|allowed| is_of(&plain(host), allowed)) {
            return Err(FetchError::HostNotAllowed { host: host.to_owned(), from: said_from() });
        }
        if self.private_addresses {
            return Ok(Leave::Anywhere);
        }
        // What is written as an address is asked of no resolver.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        match literal {
            Ok(address) if !is_public(address) => Err(self.private(host, address.to_string(), from)),
            _ => Ok(Leave::PublicOnly),
        }
    }

    pub(super) fn private(&self, host: &str, address: String, from: Option<&Url>) -> FetchError {
        let from = from.map(|from| from.origin().ascii_serialization());
        FetchError::PrivateAddress { host: host.to_owned(), address, from }
    }
}

/// `.example.com` is all names that end so.
fn is_of(host: &str, allowed: &str) -> bool {
    if allowed.starts_with('.') { host.ends_with(allowed) } else { host == allowed }
}

fn plain(host: &str) -> String {
    host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

/// An address without its query, which may be signed: for people, and for logs.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn guard(endpoint: &str, hosts: &[&str], private_addresses: bool) -> Guard {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Guard { endpoint: endpoint.parse().unwrap(), hosts, private_addresses }
    }

    #[test]
    fn each_hop_is_judged_on_its_own() {
        let hub = "http://10.0.0.5:8000";
        for (url, from, hosts, private, expected) in [
            // The endpoint, wherever it is; but nobody else leads there.
            ("http://10.0.0.5:8000/a", None, &[][..], false, Ok(Leave::Anywhere)),
            ("http://10.0.0.5:8000/b", Some("http://10.0.0.5:8000/a"), &["x"], false, Ok(Leave::Anywhere)),
            ("https://10.0.0.5/b", Some("http://10.0.0.5:8000/a"), &[], false, Err("leads into")),
            ("http://10.0.0.5:8000/a", Some("https://cdn.example/a"), &[], true, Err("not encrypted")),
            ("https://cdn.example/a", Some("http://10.0.0.5:8000/a"), &[], false, Ok(Leave::PublicOnly)),
            ("https://cdn.example/a", None, &[], true, Ok(Leave::Anywhere)),
            ("http://cdn.example/a", Some("https://h/a"), &[], true, Err("not encrypted")),
            ("http://127.0.0.1:9/a", Some("http://10.0.0.5:8000/a"), &[], true, Ok(Leave::Anywhere)),
            ("file:///etc/passwd", Some("http://10.0.0.5:8000/a"), &[], true, Err("not encrypted")),
            // Addresses in any spelling.
            ("https://127.0.0.1/a", None, &[], false, Err("leads into")),
            ("https://2130706433/a", None, &[], false, Err("leads into")),
            ("https://0x7f.1/a", None, &[], false, Err("leads into")),
            ("https://[::ffff:169.254.169.254]/a", None, &[], false, Err("leads into")),
            ("https://8.8.8.8/a", None, &[], false, Ok(Leave::PublicOnly)),
            // The list.
            ("https://cdn.example/a", None, &["cdn.example"], false, Ok(Leave::PublicOnly)),
            ("https://CDN.Example./a", None, &["cdn.example"], false, Ok(Leave::PublicOnly)),
            ("https://a.cdn.example/a", None, &["cdn.example"], false, Err("not among")),
            ("https://a.cdn.example/a", None, &[".cdn.example"], false, Ok(Leave::PublicOnly)),
            ("https://evilcdn.example/a", None, &[".cdn.example"], false, Err("not among")),
        ] {
            let from: Option<Url> = from.map(|from| from.parse().unwrap());
            let found = guard(hub, hosts, private).judge(&url.parse().unwrap(), from.as_ref());
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{url}: {error}"),
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_signed_address_is_shown_without_its_signature() {
        assert_eq!(shown(&"https://h/a?Signature=secret#f".parse().unwrap()), "https://h/a");
    }
}
