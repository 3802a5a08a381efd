//! Certificates: what one says of its holder. Read only of who has shown that an authority of ours signed it.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::digest::Digest;
use crate::name::Name;

/// Who somebody has been shown to be, and until when that is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub name: Name,
    /// Of the key that the certificate is of.
    pub key: Digest,
    /// Seconds of Unix.
    pub not_before: u64,
    pub not_after: u64,
}

/// Certificates begin so many seconds before they are issued, for clocks that are slow.
pub(crate) const BACK: u64 = 3_600;

/// Why a certificate says nothing to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("it is no certificate (X.509)")]
    Garbled,
    #[error("it has not one name of a Polyphony installation (spiffe://DOMAIN/ROLE/NAME), but {0}")]
    Names(usize),
}

// === impl Proven ===

impl Proven {
    /// Whether it has run out at `now`, in seconds of Unix.
    pub fn is_expired(&self, now: u64) -> bool {
        now > self.not_after
    }

    /// Whether it is to be renewed at `now`: two thirds of its time are over, or it has not begun, since a clock was wrong when it was made.
    pub fn is_due(&self, now: u64) -> bool {
        now < self.not_before || now >= self.renewal_at()
    }

    /// When it is to be renewed: after two thirds of its time.
    pub fn renewal_at(&self) -> u64 {
        let issued = self.not_before + BACK;
        issued + self.not_after.saturating_sub(issued) / 3 * 2
    }
}

/// Who holds a certificate. Whoever calls this has checked its signatures.
///
/// # Errors
/// [`CertificateError`].
pub fn read(der: &CertificateDer<'_>) -> Result<Proven, CertificateError> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|_| CertificateError::Garbled)?;
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Garbled)?;
    let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uris: Vec<&str> = uris.collect();
    // Several would let one role pass for another.
    let name = match uris.as_slice() {
        [uri] => Name::of_uri(uri).ok_or(CertificateError::Names(0))?,
        other => return Err(CertificateError::Names(other.len())),
    };
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = certificate.validity();
    Ok(Proven {
        name,
        key: key_of(&certificate),
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
    })
}

/// The digest of a certificate's key, whatever it is a certificate of.
pub(crate) fn key_digest(der: &CertificateDer<'_>) -> Option<Digest> {
    parse_x509_certificate(der).ok().map(|(_, certificate)| key_of(&certificate))
}

/// When a certificate's time ends, in seconds of Unix, whatever it is a certificate of.
pub(crate) fn validity_of(der: &CertificateDer<'_>) -> Option<(u64, u64)> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Some((seconds(certificate.validity().not_before), seconds(certificate.validity().not_after)))
}

fn key_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Digest {
    Digest::of_spki(certificate.public_key().raw)
}
