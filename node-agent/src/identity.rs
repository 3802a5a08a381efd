//! Identity: this device's key, and the papers that a host gave it, in a folder of its own.

use std::io;
use std::path::{Path, PathBuf};

use polyphony_identity::{Clock, Credentials, CredentialsError, Digest, Key, KeyError, Papers, Proven, write_private};
use serde::{Deserialize, Serialize};

/// Key and papers, in memory and on the disk.
pub struct Identity {
    folder: PathBuf,
    key: Key,
    kept: Option<Kept>,
}

/// Papers that fit the key.
struct Kept {
    papers: Papers,
    holder: Proven,
    /// A time that has surely passed, in seconds of Unix.
    least_time: u64,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    chain: String,
    roots: String,
    time_seconds: u64,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot use {}: {source}; make the folder readable and writable for this user, or choose another --data-dir", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the host sent papers that cannot be used: {0}; are host and agent of one version?")]
    Papers(#[from] CredentialsError),
    #[error("the host sent papers of {found}, and this is {expected}")]
    OtherName { found: String, expected: String },
}

/// Whether a data folder holds papers from an authority of that root, where one is told; whoever opens them looks closer.
pub fn has_papers(data_dir: &Path, ca_hash: Option<&Digest>) -> bool {
    let written = std::fs::read(data_dir.join(FOLDER).join(PAPERS)).ok();
    let written: Option<Written> = written.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let papers = written.and_then(|written| Papers::from_pem(&written.chain, &written.roots).ok());
    papers.is_some_and(|papers| ca_hash.is_none_or(|hash| papers.has_root(hash)))
}

const FOLDER: &str = "identity";
const PAPERS: &str = "papers.json";

// === impl Identity ===

impl Identity {
    /// Opens the folder of a data folder; makes it, and the key, where there is none.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let folder = data_dir.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|source| IdentityError::File { path: folder.clone(), source })?;
        let key = Key::in_file(&folder.join("key.pem"))?;
        let mut identity = Self { folder, key, kept: None };
        identity.kept = identity.read()?;
        Ok(identity)
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether there are papers of that name, from an authority of that root where one is told.
    pub fn is(&self, name: &str, ca_hash: Option<&Digest>) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| kept.holder.name.name == name && ca_hash.is_none_or(|hash| kept.papers.has_root(hash)))
    }

    /// Who the papers say that it is.
    pub fn holder(&self) -> Option<&Proven> {
        self.kept.as_ref().map(|kept| &kept.holder)
    }

    /// What connections are made with; none before the first papers.
    ///
    /// # Errors
    /// When the papers cannot be used, as they could when they were kept.
    pub fn credentials(&self) -> Result<Option<Credentials>, IdentityError> {
        let Some(kept) = &self.kept else { return Ok(None) };
        Ok(Some(Credentials::new(&self.key, &kept.papers, Clock::told(kept.least_time))?))
    }

    /// Keeps new papers of `name`, and has `credentials` go by them.
    ///
    /// # Errors
    /// When they are not of this key and name, or cannot be kept.
    pub fn keep(
        &mut self,
        name: &str,
        papers: Papers,
        time_seconds: u64,
        credentials: Option<&Credentials>,
    ) -> Result<(), IdentityError> {
        let holder = papers.holder()?;
        if holder.name.name != name {
            return Err(IdentityError::OtherName { found: holder.name.to_string(), expected: name.to_owned() });
        }
        match credentials {
            Some(credentials) => credentials.replace(&self.key, &papers)?,
            None => drop(Credentials::new(&self.key, &papers, Clock::told(time_seconds))?),
        }
        let written = Written { chain: papers.chain_pem(), roots: papers.roots_pem(), time_seconds };
        let (path, bytes) = (self.path(), serde_json::to_vec_pretty(&written).unwrap_or_default());
        write_private(&path, &bytes).map_err(|source| IdentityError::File { path, source })?;
        self.kept = Some(Kept { papers, holder, least_time: time_seconds });
        Ok(())
    }

    /// The papers on the disk. What cannot be read is as none: the host gives new ones for a token.
    fn read(&self) -> Result<Option<Kept>, IdentityError> {
        let path = self.path();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let usable = || -> Option<Kept> {
            let written: Written = serde_json::from_slice(&bytes).ok()?;
            let papers = Papers::from_pem(&written.chain, &written.roots).ok()?;
            let holder = papers.holder().ok().filter(|holder| holder.key == self.key.digest())?;
            Some(Kept { papers, holder, least_time: written.time_seconds })
        };
        let kept = usable();
        if kept.is_none() {
            tracing::warn!(path = %path.display(), "the papers there are none of this device's key; it has to join again");
        }
        Ok(kept)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(PAPERS)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Authority, DEFAULT_DOMAIN, Lifetimes, Name, Signed};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn papers_are_kept_for_the_key_that_they_are_of() {
        let folder = tempfile::tempdir().unwrap();
        let mut identity = Identity::open(folder.path()).unwrap();
        assert!(identity.credentials().unwrap().is_none() && !identity.is("a", None));
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap();
        let request = Signed::read(&identity.key().request().unwrap()).unwrap();
        let papers = authority.certify(&request, &Name::phone("a", DEFAULT_DOMAIN), NOW).unwrap();
        let error = identity.keep("b", papers.clone(), NOW, None).unwrap_err().to_string();
        assert!(error.contains("of phone a, and this is b"), "{error}");
        identity.keep("a", papers.clone(), NOW, None).unwrap();
        let again = Identity::open(folder.path()).unwrap();
        assert!(has_papers(folder.path(), Some(&authority.ca_hash())));
        assert!(again.is("a", None) && again.is("a", Some(&authority.ca_hash())) && !again.is("b", None));
        let other = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap();
        assert!(!again.is("a", Some(&other.ca_hash())) && !has_papers(folder.path(), Some(&other.ca_hash())));
        assert!(again.credentials().unwrap().unwrap().clock().now() >= NOW);
        // Another key, as after a restore of half a folder.
        std::fs::remove_file(folder.path().join("identity/key.pem")).unwrap();
        let mut stranger = Identity::open(folder.path()).unwrap();
        assert!(!stranger.is("a", None));
        assert!(matches!(
            stranger.keep("a", papers, NOW, None),
            Err(IdentityError::Papers(CredentialsError::OtherKey))
        ));
    }
}
