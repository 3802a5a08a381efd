//! TLS: the server's own authority, kept in its store, and a certificate that is made anew at each start.
//!
//! `kubectl` sends no token over plain HTTP, so the port speaks TLS too; a kubeconfig carries the authority.

use std::sync::Arc;

use polyphony_doorway::bare;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The certificate authority of one store, as PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Authority {
    pub certificate: String,
    pub key: String,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the server's certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

// === impl Authority ===

impl Authority {
    /// A new authority; `year` is the present one.
    pub fn generate(year: i16) -> Result<Authority, TlsError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(year)?.self_signed(&key)?;
        Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Accepts TLS as the loopback names and addresses, and as `hosts`.
    pub fn acceptor(&self, hosts: &[String], year: i16) -> Result<TlsAcceptor, TlsError> {
        let issuer = Issuer::new(authority_params(year)?, KeyPair::from_pem(&self.key)?);
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        names.extend(hosts.iter().map(|host| bare(host).to_owned()));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("polyphony-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        limit_to(&mut params, year);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn authority_params(year: i16) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("polyphony-apiserver-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    limit_to(&mut params, year);
    Ok(params)
}

/// From a year ago, because clocks differ, for as long as a store is likely to live.
fn limit_to(params: &mut CertificateParams, year: i16) {
    params.not_before = date_time_ymd(i32::from(year) - 1, 1, 1);
    params.not_after = date_time_ymd(i32::from(year) + 20, 1, 1);
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
