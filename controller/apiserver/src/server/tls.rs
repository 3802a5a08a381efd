//! TLS: the server's own authority, kept in its store, and a certificate that is made anew at each start.
//!
//! `kubectl` sends no token over plain HTTP, so the port speaks TLS too; a kubeconfig carries the authority. Certificates are of
//! all times: one that was made by a clock that was wrong is good when the clock is right, and the other way round.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
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
    /// A new authority.
    pub fn generate() -> Result<Authority, TlsError> {
        Self::of(&KeyPair::generate()?)
    }

    /// The same authority, by its key, with a certificate of all times. Who trusts the old one trusts this one.
    pub fn renewed(&self) -> Result<Authority, TlsError> {
        Self::of(&KeyPair::from_pem(&self.key)?)
    }

    fn of(key: &KeyPair) -> Result<Authority, TlsError> {
        let certificate = authority_params()?.self_signed(key)?;
        Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Whether its certificate has no end that a clock could come to.
    pub fn is_of_all_times(&self) -> bool {
        let lines = self.certificate.lines().filter(|line| !line.starts_with("-----"));
        let der = BASE64_STANDARD.decode(lines.collect::<String>()).unwrap_or_default();
        der.windows(NO_END.len()).any(|part| part == NO_END.as_bytes())
    }

    /// Accepts TLS as the loopback names and addresses, and as `hosts`.
    pub fn acceptor(&self, hosts: &[String]) -> Result<TlsAcceptor, TlsError> {
        let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(&self.key)?);
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        names.extend(hosts.iter().map(|host| bare(host).to_owned()));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("polyphony-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        last_for_ever(&mut params);
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

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("polyphony-apiserver-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    last_for_ever(&mut params);
    Ok(params)
}

/// The end of a certificate that has none, as RFC 5280 (4.1.2.5) has it written.
const NO_END: &str = "99991231235959Z";

/// From the first day that clocks count from.
fn last_for_ever(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31) + Duration::from_secs(86_399);
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::time_provider::TimeProvider;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    /// A clock that stands still.
    #[derive(Debug)]
    struct At(u64);

    impl TimeProvider for At {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }

    /// Whether a client whose clock says so many seconds and who trusts `authority` lets `acceptor` in.
    async fn is_trusted(authority: &str, acceptor: &TlsAcceptor, seconds: u64) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(At(seconds)))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (client, server) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        tokio::join!(connector.connect(name, client), acceptor.accept(server)).0.is_ok()
    }

    #[tokio::test]
    async fn certificates_are_good_whatever_the_clock_says() {
        let authority = Authority::generate().unwrap();
        let acceptor = authority.acceptor(&[]).unwrap();
        assert!(authority.is_of_all_times());
        for year in [1, 30, 56, 130, 2000] {
            assert!(is_trusted(&authority.certificate, &acceptor, year * 31_556_952).await, "{year} years after 1970");
        }
        let stranger = Authority::generate().unwrap();
        assert!(!is_trusted(&stranger.certificate, &acceptor, 1 << 30).await);
    }

    #[tokio::test]
    async fn an_authority_of_a_wrong_clock_is_renewed_and_trusted_by_who_trusted_it() {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params().unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(1969, 1, 1), date_time_ymd(1990, 1, 1));
        let certificate = params.self_signed(&key).unwrap().pem();
        let old = Authority { certificate, key: key.serialize_pem() };
        assert!(!old.is_of_all_times());
        let new = old.renewed().unwrap();
        assert!(new.is_of_all_times() && new.key == old.key);
        let acceptor = new.acceptor(&[]).unwrap();
        for certificate in [&old.certificate, &new.certificate] {
            assert!(is_trusted(certificate, &acceptor, 1 << 30).await);
        }
    }
}
