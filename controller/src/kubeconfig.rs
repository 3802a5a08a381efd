//! Kubeconfigs: how the controller, and people, reach the API. The embedded API and a cluster are reached the same way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use kube::config::{ExecAuthCluster, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::proxy::{self, PassedOver, Way};
/// What a client of the embedded API needs, in one file.
pub use polyphony_apiserver::{Credential, kubeconfig as text_of};

/// A connection has to come about, and a request to be taken, within the first; something has to be heard of it within the second.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot use the kubeconfig {}: {source}", path.display())]
    Kubeconfig { path: PathBuf, source: Box<KubeconfigError> },
    #[error("cannot make a client for the API of {}: {source}", path.display())]
    Client { path: PathBuf, source: Box<kube::Error> },
}

/// How an API is reached.
#[derive(Debug)]
pub struct Access {
    pub config: Config,
    /// What is to be warned of.
    pub passed_over: Vec<PassedOver>,
}

// === impl Access ===

impl Access {
    /// What a context of a kubeconfig says, or its current one, and what the environment says of proxies; a `proxy-url` has the last word.
    ///
    /// `Config::from_custom_kubeconfig` asks `NO_PROXY` about the proxy, in place of the API, and refuses all for an entry that it cannot
    /// read. All else is as there.
    ///
    /// # Errors
    /// [`KubeconfigError`] as `kube` has it, for what the kubeconfig lacks.
    pub fn of(kubeconfig: &Kubeconfig, context: Option<&str>) -> Result<Self, KubeconfigError> {
        use KubeconfigError::{
            CurrentContextNotSet, LoadClusterOfContext, LoadContext, MissingClusterUrl, ParseClusterUrl, ParseProxyUrl,
        };
        let name = context.or(kubeconfig.current_context.as_deref()).ok_or(CurrentContextNotSet)?;
        let context = kubeconfig.contexts.iter().find(|one| one.name == name).and_then(|one| one.context.as_ref());
        let context = context.ok_or_else(|| LoadContext(name.to_owned()))?;
        let cluster = kubeconfig.clusters.iter().find(|one| one.name == context.cluster);
        let cluster = cluster.and_then(|one| one.cluster.as_ref());
        let cluster = cluster.ok_or_else(|| LoadClusterOfContext(context.cluster.clone()))?;
        let user = kubeconfig.auth_infos.iter().find(|one| Some(&one.name) == context.user.as_ref());
        let mut user = user.and_then(|one| one.auth_info.clone()).unwrap_or_default();
        let told = ExecAuthCluster::try_from(cluster)?;
        let authority = told.certificate_authority_data.as_deref().map(certificates).transpose();
        if let Some(exec) = user.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
            exec.cluster = Some(told);
        }
        let url: Uri = cluster.server.as_deref().ok_or(MissingClusterUrl)?.parse().map_err(ParseClusterUrl)?;
        let way = match cluster.proxy_url.as_deref().filter(|proxy| !proxy.is_empty()) {
            Some(named) => proxy::parse(named).map(|proxy| Way { proxy: Some(proxy), ..Way::default() }),
            None => Way::to(&url, |name| std::env::var(name).ok()),
        };
        let Way { proxy, passed_over } = way.map_err(ParseProxyUrl)?;
        let mut config = Config::new(url);
        if let Some(namespace) = &context.namespace {
            config.default_namespace.clone_from(namespace);
        }
        config.root_cert = authority?;
        config.accept_invalid_certs = cluster.insecure_skip_tls_verify.unwrap_or_default();
        config.disable_compression = cluster.disable_compression.unwrap_or_default();
        config.tls_server_name.clone_from(&cluster.tls_server_name);
        config.auth_info = user;
        config.proxy_url = proxy;
        Ok(Self { config, passed_over })
    }
}

/// The certificates of a PEM file, which may hold other things, too.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, KubeconfigError> {
    let parts = pem::parse_many(pem).map_err(KubeconfigError::ParseCertificates)?;
    let parts = parts.into_iter().filter(|part| part.tag() == "CERTIFICATE");
    Ok(parts.map(pem::Pem::into_contents).collect())
}

