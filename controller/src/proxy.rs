//! Proxies: through which one a cluster's API is reached, by what the environment says. Reads no variable itself.
//!
//! This machine's own addresses, and those that mean something within a cluster alone, are reached without any.

use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, InvalidUri};
use hyper_util::client::proxy::matcher::Matcher;

/// The variables that name a proxy, and what is reached without. The first that is not empty counts.
const PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// In each container of a cluster: where that one's own API is.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// How an address is reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Way {
    pub proxy: Option<Uri>,
    pub passed_over: Vec<PassedOver>,
}

/// An entry of `NO_PROXY` that excepts nothing, whatever it was meant to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "NO_PROXY: {entry:?} is passed over: write names, addresses or networks, such as `example.com,10.0.0.7,10.0.0.0/8`"
)]
pub struct PassedOver {
    pub entry: String,
}

// === impl Way ===

impl Way {
    /// The way to an `http` or `https` address, as a variable's value by its name has it.
    ///
    /// # Errors
    /// For a proxy that is no URL, where one is needed.
    pub fn to(url: &Uri, variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidUri> {
        let first =
            |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let is_near = |host: &str| is_loopback(host) || is_of_cluster(host, variable(SERVICE_HOST).as_deref());
        let Some(proxy) = first(PROXY).filter(|_| !url.host().is_none_or(is_near)) else {
            return Ok(Self::default());
        };
        let (excepted, passed_over) = exceptions(&first(NO_PROXY).unwrap_or_default(), port(url));
        // To the matcher that is every name, and no address.
        if excepted.iter().any(|host| host == "*") {
            return Ok(Self { proxy: None, passed_over });
        }
        // Which proxy is no question of this matcher's, nor which port. It compares letters of either case, and takes the dot of the root
        // for one of the name.
        let matcher = Matcher::builder().all("http://proxy").no(excepted.join(",")).build();
        let asked = url
            .host()
            .and_then(|host| rootless(host).parse().ok())
            .map(|host: Authority| Uri::builder().scheme("http").authority(host).path_and_query("/").build());
        let asked = asked.and_then(Result::ok).unwrap_or_else(|| url.clone());
        let proxy = matcher.intercept(&asked).map(|_| parse(&proxy)).transpose()?;
        Ok(Self { proxy, passed_over })
    }
}

/// Whether a host of a URL is this machine itself, by loopback or by the address of whatever it listens on, in whatever spelling.
pub fn is_loopback(host: &str) -> bool {
    let host = plain(host);
    let is_name = host == "localhost" || host.ends_with(".localhost");
    let is_here = |address: IpAddr| address.is_loopback() || address.is_unspecified();
    is_name || host.parse::<IpAddr>().is_ok_and(|address| is_here(address.to_canonical()))
}

/// Whether it is known within a cluster alone, or the address of that cluster's own API.
fn is_of_cluster(host: &str, service_host: Option<&str>) -> bool {
    let host = plain(host);
    let is_name = ["kubernetes", "kubernetes.default"].contains(&host.as_str());
    let is_below = [".svc", ".cluster.local"].iter().any(|ending| host.ends_with(ending));
    is_name || is_below || service_host.is_some_and(|known| plain(known) == host)
}

/// A host in small letters, without brackets and the dot of the root.
fn plain(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// A name without the dot of the root, which says only that it is whole.
fn rootless(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// `proxy:3128` means `http://proxy:3128`, as to every other program.
pub fn parse(proxy: &str) -> Result<Uri, InvalidUri> {
    let uri: Uri = proxy.parse()?;
    if uri.scheme().is_some() { Ok(uri) } else { format!("http://{proxy}").parse() }
}

fn port(url: &Uri) -> Option<u16> {
    url.port_u16().or(match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

/// What `NO_PROXY` excepts at a port, in the words of the matcher, and what of it says nothing.
fn exceptions(no_proxy: &str, port: Option<u16>) -> (Vec<String>, Vec<PassedOver>) {
    let (mut excepted, mut passed_over) = (Vec::new(), Vec::new());
    let entries = no_proxy.split(|sign: char| sign == ',' || sign.is_whitespace());
    for entry in entries.filter(|entry| !entry.is_empty()) {
        match exception(entry) {
            Some((host, at)) if at.is_none() || at == port => excepted.push(host),
            Some(_) => {}
            None => passed_over.push(PassedOver { entry: entry.to_owned() }),
        }
    }
    (excepted, passed_over)
}

/// The host or network of an entry, and its port where it has one: `*`, `10.0.0.0/8`, `10.0.0.7`, `[::1]:80`, `.example.com:443` and their like.
fn exception(entry: &str) -> Option<(String, Option<u16>)> {
    if entry == "*" || entry.parse::<IpAddr>().is_ok() || is_network(entry) {
        return Some((entry.to_owned(), None));
    }
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<IpAddr>().ok()?;
        return Some((address.to_owned(), port_of(port)?));
    }
    let (name, port) = entry.split_at(entry.find(':').unwrap_or(entry.len()));
    // `*.example.com` and `.example.com` are one.
    let name = rootless(name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name));
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_name = name.strip_prefix('.').unwrap_or(name).split('.').all(is_label);
    is_name.then_some((name.to_owned(), port_of(port)?))
}

/// Of an address and the number of bits that count.
fn is_network(entry: &str) -> bool {
    let Some((address, n_bits)) = entry.split_once('/') else { return false };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    n_bits.parse::<u8>().is_ok_and(|n_bits| n_bits <= most)
}

/// Nothing, or a port after a colon. `None` where it is neither.
fn port_of(text: &str) -> Option<Option<u16>> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(Some),
        None => text.is_empty().then_some(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn way(url: &str, variables: &[(&str, &str)]) -> Result<Way, InvalidUri> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Way::to(&url.parse().unwrap(), value)
    }

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for host in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "[::]",
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "notlocalhost", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_address_is_proxied_where_it_is_elsewhere_and_not_excepted() {
        for (url, no_proxy, expected) in [
            ("https://127.0.0.1:7443", "", false),
            ("https://[::1]:7443", "example.com", false),
            ("https://kubernetes.default.svc", "", false),
            ("https://api.lab.svc.cluster.local.:6443", "", false),
            ("https://10.96.0.1", "", false),
            ("https://10.96.0.2", "", true),
            ("https://k8s.example.com:6443", "", true),
            ("https://k8s.example.com:6443", "*", false),
            ("https://10.0.0.7:6443", "example.org, *", false),
            ("https://[fd00::7]:6443", "*", false),
            ("https://k8s.example.com:6443", "localhost, .example.com,", false),
            ("https://k8s.example.com:6443", "*.example.com", false),
            ("https://k8s.example.com:6443", "a.test k8s.example.com", false),
            ("https://k8s.example.com:6443", "example.com:443", true),
            ("https://k8s.example.com", "example.com:443", false),
            ("https://10.0.0.7:6443", "10.0.0.0/8", false),
            ("https://10.0.0.7:6443", "192.168.0.0/16", true),
            ("https://[fd00::7]:6443", "[fd00::7]:6443", false),
            ("https://k8s.example.com.:6443", "k8s.example.com", false),
            ("https://k8s.example.com.", "example.com", false),
            ("https://k8s.example.com.:6443", ".EXAMPLE.com.:6443", false),
            ("https://k8s.example.com:6443", "k8s.example.com.", false),
            ("https://K8s.Example.COM:6443", "*.example.com.", false),
            ("https://k8s.example.com:6443", "K8S.example.com:443", true),
            ("https://k8s.example.com.:6443", "s.example.com", true),
            ("https://10.0.0.7.:6443", "10.0.0.0/8", false),
            ("https://10.0.0.7:6443", "10.0.0.7.", false),
        ] {
            let variables =
                [("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", no_proxy), ("KUBERNETES_SERVICE_HOST", "10.96.0.1")];
            let way = way(url, &variables).unwrap();
            assert_eq!(way.proxy, expected.then(|| "http://proxy:3128/".parse().unwrap()), "{url} {no_proxy:?}");
            assert_eq!(way.passed_over, [], "{no_proxy:?}");
        }
        let way = way("https://k8s.example.com", &[("HTTPS_PROXY", ""), ("https_proxy", "http://other:80")]).unwrap();
        assert_eq!(way.proxy, Some("http://other:80/".parse().unwrap()));
    }

    #[test]
    fn entries_that_say_nothing_are_named_and_the_others_count() {
        let wrong = ["http://a.test", "10.0.0.0/33", "a..test", "*test", "[::1", "a.test:port", "ä.test", "-/-"];
        let no_proxy = format!("{},example.com", wrong.join(",,"));
        let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy.as_str())];
        let way = way("https://k8s.example.com:6443", &variables).unwrap();
        let passed_over: Vec<&str> = way.passed_over.iter().map(|one| one.entry.as_str()).collect();
        assert_eq!((way.proxy, passed_over), (None, wrong.to_vec()));
    }

    #[test]
    fn a_proxy_that_is_none_is_an_error_only_where_it_is_needed() {
        let variables = [("HTTPS_PROXY", "http://[")];
        assert_eq!(way("https://127.0.0.1:7443", &variables).unwrap(), Way::default());
        assert!(way("https://k8s.example.com:6443", &variables).is_err());
    }
}
