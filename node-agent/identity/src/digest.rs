//! Digests of public keys: what a `--ca-hash` says of a root, and a Phone of its device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a SubjectPublicKeyInfo (RFC 5280), written as `sha256:` and 64 hexadecimal digits, as `kubeadm` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no digest of a key: it is sha256: and 64 hexadecimal digits, as `polyctl join-command` on the host prints it"
)]
pub struct CaHashError(String);

const FORM: &str = "sha256:";

// === impl Digest ===

impl Digest {
    /// Of a SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The first hexadecimal digits: enough to tell one from others, for people and to pick among hosts.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = CaHashError;

    fn from_str(text: &str) -> Result<Self, CaHashError> {
        let wrong = || CaHashError(text.chars().take(80).collect());
        let digits = text.trim().strip_prefix(FORM).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(bytes))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = CaHashError;

    fn try_from(text: String) -> Result<Self, CaHashError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest::of_spki(b"key");
        let text = digest.to_string();
        assert_eq!(text, "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683");
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.short(), "2c70e12b7a0646f9");
        for wrong in ["", "2c70", "sha256:2c70", &text[..70], &format!("{text}0"), &text.replace("sha256", "sha512")] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
