//! The file `endpoints.json`: where everything listens. It is there only while everything does.

use std::path::Path;

use polyphony_identity::{Digest, write_private};
use serde::{Deserialize, Serialize};

use super::endpoints_path;

/// Addresses of a running controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base URL of the Kubernetes API.
    pub api: String,
    /// Base URL of the gateway, without `/v1`.
    pub gateway: String,
    /// What agents dial.
    pub hub: String,
    /// Base URL of manifests and weights.
    pub weights: String,
    /// Base URL of `/metrics`.
    pub metrics: String,
    /// The digest of the root's key, by which devices that join know this host.
    pub ca_hash: Digest,
    pub pid: u32,
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        Ok(write_private(&endpoints_path(data_dir), &serde_json::to_vec_pretty(self)?)?)
    }

    /// Takes the file away; one that is not there is fine.
    pub(super) fn remove(data_dir: &Path) {
        let _ = std::fs::remove_file(endpoints_path(data_dir));
    }
}