/// A client for the current context of the kubeconfig at `path`, and the API's address.
///
/// # Errors
/// [`ClientError`] with the path.
pub async fn client(path: &Path) -> Result<(Client, String), ClientError> {
    let unusable = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let Access { mut config, passed_over } = Access::of(&kubeconfig, None).map_err(unusable)?;
    for passed_over in passed_over {
        tracing::warn!("{passed_over}");
    }
    config.connect_timeout = Some(CONNECT_DEADLINE);
    config.write_timeout = Some(CONNECT_DEADLINE);
    // Watches say something at least as often as they are begun anew.
    config.read_timeout = Some(READ_DEADLINE);
    config.reset_reader_on_write = true;
    let address = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|source| ClientError::Client { path: path.to_owned(), source: Box::new(source) })?;
    Ok((client, address.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kube::config::KubeConfigOptions;

    use super::*;

    /// Contexts of every kind, some of which lack something.
    const KUBECONFIG: &str = "
        current-context: plain
        contexts:
        - {name: plain, context: {cluster: plain, user: token}}
        - {name: elsewhere, context: {cluster: guarded, user: plugin, namespace: lab}}
        - {name: open, context: {cluster: open, user: nobody}}
        - {name: tunnel, context: {cluster: tunnel}}
        - {name: lost, context: {cluster: nowhere}}
        - {name: broken, context: {cluster: broken}}
        - {name: wrong, context: {cluster: wrong}}
        - {name: unsaid, context: {cluster: unsaid}}
        - {name: empty}
        clusters:
        - {name: plain, cluster: {server: 'https://127.0.0.1:1'}}
        - name: guarded
          cluster:
            server: https://k8s.example.com:6443
            tls-server-name: other.example.com
            certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmFHVnNiRzg9Ci0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K
        - {name: open, cluster: {server: 'http://10.0.0.7', insecure-skip-tls-verify: true, disable-compression: true}}
        - {name: tunnel, cluster: {server: 'https://127.0.0.1:1', proxy-url: 'socks5://127.0.0.1:9'}}
        - {name: broken, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: '?'}}
        - {name: wrong, cluster: {server: 'https://['}}
        - {name: unsaid, cluster: {}}
        users:
        - {name: token, user: {token: secret, username: me}}
        - {name: plugin, user: {exec: {command: helper, provideClusterInfo: true}}}";

    #[tokio::test]
    async fn a_kubeconfig_means_what_it_means_to_kube_but_for_proxies() {
        let kubeconfig = Kubeconfig::from_yaml(KUBECONFIG).unwrap();
        let contexts = kubeconfig.contexts.iter().map(|one| Some(one.name.clone())).chain([None, Some("no".into())]);
        let shown = |mut config: Config| {
            config.proxy_url = None;
            format!("{config:?}")
        };
        let mut n_good = 0;
        for context in contexts {
            let ours = Access::of(&kubeconfig, context.as_deref()).map(|access| shown(access.config));
            n_good += usize::from(ours.is_ok());
            let options = KubeConfigOptions { context: context.clone(), ..Default::default() };
            let theirs = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.map(shown);
            let told = |error: KubeconfigError| error.to_string();
            assert_eq!(ours.map_err(told), theirs.map_err(told), "{context:?}");
        }
        assert_eq!(n_good, 5);
        let no_context = Kubeconfig { current_context: None, ..kubeconfig };
        assert!(matches!(Access::of(&no_context, None), Err(KubeconfigError::CurrentContextNotSet)));
    }

    #[test]
    fn a_kubeconfig_has_the_last_word_on_proxies() {
        let kubeconfig = Kubeconfig::from_yaml(KUBECONFIG).unwrap();
        let proxy = |context| Access::of(&kubeconfig, context).unwrap().config.proxy_url;
        assert_eq!(proxy(Some("tunnel")), Some("socks5://127.0.0.1:9".parse().unwrap()));
        assert_eq!(proxy(None), None, "loopback");
    }
}
