//! Places: where an authority is kept. A file of mode 0600 beside the store, a Secret of the cluster, or a folder that somebody else fills.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use polyphony_identity::{Sealed, write_private};

use super::brief;

/// Where an authority is kept.
#[derive(Clone)]
pub enum Place {
    /// As JSON, its keys included.
    File(PathBuf),
    /// The same under the key `authority.json`.
    Secret { client: Client, namespace: String, name: String },
    /// As cert-manager and others leave it: `tls.crt` and `tls.key` are an issuer, `ca.crt` the roots to trust, its own first. Only read.
    Folder { path: PathBuf, domain: String },
}

/// Why an authority cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("cannot use {}: {source}; make it readable and writable for this user", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{place} is not what a controller wrote: {source}; put back a copy (`polyctl backup` makes one), since without it every phone has to join again"
    )]
    Garbled { place: String, source: serde_json::Error },
    #[error("the Secret {name} of namespace {namespace}, which holds the authority: {}", brief(source))]
    Secret { namespace: String, name: String, source: Box<kube::Error> },
    #[error("there is no authority in {0}")]
    Missing(String),
    #[error("{}: {why}", path.display())]
    Folder { path: PathBuf, why: &'static str },
}

const KEY: &str = "authority.json";
const ROOTS: &str = "ca.crt";

/// Where it is in a data folder.
pub fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join(KEY)
}

// === impl Place ===

