//! Identity: this device's key, and the papers that a host gave it, in a folder of its own.

use std::io;
use std::path::{Path, PathBuf};

use polyphony_identity::{Clock, Credentials, CredentialsError, Digest, Key, KeyError, Papers, Proven, write_private};
use serde::{Deserialize, Serialize};

/// Key and papers, in memory and on the disk.
///
/// Papers of another host than the last one lie beside that one's until the new one has taken this device in: who gets no further than its name there
/// goes back to the host of before.
pub struct Identity {
    folder: PathBuf,
    key: Key,
    /// Of the host that took this device in last.
    settled: Option<Kept>,
    /// Of one that has not yet.
    fresh: Option<Kept>,
    uses_fresh: bool,
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
    [SETTLED, FRESH].iter().any(|file| {
        let written = std::fs::read(data_dir.join(FOLDER).join(file)).ok();
        let written: Option<Written> = written.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let papers = written.and_then(|written| Papers::from_pem(&written.chain, &written.roots).ok());
        papers.is_some_and(|papers| ca_hash.is_none_or(|hash| papers.has_root(hash)))
    })
}

const FOLDER: &str = "identity";
const SETTLED: &str = "papers.json";
const FRESH: &str = "papers-of-no-welcome-yet.json";

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
        let mut identity = Self { folder, key, settled: None, fresh: None, uses_fresh: false };
        identity.settled = identity.read(SETTLED)?;
        identity.fresh = identity.read(FRESH)?;
        Ok(identity)
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Goes by the papers of that name, from an authority of that root where one is told, and says what connections are made with; `None` where there
    /// are none.
    ///
    /// # Errors
    /// When the papers cannot be used, as they could when they were kept.
    pub fn credentials(&mut self, name: &str, ca_hash: Option<&Digest>) -> Result<Option<Credentials>, IdentityError> {
        let is_it =
            |kept: &&Kept| kept.holder.name.name == name && ca_hash.is_none_or(|hash| kept.papers.has_root(hash));
        let settled = self.settled.as_ref().filter(is_it);
        self.uses_fresh = settled.is_none();
        let Some(kept) = settled.or(self.fresh.as_ref().filter(is_it)) else { return Ok(None) };
        Ok(Some(Credentials::new(&self.key, &kept.papers, Clock::told(kept.least_time))?))
    }

    /// Keeps new papers of `name`: in the place of those that `credentials` are of, which go by them from now on, and without such beside those of the
    /// host of before, until [`Identity::settle`].
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
        let is_fresh = self.uses_fresh || credentials.is_none();
        let written = Written { chain: papers.chain_pem(), roots: papers.roots_pem(), time_seconds };
        let path = self.folder.join(if is_fresh { FRESH } else { SETTLED });
        let bytes = serde_json::to_vec_pretty(&written).unwrap_or_default();
        write_private(&path, &bytes).map_err(|source| IdentityError::File { path, source })?;
        let kept = Some(Kept { papers, holder, least_time: time_seconds });
        *(if is_fresh { &mut self.fresh } else { &mut self.settled }) = kept;
        Ok(())
    }

    /// The host that the papers in use are of has taken this device in: those of the host of before go.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn settle(&mut self) -> Result<(), IdentityError> {
        if !self.uses_fresh {
            return Ok(());
        }
        let path = self.folder.join(FRESH);
        std::fs::rename(&path, self.folder.join(SETTLED)).map_err(|source| IdentityError::File { path, source })?;
        (self.settled, self.uses_fresh) = (self.fresh.take(), false);
        Ok(())
    }

    /// The papers on the disk. What cannot be read is as none: the host gives new ones for a token.
    fn read(&self, file: &str) -> Result<Option<Kept>, IdentityError> {
        let path = self.folder.join(file);
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Authority, DEFAULT_DOMAIN, Lifetimes, Name, Signed};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// An authority, and papers of it for this device.
    fn certified(identity: &Identity, name: &str) -> (Authority, Papers) {
        let authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap();
        let request = Signed::read(&identity.key().request().unwrap()).unwrap();
        let papers = authority.certify(&request, &Name::phone(name, DEFAULT_DOMAIN), NOW).unwrap();
        (authority, papers)
    }

    #[test]
    fn papers_are_kept_for_the_key_that_they_are_of() {
        let folder = tempfile::tempdir().unwrap();
        let mut identity = Identity::open(folder.path()).unwrap();
        assert!(identity.credentials("a", None).unwrap().is_none());
        let (authority, papers) = certified(&identity, "a");
        let error = identity.keep("b", papers.clone(), NOW, None).unwrap_err().to_string();
        assert!(error.contains("of phone a, and this is b"), "{error}");
        identity.keep("a", papers.clone(), NOW, None).unwrap();
        let other = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), NOW).unwrap();
        let (ours, theirs) = (authority.ca_hash(), other.ca_hash());
        for is_settled in [false, true] {
            let mut again = Identity::open(folder.path()).unwrap();
            let mut has = |name, ca_hash| again.credentials(name, ca_hash).unwrap().is_some();
            assert!(
                !has("b", None) && !has("a", Some(&theirs)) && has("a", Some(&ours)) && has("a", None),
                "{is_settled}"
            );
            assert!(has_papers(folder.path(), Some(&ours)) && !has_papers(folder.path(), Some(&theirs)));
            assert!(again.credentials("a", None).unwrap().unwrap().clock().now() >= NOW);
            again.settle().unwrap();
        }
        // Another key, as after a restore of half a folder.
        std::fs::remove_file(folder.path().join("identity/key.pem")).unwrap();
        let mut stranger = Identity::open(folder.path()).unwrap();
        assert!(stranger.credentials("a", None).unwrap().is_none());
        assert!(matches!(
            stranger.keep("a", papers, NOW, None),
            Err(IdentityError::Papers(CredentialsError::OtherKey))
        ));
    }

    #[test]
    fn a_host_that_has_not_taken_this_device_in_takes_the_place_of_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Identity::open(folder.path()).unwrap();
        let mut identity = open();
        let root_of = |identity: &mut Identity, ca_hash: Option<&Digest>| {
            let credentials = identity.credentials("a", ca_hash).unwrap();
            credentials.map(|_| if identity.uses_fresh { "fresh" } else { "settled" })
        };
        let (before, papers) = certified(&identity, "a");
        identity.keep("a", papers, NOW, None).unwrap();
        assert_eq!(root_of(&mut identity, None), Some("fresh"), "there is no other");
        identity.settle().unwrap();
        let (other, papers) = certified(&identity, "a");
        identity.keep("a", papers.clone(), NOW, None).unwrap();
        // As its agent ends before the first welcome, and is started again: without a root, with the new one's, with the old one's.
        for (ca_hash, expected) in
            [(None, "settled"), (Some(other.ca_hash()), "fresh"), (Some(before.ca_hash()), "settled")]
        {
            assert_eq!(root_of(&mut open(), ca_hash.as_ref()), Some(expected));
        }
        let mut identity = open();
        let credentials = identity.credentials("a", Some(&other.ca_hash())).unwrap().unwrap();
        identity.keep("a", papers, NOW + 1, Some(&credentials)).unwrap();
        assert_eq!(
            root_of(&mut open(), Some(&before.ca_hash())),
            Some("settled"),
            "papers that are renewed are their own host's"
        );
        identity.settle().unwrap();
        assert_eq!(root_of(&mut open(), Some(&before.ca_hash())), None);
        assert_eq!(root_of(&mut open(), None), Some("settled"));
    }
}
