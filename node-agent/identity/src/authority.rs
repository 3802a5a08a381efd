//! The authority: a root of years signs an issuer of months, which signs certificates of a day.
//!
//! A new root is signed by the one before as well: who knows the old one alone believes it. So nothing waits while roots are exchanged, and
//! who trusts an old root is told of the new one when it renews.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::certificate::{BACK, key_digest, validity_of};
use crate::credentials::Papers;
use crate::digest::Digest;
use crate::key::Key;
use crate::name::{Name, is_domain};
use crate::request::Signed;

/// Signs who is who in one installation.
pub struct Authority {
    domain: String,
    root: CertificateDer<'static>,
    /// None where somebody else keeps it.
    root_key: Option<Key>,
    /// Roots of before that are trusted still.
    retired: Vec<CertificateDer<'static>>,
    /// This root, as those of before have signed it.
    crossed: Vec<CertificateDer<'static>>,
    issuer: CertificateDer<'static>,
    issuer_key: Key,
    lifetimes: Lifetimes,
}

/// How long what it signs is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub root: Duration,
    pub issuer: Duration,
    pub leaf: Duration,
}

/// All of an authority as texts in PEM, its keys included: for a file of mode 0600, or a Secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    pub domain: String,
    pub root: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crossed: Vec<String>,
    pub issuer: String,
    pub issuer_key: String,
}

