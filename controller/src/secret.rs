//! Secrets: tokens in files of mode 0600, and their comparison in constant time. Never printed.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyphony_identity::write_private;
use sha2::{Digest, Sha256};

/// A token.
#[derive(Clone)]
pub struct Secret(Arc<str>);

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the token file {}: {source}; make it readable and writable for this user, or remove it to get a new one", path.display())]
pub struct SecretError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// Random bytes in a new token.
const TOKEN_BYTES: usize = 32;
/// No token file is longer.
const MAX_TOKEN_FILE: u64 = 4096;

// === impl Secret ===

impl Secret {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The token in the file at `path`; a new random one is written there when there is none.
    ///
    /// # Errors
    /// [`SecretError`] when the file cannot be read or made, or is empty.
    pub fn in_file(path: &Path) -> Result<Self, SecretError> {
        let error = |source| SecretError { path: path.to_owned(), source };
        match std::fs::File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MAX_TOKEN_FILE).read_to_string(&mut text).map_err(error)?;
                let token = text.trim();
                if token.is_empty() {
                    return Err(error(std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is empty")));
                }
                Ok(Self::new(token))
            }
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                let token = random_token().map_err(error)?;
                write_private(path, format!("{token}\n").as_bytes()).map_err(error)?;
                Ok(Self::new(token))
            }
            Err(other) => Err(error(other)),
        }
    }

    /// Whether `text` is this token; takes the same time wherever they differ.
    pub fn matches(&self, text: &str) -> bool {
        let ours = Sha256::digest(self.0.as_bytes());
        let theirs = Sha256::digest(text.as_bytes());
        ours.iter().zip(theirs.iter()).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }

    /// The token itself, for a file or a header.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn random_token() -> std::io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_outlives_the_process_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let first = Secret::in_file(&path).unwrap();
        let second = Secret::in_file(&path).unwrap();
        assert!(first.matches(second.reveal()));
        assert!(!first.matches("another"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_empty_token_file_is_an_error_not_an_open_door() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " \n").unwrap();
        assert!(Secret::in_file(&path).unwrap_err().to_string().contains("empty"));
    }
}
