//! Digests of files as a hub has them: SHA-256 of what lies in its store, git's hash of what lies in the repository itself. Pure.

use std::fmt;

use reqwest::header::{ETAG, HeaderMap};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a file's digest has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Expected {
    Sha256(String),
    /// SHA-1 of `blob LENGTH\0` and the bytes.
    GitBlob(String),
}

/// A digest that is being taken.
pub(super) enum Taking {
    Sha256(Sha256),
    GitBlob(Sha1),
}

/// Where a hub says the digest of a file in its store.
const LINKED_ETAG: &str = "x-linked-etag";
/// And its length.
const LINKED_SIZE: &str = "x-linked-size";

// === impl Expected ===

impl Expected {
    /// What the headers of a hub's answer say.
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).and_then(tag);
        if let Some(linked) = text(LINKED_ETAG) {
            return Self::of_hex(linked);
        }
        text(ETAG.as_str()).and_then(Self::of_hex)
    }

    /// By its length: hubs write both kinds in one place.
    pub(super) fn of_hex(hex: &str) -> Option<Self> {
        let is_hex = hex.bytes().all(|c| c.is_ascii_hexdigit());
        match hex.len() {
            64 if is_hex => Some(Self::Sha256(hex.to_ascii_lowercase())),
            40 if is_hex => Some(Self::GitBlob(hex.to_ascii_lowercase())),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "git hash",
        }
    }

    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    /// Begins to take the digest of a file of `len` bytes.
    pub(super) fn take(&self, len: u64) -> Taking {
        match self {
            Self::Sha256(_) => Taking::Sha256(Sha256::new()),
            Self::GitBlob(_) => {
                let mut digest = Sha1::new();
                digest.update(format!("blob {len}\0"));
                Taking::GitBlob(digest)
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.hex())
    }
}

// === impl Taking ===

impl Taking {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digest) => digest.update(bytes),
            Self::GitBlob(digest) => digest.update(bytes),
        }
    }

    pub(super) fn hex(self) -> String {
        match self {
            Self::Sha256(digest) => hex::encode(digest.finalize()),
            Self::GitBlob(digest) => hex::encode(digest.finalize()),
        }
    }
}

/// The length of a file in a hub's store, which its own answer does not have.
pub(super) fn linked_size(headers: &HeaderMap) -> Option<u64> {
    headers.get(LINKED_SIZE)?.to_str().ok()?.parse().ok()
}

/// What is within the quotes of an entity tag, also of a weak one.
fn tag(text: &str) -> Option<&str> {
    text.trim().trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_blob_has_the_hash_that_git_gives_it() {
        // `printf hello | git hash-object --stdin`
        let expected = Expected::of_hex("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0").unwrap();
        let mut taking = expected.take(5);
        taking.update(b"hel");
        taking.update(b"lo");
        assert_eq!(taking.hex(), expected.hex());
    }

    #[test]
    fn headers_say_the_digest_of_the_store_before_that_of_the_repository() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        const SHA256: &str = "\"AB3f8ffe2ef3b0ea8ad6ac41bd5c6a6e0d28bd0e2e25b2d8bd1d23ee0d8a5c0d\"";
        let found = Expected::of_headers(&headers(&[("x-linked-etag", SHA256), ("etag", "\"x\"")])).unwrap();
        assert!(matches!(&found, Expected::Sha256(hex) if hex.starts_with("ab3f")), "{found}");
        let found = Expected::of_headers(&headers(&[("etag", "W/\"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0\"")]));
        assert_eq!(found.unwrap().kind(), "git hash");
        for other in
            ["\"abc\"", "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", "\"zzfc4c620b67d95f953a5c1c1230aaab5db5a1b0\""]
        {
            assert_eq!(Expected::of_headers(&headers(&[("etag", other)])), None, "{other}");
        }
    }
}