/// Why there is no authority, or it does not sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("nothing can be signed: {0}")]
    Signing(#[from] rcgen::Error),
    #[error(transparent)]
    Key(#[from] crate::key::KeyError),
    #[error("{what} of the authority is no certificate in PEM")]
    NoCertificate { what: &'static str },
    #[error("{what} of the authority is no private key in PEM: {source}")]
    NoKey { what: &'static str, source: rcgen::Error },
    #[error("the key of the authority's {what} is not the one of its certificate: put back both as they were")]
    OtherKey { what: &'static str },
    #[error("{0:?} is no domain for names: write labels of a-z, 0-9 and - with dots between them")]
    Domain(String),
    #[error("the authority's issuer has run out: {0}")]
    RunOut(&'static str),
    #[error("the authority's root key is kept elsewhere: rotate it there, and give its issuer here")]
    NoRootKey,
}

const DAY: Duration = Duration::from_secs(86_400);
/// Roots beyond these are forgotten, the oldest first.
const MAX_RETIRED: usize = 4;
/// The last second that a certificate can say: of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

// === impl Sealed ===

impl Sealed {
    /// The roots to trust, in PEM, the present one first.
    pub fn roots_pem(&self) -> String {
        std::iter::once(&self.root).chain(&self.retired).map(String::as_str).collect()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, …)", self.domain)
    }
}

// === impl Lifetimes ===

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: 3_652 * DAY, issuer: 365 * DAY, leaf: DAY }
    }
}

// === impl Authority ===

impl Authority {
    /// A new one, at `now` in seconds of Unix.
    ///
    /// # Errors
    /// When the domain is none, or the system gives no randomness.
    pub fn generate(domain: &str, lifetimes: Lifetimes, now: u64) -> Result<Self, AuthorityError> {
        if !is_domain(domain) {
            return Err(AuthorityError::Domain(domain.to_owned()));
        }
        let root_key = Key::generate()?;
        let root = root_params(domain, &root_key, lifetimes, now).self_signed(&root_key.0)?.der().clone();
        let (issuer, issuer_key) = new_issuer(domain, &root, &root_key, lifetimes, now)?;
        let (retired, crossed) = (Vec::new(), Vec::new());
        Ok(Self {
            domain: domain.to_owned(),
            root,
            root_key: Some(root_key),
            retired,
            crossed,
            issuer,
            issuer_key,
            lifetimes,
        })
    }

    /// One that was kept.
    ///
    /// # Errors
    /// When a text of it is not what it should be.
    pub fn open(sealed: &Sealed, lifetimes: Lifetimes) -> Result<Self, AuthorityError> {
        if !is_domain(&sealed.domain) {
            return Err(AuthorityError::Domain(sealed.domain.clone()));
        }
        let certificate = |pem: &String, what| {
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AuthorityError::NoCertificate { what })
        };
        let key = |pem: &String, what, of: &CertificateDer<'_>| {
            let key = KeyPair::from_pem(pem).map(Key).map_err(|source| AuthorityError::NoKey { what, source })?;
            match key_digest(of) == Some(key.digest()) {
                true => Ok(key),
                false => Err(AuthorityError::OtherKey { what }),
            }
        };
        let all = |pems: &[String], what| pems.iter().map(|pem| certificate(pem, what)).collect::<Result<Vec<_>, _>>();
        let (root, issuer) = (certificate(&sealed.root, "the root")?, certificate(&sealed.issuer, "the issuer")?);
        Ok(Self {
            domain: sealed.domain.clone(),
            root_key: sealed.root_key.as_ref().map(|pem| key(pem, "root", &root)).transpose()?,
            retired: all(&sealed.retired, "a retired root")?,
            crossed: all(&sealed.crossed, "a crossed root")?,
            issuer_key: key(&sealed.issuer_key, "issuer", &issuer)?,
            root,
            issuer,
            lifetimes,
        })
    }

    /// As it is kept.
    pub fn sealed(&self) -> Sealed {
        let all = |certificates: &[CertificateDer<'_>]| certificates.iter().map(pem_of).collect();
        Sealed {
            domain: self.domain.clone(),
            root: pem_of(&self.root),
            root_key: self.root_key.as_ref().map(Key::pem),
            retired: all(&self.retired),
            crossed: all(&self.crossed),
            issuer: pem_of(&self.issuer),
            issuer_key: self.issuer_key.pem(),
        }
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Of the root's key: what `--ca-hash` says.
    pub fn ca_hash(&self) -> Digest {
        key_digest(&self.root).expect("an authority holds certificates that were read")
    }

    /// Whether a certificate (DER) is of this root, or of one of before that is trusted still.
    pub fn has_root(&self, certificate: &[u8]) -> bool {
        let key = key_digest(&CertificateDer::from(certificate));
        key.is_some() && std::iter::once(&self.root).chain(&self.retired).any(|root| key_digest(root) == key)
    }

    /// The digests of roots of before that are trusted still, and when they end.
    pub fn retired(&self) -> impl Iterator<Item = (Digest, u64)> {
        let of = |root: &CertificateDer<'_>| Some((key_digest(root)?, validity_of(root)?.1));
        self.retired.iter().filter_map(of)
    }

    /// Of the issuer's key.
    pub fn issuer_key(&self) -> Digest {
        self.issuer_key.digest()
    }

    /// When root and issuer end, in seconds of Unix.
    pub fn ends(&self) -> (u64, u64) {
        let end = |of| validity_of(of).map_or(0, |(_, end)| end);
        (end(&self.root), end(&self.issuer))
    }

    /// How long what it signs is good, and what two thirds of that are.
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// Whether issuer or root are to be made anew: two thirds of their time are over, or it has not begun, as after a first start with a wrong clock.
    pub fn is_due(&self, now: u64) -> bool {
        self.root_key.is_some() && [&self.root, &self.issuer].into_iter().any(|one| is_due(one, now))
    }

    /// Makes anew what is due. A root stays the same one to whoever trusts it: it keeps its key, and so its name and hash.
    ///
    /// # Errors
    /// When the root's key is kept elsewhere.
    pub fn renew(&mut self, now: u64) -> Result<(), AuthorityError> {
        let root_key = self.root_key.as_ref().ok_or(AuthorityError::NoRootKey)?;
        if is_due(&self.root, now) {
            let params = root_params(&self.domain, root_key, self.lifetimes, now);
            self.root = params.self_signed(&root_key.0)?.der().clone();
        }
        self.rotate_issuer(now)
    }

    /// A new issuer from `now` on. What the one before has signed is good until it ends.
    ///
    /// # Errors
    /// When the root's key is kept elsewhere.
    pub fn rotate_issuer(&mut self, now: u64) -> Result<(), AuthorityError> {
        let root_key = self.root_key.as_ref().ok_or(AuthorityError::NoRootKey)?;
        (self.issuer, self.issuer_key) = new_issuer(&self.domain, &self.root, root_key, self.lifetimes, now)?;
        Ok(())
    }

    /// A new root, and a new issuer of it. Who trusts the one before believes it; it is trusted itself until it is forgotten.
    ///
    /// # Errors
    /// When the root's key is kept elsewhere.
    pub fn rotate_root(&mut self, now: u64) -> Result<(), AuthorityError> {
        let old_key = self.root_key.as_ref().ok_or(AuthorityError::NoRootKey)?;
        let root_key = Key::generate()?;
        let params = root_params(&self.domain, &root_key, self.lifetimes, now);
        let root = params.self_signed(&root_key.0)?.der().clone();
        let old = Issuer::from_ca_cert_der(&self.root, &old_key.0)?;
        let crossed = params.signed_by(&root_key.0, &old)?.der().clone();
        let (issuer, issuer_key) = new_issuer(&self.domain, &root, &root_key, self.lifetimes, now)?;
        self.crossed.insert(0, crossed);
        self.retired.insert(0, std::mem::replace(&mut self.root, root));
        self.crossed.truncate(MAX_RETIRED);
        self.retired.truncate(MAX_RETIRED);
        (self.root_key, self.issuer, self.issuer_key) = (Some(root_key), issuer, issuer_key);
        Ok(())
    }

    /// Roots of before are trusted no more. Who has not renewed since has to join again.
    pub fn forget_retired(&mut self) {
        self.retired.clear();
        self.crossed.clear();
    }

    /// A certificate for a key that lies elsewhere, with what it takes to check others'.
    ///
    /// # Errors
    /// When the issuer has run out, or cannot sign.
    pub fn certify(&self, request: &Signed, name: &Name, now: u64) -> Result<Papers, AuthorityError> {
        self.papers(&request.public_key, name, &[], now)
    }

    /// The same for a server in this process, which can be dialled by `hosts` too: addresses or names. It sends its root along, by which
    /// who joins knows it.
    ///
    /// # Errors
    /// As [`Authority::certify`]; or where a host is none.
    pub fn certify_server(&self, key: &Key, name: &Name, hosts: &[String], now: u64) -> Result<Papers, AuthorityError> {
        let mut papers = self.papers(&key.0, name, hosts, now)?;
        papers.chain.push(self.root.clone());
        Ok(papers)
    }

    fn papers(
        &self,
        key: &impl PublicKeyData,
        name: &Name,
        hosts: &[String],
        now: u64,
    ) -> Result<Papers, AuthorityError> {
        let end_of_issuer = validity_of(&self.issuer).map_or(0, |(_, end)| end);
        if end_of_issuer <= now {
            return Err(AuthorityError::RunOut(
                "restart the controller, or `polyctl certs rotate`; an issuer of one's own is renewed where it comes from",
            ));
        }
        let mut params = params_of(&name.dns());
        params.subject_alt_names = vec![SanType::DnsName(name.dns().try_into()?), SanType::URI(name.uri().try_into()?)];
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if name.role.is_server() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let end = now.saturating_add(self.lifetimes.leaf.as_secs()).min(end_of_issuer);
        last(&mut params, now.saturating_sub(BACK), end);
        let issuer = Issuer::from_ca_cert_der(&self.issuer, &self.issuer_key.0)?;
        let leaf = params.signed_by(key, &issuer)?.der().clone();
        let mut chain = vec![leaf, self.issuer.clone()];
        chain.extend(self.crossed.iter().cloned());
        let roots = std::iter::once(&self.root).chain(&self.retired).cloned().collect();
        Ok(Papers { chain, roots })
    }
}

fn new_issuer(
    domain: &str,
    root: &CertificateDer<'_>,
    root_key: &Key,
    lifetimes: Lifetimes,
    now: u64,
) -> Result<(CertificateDer<'static>, Key), AuthorityError> {
    let key = Key::generate()?;
    let mut params = params_of(&format!("Polyphony issuer {} of {domain}", key.digest().short()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    last(&mut params, now.saturating_sub(BACK), now.saturating_add(lifetimes.issuer.as_secs()));
    let issuer = Issuer::from_ca_cert_der(root, &root_key.0)?;
    Ok((params.signed_by(&key.0, &issuer)?.der().clone(), key))
}

/// Two thirds of its time are over, or it has not begun.
fn is_due(certificate: &CertificateDer<'_>, now: u64) -> bool {
    let due = |(begin, end): (u64, u64)| now < begin || now >= begin + end.saturating_sub(begin) / 3 * 2;
    validity_of(certificate).is_none_or(due)
}

fn root_params(domain: &str, key: &Key, lifetimes: Lifetimes, now: u64) -> CertificateParams {
    // Who builds a chain goes by subjects: no two roots may have one in common.
    let mut params = params_of(&format!("Polyphony root {} of {domain}", key.digest().short()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last(&mut params, now.saturating_sub(BACK), now.saturating_add(lifetimes.root.as_secs()));
    params
}

fn params_of(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut distinguished = DistinguishedName::new();
    // 64 characters at most (RFC 5280, upper bounds): what counts are the alternative names.
    distinguished.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name = distinguished;
    params
}

/// When it is good, in seconds of Unix.
fn last(params: &mut CertificateParams, from: u64, to: u64) {
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LAST_SECOND));
    (params.not_before, params.not_after) = (at(from), at(to));
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    crate::credentials::to_pem(std::slice::from_ref(certificate))
}

#[cfg(test)]
mod tests;
