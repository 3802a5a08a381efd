//! Requests: what a device sends to be given a certificate. Signed by its key, which so never travels; the name is the hub's to give.

use rcgen::{CertificateParams, CertificateSigningRequestParams, PublicKeyData};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::digest::Digest;
use crate::key::{Key, KeyError};

/// Why a request is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the request for a certificate has {0} bytes, and none has more than {MAX_BYTES}")]
    TooLong(usize),
    #[error("the request for a certificate cannot be used: {0}; it is PKCS #10 in PEM, as `openssl req -new` makes it")]
    Garbled(rcgen::Error),
    #[error("the request is of a kind of key that is not certified: take one of ECDSA on P-256")]
    Key,
}

/// A request whose signature is right: somebody holds the key.
#[derive(Clone, Debug)]
pub struct Signed {
    pub(crate) public_key: rcgen::PublicKey,
    /// Of the key that is to be certified.
    pub key: Digest,
}

/// In PEM; one of ours has under 500.
const MAX_BYTES: usize = 16 << 10;

// === impl Key ===

impl Key {
    /// A request (PKCS #10) in PEM. It asks for no name: it is told one.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self) -> Result<String, KeyError> {
        Ok(CertificateParams::default().serialize_request(&self.0)?.pem()?)
    }
}

// === impl Signed ===

impl Signed {
    /// Reads a stranger's request, and checks that the key has signed it. Whatever else it asks for is not looked at.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > MAX_BYTES {
            return Err(RequestError::TooLong(pem.len()));
        }
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(RequestError::Garbled)?;
        let written = request.public_key.subject_public_key_info();
        let key = Digest::of_spki(&written);
        // The kind of a key is taken from its signature, which for some is not enough: what is signed has to be what was asked for.
        let der =
            pem::parse(pem).map_err(|_| RequestError::Garbled(rcgen::Error::CouldNotParseCertificationRequest))?;
        let asked = X509CertificationRequest::from_der(der.contents());
        if !asked.is_ok_and(|(_, asked)| asked.certification_request_info.subject_pki.raw == written) {
            return Err(RequestError::Key);
        }
        Ok(Self { public_key: request.public_key, key })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384` makes it.
    const P384: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
        MIH3MH8CAQAwADB2MBAGByqGSM49AgEGBSuBBAAiA2IABCG/VP5rW5ObBVxPC6mS\n\
        vYcR/8BmtysZtZpzT/QVj2JvaVfqQ8UpO7XJmdtLDI2GE5CdABbdTpgwYUJKVH8M\n\
        scpgMx/ESmFMXUh7F78CJDVm1NlLF6/UFTXJkXbt0j1m9qAAMAoGCCqGSM49BAMC\n\
        A2gAMGUCMDXAUPDjPqDzY6koY/3vZVZpgE8XfRJ5Fwl8FhtcUod2NjMHynS+QcGX\n\
        FzNOlUcSggIxAIDLKVkG6gUNBUBhQFZcejIYllqSGr+PTqVrJGo/PCAcYDxLB8kA\n\
        ze6EQ2Idi4PqPQ==\n\
        -----END CERTIFICATE REQUEST-----\n";

    #[test]
    fn a_request_shows_that_its_key_is_held() {
        let key = Key::generate().unwrap();
        let request = key.request().unwrap();
        assert_eq!(Signed::read(&request).unwrap().key, key.digest());
        assert!(matches!(Signed::read(&"x".repeat(MAX_BYTES + 1)), Err(RequestError::TooLong(_))));
        // The signature of one on P-384 does not tell its curve.
        assert_eq!(Signed::read(P384).err(), Some(RequestError::Key));
        // A byte of its signature.
        let lines: Vec<&str> = request.lines().collect();
        let last = lines[lines.len() - 2];
        let other = if last.starts_with('A') { "B" } else { "A" };
        let forged = request.replace(last, &format!("{other}{}", &last[1..]));
        for wrong in ["", "-----BEGIN CERTIFICATE REQUEST-----", &forged] {
            assert!(matches!(Signed::read(wrong), Err(RequestError::Garbled(_))), "{wrong}");
        }
    }
}