impl Place {
    /// What is there; none where nothing is.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn read(&self) -> Result<Option<Sealed>, PlaceError> {
        self.read_version().await.map(|(sealed, _)| sealed)
    }

    /// The same, and the version of the object that it is in.
    async fn read_version(&self) -> Result<(Option<Sealed>, Option<String>), PlaceError> {
        let mut version = None;
        let bytes = match self {
            Self::File(path) => match std::fs::read(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, None)),
                Err(source) => return Err(PlaceError::File { path: path.clone(), source }),
            },
            Self::Secret { client, namespace, name } => {
                let api = Api::<Secret>::namespaced(client.clone(), namespace);
                let secret = api.get_opt(name).await.map_err(|error| self.secret_error(error))?;
                version = secret.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
                let data = secret.and_then(|secret| secret.data).and_then(|mut data| data.remove(KEY));
                match data {
                    Some(data) => data.0,
                    None => return Ok((None, version)),
                }
            }
            Self::Folder { path, domain } => return read_folder(path, domain).map(|sealed| (Some(sealed), None)),
        };
        let read = serde_json::from_slice(&bytes);
        read.map(|sealed| (Some(sealed), version))
            .map_err(|source| PlaceError::Garbled { place: self.to_string(), source })
    }

    /// Puts it there in place of what is.
    ///
    /// # Errors
    /// [`PlaceError`]; so always where somebody else keeps it.
    pub async fn write(&self, sealed: &Sealed) -> Result<(), PlaceError> {
        self.write_over(sealed, None).await
    }

    /// The same, where an object has that version still, if one is told.
    async fn write_over(&self, sealed: &Sealed, version: Option<String>) -> Result<(), PlaceError> {
        let garbled = |source| PlaceError::Garbled { place: self.to_string(), source };
        let bytes = serde_json::to_vec_pretty(sealed).map_err(garbled)?;
        match self {
            Self::File(path) => {
                let written = write_private(path, &bytes);
                written.map_err(|source| PlaceError::File { path: path.clone(), source })?;
                self.publish(sealed)
            }
            Self::Secret { client, namespace, name } => {
                let api = Api::<Secret>::namespaced(client.clone(), namespace);
                let roots = ByteString(sealed.roots_pem().into_bytes());
                let data = BTreeMap::from([(KEY.to_owned(), ByteString(bytes)), (ROOTS.to_owned(), roots)]);
                let written = match api.get_opt(name).await {
                    Ok(Some(mut secret)) => {
                        secret.data.get_or_insert_default().extend(data);
                        if version.is_some() {
                            secret.metadata.resource_version = version;
                        }
                        api.replace(name, &PostParams::default(), &secret).await
                    }
                    Ok(None) => {
                        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
                        api.create(&PostParams::default(), &secret).await
                    }
                    Err(error) => Err(error),
                };
                written.map(drop).map_err(|error| self.secret_error(error))
            }
            Self::Folder { path, .. } => {
                Err(PlaceError::Folder { path: path.clone(), why: "it is somebody else's to write" })
            }
        }
    }

    /// Puts there what `change` makes of what is. Whoever else changes it comes before or after, and not in between.
    ///
    /// # Errors
    /// [`PlaceError`], and those of `change`. [`PlaceError::Missing`] where nothing is.
    pub async fn change<E: From<PlaceError>>(&self, change: impl Fn(Sealed) -> Result<Sealed, E>) -> Result<Sealed, E> {
        // It is open to the end of this.
        let _lock = match self {
            Self::File(path) => {
                let path = path.with_extension("lock");
                let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
                Some(locked.map_err(|source| PlaceError::File { path, source })?)
            }
            Self::Secret { .. } | Self::Folder { .. } => None,
        };
        loop {
            let (sealed, version) = self.read_version().await?;
            let sealed = sealed.ok_or_else(|| PlaceError::Missing(self.to_string()))?;
            let changed = change(sealed)?;
            match self.write_over(&changed, version).await {
                Ok(()) => return Ok(changed),
                Err(PlaceError::Secret { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 409) =>
                    {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts the roots where clients of this machine find them: beside the file, under the name that cert-manager has for them. Elsewhere they are
    /// there already.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn publish(&self, sealed: &Sealed) -> Result<(), PlaceError> {
        let Self::File(path) = self else { return Ok(()) };
        let (path, roots) = (path.with_file_name(ROOTS), sealed.roots_pem());
        if std::fs::read_to_string(&path).is_ok_and(|there| there == roots) {
            return Ok(());
        }
        write_private(&path, roots.as_bytes()).map_err(|source| PlaceError::File { path, source })
    }

    fn secret_error(&self, source: kube::Error) -> PlaceError {
        let (namespace, name) = match self {
            Self::Secret { namespace, name, .. } => (namespace.clone(), name.clone()),
            Self::File(_) | Self::Folder { .. } => (String::new(), String::new()),
        };
        PlaceError::Secret { namespace, name, source: Box::new(source) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Folder { path, .. } => write!(f, "{}", path.display()),
            Self::Secret { namespace, name, .. } => write!(f, "the Secret {namespace}/{name}"),
        }
    }
}

fn read_folder(path: &Path, domain: &str) -> Result<Sealed, PlaceError> {
    let read = |file: &str| {
        let path = path.join(file);
        std::fs::read_to_string(&path).map_err(|source| PlaceError::File { path, source })
    };
    let (issuer, issuer_key, roots) = (read("tls.crt")?, read("tls.key")?, read("ca.crt")?);
    let mut roots = certificates(&roots).into_iter();
    let root = roots.next();
    let root = root.ok_or(PlaceError::Folder { path: path.join("ca.crt"), why: "there is no certificate in it" })?;
    let issuer = certificates(&issuer).into_iter().next();
    let issuer =
        issuer.ok_or(PlaceError::Folder { path: path.join("tls.crt"), why: "there is no certificate in it" })?;
    let (domain, retired) = (domain.to_owned(), roots.collect());
    Ok(Sealed { domain, root, root_key: None, retired, crossed: Vec::new(), issuer, issuer_key })
}

/// The certificates of a PEM file, one text each.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = pem.split_inclusive(END).filter(|part| part.contains(END));
    parts.map(|part| format!("{}\n", part.trim_start())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{Authority, DEFAULT_DOMAIN, Lifetimes};

    use super::*;

    #[tokio::test]
    async fn an_issuer_of_ones_own_is_taken_as_it_lies_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = Authority::generate(DEFAULT_DOMAIN, Lifetimes::default(), 1_800_000_000).unwrap();
        authority.rotate_root(1_800_000_000).unwrap();
        let sealed = authority.sealed();
        let place = Place::Folder { path: folder.path().to_owned(), domain: DEFAULT_DOMAIN.into() };
        assert!(place.read().await.unwrap_err().to_string().contains("tls.crt"));
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("tls.crt", &sealed.issuer);
        write("tls.key", &sealed.issuer_key);
        write("ca.crt", &sealed.roots_pem());
        let read = place.read().await.unwrap().unwrap();
        assert_eq!((&read.root_key, read.retired.len(), read.root == sealed.root), (&None, 1, true));
        let opened = Authority::open(&read, Lifetimes::default()).unwrap();
        assert_eq!(opened.ca_hash(), authority.ca_hash());
        assert!(place.write(&read).await.unwrap_err().to_string().contains("somebody else's"));
    }
}
