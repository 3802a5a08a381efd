//! The control plane of a farm: a folder of this machine, the API that goes with it, and the id by which its devices know it.
//!
//! Folder and API are of one control plane, or nothing is done. The id is kept in the folder, so that it is known while nothing runs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use http::Uri;
use polyphony_identity::write_private;

use super::host::{cluster_id, running};
use crate::connection::{ClusterFlags, ConnectionError};
use crate::server::Server;

/// Holds the id of the control plane that the folder's `farm up` took devices for last.
const KEPT: &str = "cluster-uid";

pub(super) struct ControlPlane {
    pub(super) folder: PathBuf,
    flags: ClusterFlags,
    /// Where a connection was made to see whether it is this one's.
    server: Option<Server>,
}

/// Why it is not told which control plane is meant.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kubeconfig that is meant leads to {meant}, and the control plane in {} {}: say --data-dir with the folder of the one that is meant, and neither --kubeconfig nor --context",
    .folder.display(), place(.own.as_deref())
)]
struct Another {
    folder: PathBuf,
    meant: String,
    own: Option<String>,
}

fn place(own: Option<&str>) -> String {
    own.map_or_else(|| "has none".to_owned(), |address| format!("is at {address}"))
}

// === impl ControlPlane ===

impl ControlPlane {
    /// That of the folder which `flags` mean. Asks its API nothing.
    ///
    /// # Errors
    /// When the kubeconfig that they mean leads to another.
    pub(super) async fn of(flags: ClusterFlags) -> anyhow::Result<Self> {
        let folder = std::path::absolute(flags.data_dir_of_cluster()?)?;
        let is_own = flags.mean_that_of(&folder)?;
        let own = match running(&folder) {
            Some(endpoints) => Some(reached_at(&endpoints.api)),
            None if is_own => return Ok(Self { folder, flags, server: None }),
            // That of the one which ran there last.
            None => {
                let own = ClusterFlags { data_dir: Some(folder.clone()), ..ClusterFlags::default() };
                own.connect().await.ok().map(|connection| connection.server.address().to_owned())
            }
        };
        match flags.connect().await.map(|connection| connection.server) {
            Ok(server) if own.as_deref() == Some(server.address()) => Ok(Self { folder, flags, server: Some(server) }),
            Ok(server) => Err(Another { folder, meant: server.address().to_owned(), own }.into()),
            // Who asks the API is told then.
            Err(_) if is_own => Ok(Self { folder, flags, server: None }),
            Err(error) => Err(error.into()),
        }
    }

    /// # Errors
    /// When the kubeconfig is missing or wrong.
    pub(super) async fn server(&self) -> Result<Server, ConnectionError> {
        match &self.server {
            Some(server) => Ok(server.clone()),
            None => Ok(self.flags.connect().await?.server),
        }
    }

    /// Its id: the one that is kept, and else as its API has it. None where neither is there.
    ///
    /// # Errors
    /// When what is kept cannot be read, or one that runs does not say.
    pub(super) async fn id(&self) -> anyhow::Result<Option<String>> {
        if let Some(id) = self.kept()? {
            return Ok(Some(id));
        }
        match running(&self.folder) {
            None => Ok(None),
            Some(_) => Ok(Some(cluster_id(&self.server().await?).await?)),
        }
    }

    /// Has the folder remember the id, before a device is told it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep(&self, id: &str) -> anyhow::Result<()> {
        if self.kept()?.as_deref() == Some(id) {
            return Ok(());
        }
        let path = self.folder.join(KEPT);
        let written = write_private(&path, format!("{id}\n").as_bytes());
        written.with_context(|| {
            format!("{} cannot be written, and `polyctl farm down` would not know its devices", path.display())
        })
    }

    fn kept(&self) -> anyhow::Result<Option<String>> {
        let path = self.folder.join(KEPT);
        match fs::read_to_string(&path) {
            Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }
}

/// `host:port` by which this machine reaches an API, as the kubeconfig says it that was written for it.
fn reached_at(api: &str) -> String {
    let authority = api.parse::<Uri>().ok().and_then(|uri| Some(uri.authority()?.to_string()));
    let address = authority.unwrap_or_else(|| api.to_owned());
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => {
            let here: IpAddr = if socket.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            SocketAddr::new(here, socket.port()).to_string()
        }
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_api_is_known_by_where_it_is_reached() {
        for (api, address) in [
            ("http://127.0.0.1:7443", "127.0.0.1:7443"),
            ("https://0.0.0.0:7443", "127.0.0.1:7443"),
            ("https://[::]:7443", "[::1]:7443"),
            ("https://k8s.example:6443/", "k8s.example:6443"),
        ] {
            assert_eq!(reached_at(api), address);
        }
    }

    #[tokio::test]
    async fn the_id_is_known_while_nothing_runs_once_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let flags = ClusterFlags { data_dir: Some(folder.path().to_owned()), ..ClusterFlags::default() };
        let plane = ControlPlane::of(flags).await.unwrap();
        assert_eq!(plane.id().await.unwrap(), None);
        for id in ["u-1", "u-2"] {
            plane.keep(id).unwrap();
            assert_eq!(plane.id().await.unwrap().as_deref(), Some(id));
        }
        // A write that was cut off is none.
        fs::write(folder.path().join(KEPT), "").unwrap();
        assert_eq!(plane.id().await.unwrap(), None);
    }
}
