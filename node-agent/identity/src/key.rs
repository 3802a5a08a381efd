//! Keys: a device's own, made where it is used, kept in a file of this user alone, and long-lived.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::digest::Digest;
use crate::private_file::write_private;

/// A key pair of ECDSA on P-256.
pub struct Key(pub(crate) KeyPair);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot use the key file {}: {source}; it has to be readable and writable for this user", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no private key in PEM: {source}; put back the file as it was, or remove it and join anew", path.display())]
    Garbled { path: PathBuf, source: rcgen::Error },
    #[error("no key can be made: {0}")]
    Made(#[from] rcgen::Error),
}

/// No key file is longer.
const MAX_BYTES: u64 = 64 << 10;

// === impl Key ===

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The key in the file at `path`; a new one is written there when there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn in_file(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        match read_bounded(path) {
            Ok(pem) => {
                let pair = KeyPair::from_pem(&pem);
                pair.map(Self).map_err(|source| KeyError::Garbled { path: path.to_owned(), source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                write_private(path, key.pem().as_bytes()).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Of its public half.
    pub fn digest(&self) -> Digest {
        Digest::of_spki(&self.0.subject_public_key_info())
    }

    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.0.serialize_der().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.digest())
    }
}

/// A text of a file that is not endless.
pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {length} bytes, and none has so many")));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_device_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = Key::in_file(&path).unwrap();
        assert_eq!(Key::in_file(&path).unwrap().digest(), key.digest());
        assert_ne!(Key::generate().unwrap().digest(), key.digest());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        fs::write(&path, "no key").unwrap();
        assert!(Key::in_file(&path).unwrap_err().to_string().contains("no private key"));
    }
}
