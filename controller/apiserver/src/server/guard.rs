//! The guard: which requests are let in at all, by their `Host` and by bearer token or certificate, and what who sent them may do.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, Method, Uri, header};
use polyphony_doorway::{Certificates, Hosts};

use super::BACKUP_PATH;
use super::failure::Failure;

/// Who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As the audit names it.
    pub name: String,
    pub role: Role,
}

/// Who comes in by a token.
#[derive(Clone)]
pub struct Bearer {
    pub token: String,
    pub user: User,
}

/// Whose the certificates of a connection are. Asked for each request, so that who is no user any more is none at once.
pub type ByCertificate = Arc<dyn Fn(&Certificates) -> Result<User, NobodyKnown> + Send + Sync>;

/// Why certificates let nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NobodyKnown {
    /// Who is a user is not known yet.
    Yet,
    /// They are no user's.
    Because(String),
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Admin,
    /// Reads everything but Secrets, and writes nothing.
    Viewer,
    /// A program of the control plane: it may do everything, and its writes are too many for an audit.
    Program,
}

/// What a request has to show.
#[derive(Clone)]
pub struct Guard {
    bearers: Vec<Bearer>,
    by_certificate: Option<ByCertificate>,
    hosts: Hosts,
}

/// The verbs of who only reads.
pub const READS: [&str; 3] = ["get", "list", "watch"];

// === impl User ===

impl User {
    /// Whether it may do that with a resource of that plural: what [`Self::check`] says of its requests.
    pub fn may(&self, verb: &str, plural: &str) -> bool {
        self.role != Role::Viewer || (READS.contains(&verb) && plural != "secrets" && !plural.contains('*'))
    }

    /// Whether it may send that.
    pub fn check(&self, method: &Method, uri: &Uri) -> Result<(), Failure> {
        if self.role != Role::Viewer {
            return Ok(());
        }
        // What it reads and writes is named in the path, with nothing escaped in it: what cannot be read so is no resource.
        let is_secret = |part: &str| part.eq_ignore_ascii_case("secrets") || part.contains('%');
        if uri.path() == BACKUP_PATH || uri.path().split('/').any(is_secret) {
            return Err(Failure::forbidden(format!("user {:?} is a viewer, and viewers read no secrets", self.name)));
        }
        match is_write(method, uri) {
            true => Err(Failure::forbidden(format!("user {:?} is a viewer, and viewers change nothing", self.name))),
            false => Ok(()),
        }
    }
}

/// Whether a request changes what is stored. Reviews ask what one may, and are sent as what is created.
pub fn is_write(method: &Method, uri: &Uri) -> bool {
    let is_question =
        uri.path().starts_with("/apis/authorization.k8s.io/") || uri.path().starts_with("/apis/authentication.k8s.io/");
    !is_question && ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

// === impl Guard ===

impl Guard {
    pub fn new(bearers: Vec<Bearer>, by_certificate: Option<ByCertificate>, allowed_hosts: Vec<String>) -> Self {
        let hosts = Hosts::new(IpAddr::V4(Ipv4Addr::LOCALHOST), allowed_hosts);
        Guard { bearers, by_certificate, hosts }
    }

    /// Who sent a request. Refuses a foreign `Host`, which a web page could make a browser send, a wrong token, and a certificate that is no user's. Where a
    /// token is shown, it counts.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap, shown: Option<&Certificates>) -> Result<User, Failure> {
        self.hosts.check(uri, headers).map_err(|refused| Failure::forbidden(refused.to_string()))?;
        match (headers.get(header::AUTHORIZATION), shown.filter(|shown| !shown.0.is_empty()), &self.by_certificate) {
            (None, Some(shown), Some(by_certificate)) => by_certificate(shown).map_err(|why| match why {
                NobodyKnown::Yet => Failure::not_yet("users are not known yet"),
                NobodyKnown::Because(why) => Failure::unauthorized(Some(&why)),
            }),
            (authorization, ..) => {
                let text = authorization.and_then(|value| value.to_str().ok());
                self.bearer(text).cloned().ok_or_else(|| Failure::unauthorized(None))
            }
        }
    }

    fn bearer(&self, authorization: Option<&str>) -> Option<&User> {
        let (scheme, token) = authorization?.split_once(' ')?;
        let token = scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())?;
        // All are looked at, so that the time tells nothing of which it is.
        let is_of = |bearer: &Bearer| is_equal(token.as_bytes(), bearer.token.as_bytes());
        self.bearers.iter().fold(None, |found, bearer| if is_of(bearer) { Some(&bearer.user) } else { found })
    }
}

