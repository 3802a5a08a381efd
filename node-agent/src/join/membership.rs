//! Membership: what a phone remembers of the host that it joined, in a file that only its user can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyphony_identity::write_private;
use serde::{Deserialize, Serialize};

/// Kept as `membership.json` in the agent's data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// HOST:PORT of the hub.
    pub hub: String,
    /// The flags that the agent runs with, by name without hyphens in front; a switch is `true`.
    pub flags: BTreeMap<String, String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("cannot {verb} {}: {source}; make the folder readable and writable for this user, or choose another --data-dir", path.display())]
    File { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is not what an agent wrote: {source}; remove it and join again with HOST:PORT", path.display())]
    Garbled { path: PathBuf, source: serde_json::Error },
}

// === impl Membership ===

impl Membership {
    /// Where it is in a data folder.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("membership.json")
    }

    /// What is remembered; none before the first join.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, MembershipError> {
        let path = Self::path(data_dir);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(membership) => Ok(Some(membership)),
                Err(source) => Err(MembershipError::Garbled { path, source }),
            },
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MembershipError::File { verb: "read", path, source }),
        }
    }

    /// Writes the file, whole or not at all, with mode 0600.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self, data_dir: &Path) -> Result<(), MembershipError> {
        let path = Self::path(data_dir);
        let written = || -> std::io::Result<()> {
            std::fs::create_dir_all(data_dir)?;
            write_private(&path, &serde_json::to_vec_pretty(self)?)
        };
        written().map_err(|source| MembershipError::File { verb: "write", path, source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_joined_is_remembered_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("agent");
        assert_eq!(Membership::read(&data_dir).unwrap(), None);
        let flags = BTreeMap::from([("name".to_owned(), "pixel".to_owned())]);
        let membership = Membership { hub: "10.0.0.1:7700".into(), flags };
        membership.write(&data_dir).unwrap();
        assert_eq!(Membership::read(&data_dir).unwrap(), Some(membership));
        let mode = std::fs::metadata(Membership::path(&data_dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(Membership::path(&data_dir), "{").unwrap();
        assert!(Membership::read(&data_dir).unwrap_err().to_string().contains("remove it"));
    }
}
