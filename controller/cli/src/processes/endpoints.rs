//! Endpoints: where the controller says that it listens, in `DATA_DIR/endpoints.json`.

use std::path::Path;

use polyphony_identity::Digest;
use serde::Deserialize;

/// Written by the controller when everything listens, removed by it at an orderly end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base URL of the API server.
    pub api: String,
    /// Base URL of the gateway, without `/v1`.
    pub gateway: String,
    /// Address that agents dial.
    pub hub: String,
    /// Base URL of manifests and weights.
    #[serde(default)]
    pub weights: String,
    /// Where the controller serves its metrics, and the list of those who serve theirs.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The digest of the root's key, by which devices that join know this host.
    pub ca_hash: Digest,
    pub pid: u32,
}

const FILE: &str = "endpoints.json";

// === impl Endpoints ===

impl Endpoints {
    /// What the file says; none while there is no whole one.
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join(FILE)).ok()?).ok()
    }

    /// Removes what a controller left that was killed.
    pub fn forget(data_dir: &Path) {
        // There may be none.
        let _ = std::fs::remove_file(data_dir.join(FILE));
    }
}

/// The port of `http://host:port` or `host:port`.
pub fn port_of(address: &str) -> Option<u16> {
    address.trim_end_matches('/').rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn endpoints_are_read_as_the_controller_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Endpoints::read(folder.path()), None);
        let text = serde_json::json!({
            "api": "http://127.0.0.1:7443", "gateway": "http://127.0.0.1:8080", "hub": "127.0.0.1:7700",
            "weights": "https://127.0.0.1:1", "caHash": Digest::of_spki(b"root"), "pid": 7,
        });
        std::fs::write(folder.path().join(FILE), text.to_string()).unwrap();
        let endpoints = Endpoints::read(folder.path()).unwrap();
        assert_eq!((port_of(&endpoints.api), port_of(&endpoints.hub), endpoints.pid), (Some(7443), Some(7700), 7));
        Endpoints::forget(folder.path());
        assert_eq!(Endpoints::read(folder.path()), None);
    }
}
