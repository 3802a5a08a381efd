//! Kubeconfigs: how the controller, and people, reach the API. The embedded API and a cluster are reached the same way.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::proxy;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot use the kubeconfig {}: {source}", path.display())]
    Kubeconfig { path: PathBuf, source: Box<KubeconfigError> },
    #[error("cannot make a client for the API of {}: {source}", path.display())]
    Client { path: PathBuf, source: Box<kube::Error> },
}

/// A client for the current context of the kubeconfig at `path`, and the API's address.
///
/// # Errors
/// [`ClientError`] with the path.
pub async fn client(path: &Path) -> Result<(Client, String), ClientError> {
    let unusable = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.map_err(unusable)?;
    proxy::settle(&mut config, &kubeconfig, None);
    let address = config.cluster_url.to_string();
    let client = Client::try_from(config)
        .map_err(|source| ClientError::Client { path: path.to_owned(), source: Box::new(source) })?;
    Ok((client, address.trim_end_matches('/').to_owned()))
}