/// Compares in a time that does not tell where the two differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && !b.is_empty() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_rustls::rustls::pki_types::CertificateDer;

    use super::*;

    fn user(role: Role) -> User {
        User { name: format!("{role:?}").to_lowercase(), role }
    }

    fn bearer(token: &str, role: Role) -> Bearer {
        Bearer { token: token.into(), user: user(role) }
    }

    #[test]
    fn only_known_hosts_with_a_token_come_in() {
        let bearers = vec![bearer("secret", Role::Admin), bearer("look", Role::Viewer), bearer("", Role::Admin)];
        let guard = Guard::new(bearers, None, vec!["api.example.dev:6443".into()]);
        let check = |host: &str, authorization: &str| {
            let headers = HeaderMap::from_iter([
                (header::HOST, host.parse().unwrap()),
                (header::AUTHORIZATION, authorization.parse().unwrap()),
            ]);
            let checked = guard.check(&Uri::from_static("/api"), &headers, None);
            checked.map(|user| user.name.clone()).map_err(|failure| failure.status_code().as_u16())
        };
        for host in ["localhost", "LocalHost:80", "127.0.0.1:6443", "127.9.9.9", "[::1]:1", "::1", "api.example.dev:1"]
        {
            assert_eq!(check(host, "Bearer secret"), Ok("admin".into()), "{host}");
        }
        assert_eq!(check("localhost", "bearer look"), Ok("viewer".into()));
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", ""] {
            assert_eq!(check(host, "Bearer secret"), Err(403), "{host}");
        }
        for authorization in ["Bearer secreu", "Bearer ", "Basic secret", "secret", "Bearer"] {
            assert_eq!(check("localhost", authorization), Err(401), "{authorization}");
        }
    }

    #[test]
    fn a_certificate_lets_in_whom_it_is_known_for_where_no_token_is_shown() {
        let known = CertificateDer::from(vec![7]);
        let shown = |der: &[u8]| Certificates(Arc::new([CertificateDer::from(der.to_vec())]));
        let by_certificate: ByCertificate = Arc::new(move |shown| match shown.0[0] == known {
            true => Ok(user(Role::Viewer)),
            false => Err(NobodyKnown::Because("of phone a".into())),
        });
        let guard = Guard::new(vec![bearer("secret", Role::Admin)], Some(by_certificate), Vec::new());
        let check = |authorization: Option<&'static str>, shown: &Certificates| {
            let mut headers = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
            headers.extend(authorization.map(|text| (header::AUTHORIZATION, text.parse().unwrap())));
            let checked = guard.check(&Uri::from_static("/api"), &headers, Some(shown));
            checked.map(|user| user.role).map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(check(None, &shown(&[7])), Ok(Role::Viewer));
        assert_eq!(check(None, &shown(&[8])), Err("Unauthorized: of phone a".into()));
        assert_eq!(check(None, &Certificates::default()), Err("Unauthorized".into()));
        assert_eq!(check(Some("Bearer secret"), &shown(&[7])), Ok(Role::Admin));
        assert_eq!(check(Some("Bearer wrong"), &shown(&[7])), Err("Unauthorized".into()));
    }

    #[test]
    fn a_viewer_reads_no_secrets_and_changes_nothing() {
        let may = |role: Role, method: Method, path: &str| user(role).check(&method, &path.parse().unwrap()).is_ok();
        let phones = "/apis/polyphony.dev/v1alpha1/phones";
        for path in [phones, "/api/v1/namespaces/x/configmaps?watch=true", "/version", "/openapi/v2"] {
            assert!(may(Role::Viewer, Method::GET, path), "{path}");
        }
        assert!(may(Role::Viewer, Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"));
        let secrets = [
            "/api/v1/secrets",
            "/api/v1/namespaces/x/secrets/a",
            "/api/v1/namespaces/x/SECRETS",
            "/api/v1/%73ecrets",
            BACKUP_PATH,
        ];
        for path in secrets {
            assert!(!may(Role::Viewer, Method::GET, path) && may(Role::Admin, Method::GET, path), "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!may(Role::Viewer, method.clone(), phones) && may(Role::Admin, method.clone(), phones), "{method}");
            assert!(may(Role::Program, method, phones));
        }
    }
}
