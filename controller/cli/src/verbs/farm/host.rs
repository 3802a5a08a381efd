//! The host: the control plane of this machine, as far as a phone on a cable has to reach it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use polyphony_identity::Digest;

use crate::processes::endpoints::Endpoints;
use crate::processes::identity;
use crate::server::Server;
use crate::shell;

/// What agents dial, and by what they know whom they reach.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Host {
    pub(super) hub_port: u16,
    weights_port: u16,
    pub(super) ca_hash: Digest,
}

/// Why no phone on a cable reaches a control plane.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error(
        "no controller runs in {}: start one with `polyctl up --phones 0 --data-dir {}`, or name the folder of one that runs with --data-dir",
        .0.display(), shell::path(.0)
    )]
    NotRunning(PathBuf),
    #[error(
        "the {what} at {address} cannot be reached over adb, which leads to this machine's loopback alone: `polyctl up --listen 0.0.0.0`, or without --listen"
    )]
    NotAtLoopback { what: &'static str, address: String },
}

// === impl Host ===

impl Host {
    /// # Errors
    /// When none runs in `data_dir`, or where adb leads nobody.
    pub(super) fn of(data_dir: &Path) -> Result<Self, HostError> {
        Self::at(&running(data_dir).ok_or_else(|| HostError::NotRunning(data_dir.to_owned()))?)
    }

    fn at(endpoints: &Endpoints) -> Result<Self, HostError> {
        Ok(Self {
            hub_port: port_at_loopback("hub", &endpoints.hub)?,
            weights_port: port_at_loopback("server of weights", &endpoints.weights)?,
            ca_hash: endpoints.ca_hash,
        })
    }

    /// What has to lead from a phone to this machine.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        [self.hub_port, self.weights_port].into()
    }
}

/// Where the controller of `data_dir` listens; none where none runs.
pub(super) fn running(data_dir: &Path) -> Option<Endpoints> {
    Endpoints::read(data_dir).filter(|endpoints| identity::start_ticks(endpoints.pid).is_some())
}

/// Which control plane it is, whatever its address and its authority: what Kubernetes has no other name for, either.
pub(super) async fn cluster_id(server: &Server) -> anyhow::Result<String> {
    let namespace = server.get("/api/v1/namespaces/kube-system").await?;
    let uid = namespace["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty());
    Ok(uid
        .context("the API has given its namespace kube-system no uid, by which devices are told whose they are")?
        .to_owned())
}

fn port_at_loopback(what: &'static str, address: &str) -> Result<u16, HostError> {
    let bare = address.trim_start_matches("https://").trim_end_matches('/');
    let is_led_to = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    let socket = bare.parse::<SocketAddr>().ok().filter(|socket| is_led_to(socket.ip()));
    socket.map(|socket| socket.port()).ok_or_else(|| HostError::NotAtLoopback { what, address: bare.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn endpoints(hub: &str, weights: &str) -> Endpoints {
        let hash = Digest::of_spki(b"root");
        let text = json!({"api": "", "gateway": "", "hub": hub, "weights": weights, "caHash": hash, "pid": std::process::id()});
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_host_is_reached_where_adb_leads() {
        for (hub, weights, expected) in [
            ("127.0.0.1:7700", "https://127.0.0.1:40001", Ok([7700, 40001])),
            ("0.0.0.0:7700", "https://0.0.0.0:40001/", Ok([7700, 40001])),
            (
                "192.168.1.5:7700",
                "https://192.168.1.5:40001",
                Err("the hub at 192.168.1.5:7700 cannot be reached over adb"),
            ),
            ("127.0.0.1:7700", "", Err("the server of weights at ")),
        ] {
            match (Host::at(&endpoints(hub, weights)), expected) {
                (Ok(host), Ok(ports)) => assert_eq!(host.ports(), ports.into()),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (host, _) => panic!("{hub} {weights}: {host:?}"),
            }
        }
    }

    #[test]
    fn a_folder_without_a_controller_that_runs_says_what_starts_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = Host::of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("polyctl up --phones 0"), "{error}");
        // One that was killed leaves its file.
        let text = json!({"api": "", "gateway": "", "hub": "127.0.0.1:1", "weights": "https://127.0.0.1:2",
            "caHash": Digest::of_spki(b"root"), "pid": u32::MAX});
        std::fs::write(folder.path().join("endpoints.json"), text.to_string()).unwrap();
        assert!(matches!(Host::of(folder.path()), Err(HostError::NotRunning(_))));
    }
}
