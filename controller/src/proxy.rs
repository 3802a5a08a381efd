//! Proxies: which addresses are reached through the one that the environment or a kubeconfig names. This machine's own never are.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::Config;
use kube::config::Kubeconfig;

/// Whether a host of a URL is this machine itself, in whatever spelling.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let is_name = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    is_name || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Settles through which proxy the API of `config` is reached: the one of its kubeconfig, else that of the environment, for
/// `NO_PROXY` and this machine's own addresses none. (`kube` asks `NO_PROXY` about the proxy, in place of the API.)
pub fn settle(config: &mut Config, kubeconfig: &Kubeconfig, context: Option<&str>) {
    if is_named(kubeconfig, context) {
        return;
    }
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok());
    let proxy = config.proxy_url.take();
    config.proxy_url = proxy.filter(|_| is_proxied(&config.cluster_url, no_proxy.as_deref())).map(with_scheme);
}

fn is_proxied(url: &Uri, no_proxy: Option<&str>) -> bool {
    if url.host().is_none_or(is_loopback) {
        return false;
    }
    // Which proxy is no question of this matcher's.
    let matcher = Matcher::builder().all("http://proxy").no(no_proxy.unwrap_or_default()).build();
    matcher.intercept(url).is_some()
}

/// Whether the kubeconfig itself names a proxy for the cluster of a context.
fn is_named(kubeconfig: &Kubeconfig, context: Option<&str>) -> bool {
    let context = context.or(kubeconfig.current_context.as_deref());
    let found = kubeconfig.contexts.iter().find(|one| Some(one.name.as_str()) == context);
    let cluster = found.and_then(|one| one.context.as_ref()).map(|one| one.cluster.as_str());
    let clusters = kubeconfig.clusters.iter().filter(|one| Some(one.name.as_str()) == cluster);
    let mut proxies = clusters.filter_map(|one| one.cluster.as_ref()?.proxy_url.as_deref());
    proxies.any(|proxy| !proxy.is_empty())
}

/// `proxy:3128` means `http://proxy:3128`, as to every other program.
fn with_scheme(proxy: Uri) -> Uri {
    if proxy.scheme().is_some() {
        return proxy;
    }
    format!("http://{proxy}").parse().unwrap_or(proxy)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn loopback_is_known_in_every_spelling() {
        for host in
            ["127.0.0.1", "127.1.2.3", "localhost", "LOCALHOST", "a.localhost", "::1", "[::1]", "::ffff:127.0.0.1"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "localhost.example", "notlocalhost", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_api_is_proxied_where_it_is_elsewhere_and_not_excepted() {
        for (url, no_proxy, expected) in [
            ("https://127.0.0.1:7443", None, false),
            ("https://[::1]:7443", Some("example.com"), false),
            ("https://k8s.example.com:6443", None, true),
            ("https://k8s.example.com:6443", Some("*"), false),
            ("https://k8s.example.com:6443", Some("localhost, .example.com,"), false),
            ("https://10.0.0.7:6443", Some("10.0.0.0/8"), false),
            ("https://10.0.0.7:6443", Some("192.168.0.0/16"), true),
        ] {
            assert_eq!(is_proxied(&url.parse().unwrap(), no_proxy), expected, "{url} {no_proxy:?}");
        }
    }

    #[test]
    fn a_kubeconfig_has_the_last_word() {
        let text = "
            current-context: plain
            contexts:
            - {name: plain, context: {cluster: plain, user: me}}
            - {name: tunnel, context: {cluster: tunnel, user: me}}
            clusters:
            - {name: plain, cluster: {server: 'https://127.0.0.1:1'}}
            - {name: tunnel, cluster: {server: 'https://127.0.0.1:1', proxy-url: 'socks5://127.0.0.1:9'}}
            users: []";
        let kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        assert!(!is_named(&kubeconfig, None));
        assert!(is_named(&kubeconfig, Some("tunnel")));
        assert_eq!(with_scheme("proxy:3128".parse().unwrap()).to_string(), "http://proxy:3128/");
    }
}
