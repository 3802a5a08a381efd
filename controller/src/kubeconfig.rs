//! Kubeconfigs: how the controller, and people, reach the API. The embedded API and a cluster are reached the same way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::proxy;

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
