//! The guard: which requests are let in at all, by their `Host` and their bearer token, and what who sent them may do.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, Method, Uri, header};
use polyphony_doorway::Hosts;

use super::BACKUP_PATH;
use super::failure::Failure;

/// Who may come in, by what is shown.
#[derive(Clone)]
pub struct User {
    /// As the audit names it.
    pub name: String,
    /// A bearer token.
    pub token: String,
    pub role: Role,
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
    users: Vec<User>,
    hosts: Hosts,
}

// === impl User ===

impl User {
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
    pub fn new(users: Vec<User>, allowed_hosts: Vec<String>) -> Self {
        let hosts = Hosts::new(IpAddr::V4(Ipv4Addr::LOCALHOST), allowed_hosts);
        Guard { users, hosts }
    }

    /// Who sent a request. Refuses a foreign `Host`, which a web page could make a browser send, and a wrong token.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<&User, Failure> {
        self.hosts.check(uri, headers).map_err(|refused| Failure::forbidden(refused.to_string()))?;
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(Failure::unauthorized)?;
        // All are looked at, so that the time tells nothing of which it is.
        let is_of = |user: &User| is_equal(token.as_bytes(), user.token.as_bytes());
        let found = self.users.iter().fold(None, |found, user| if is_of(user) { Some(user) } else { found });
        found.ok_or_else(Failure::unauthorized)
    }
}

/// Compares in a time that does not tell where the two differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && !b.is_empty() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(token: &str, role: Role) -> User {
        User { name: format!("{role:?}").to_lowercase(), token: token.into(), role }
    }

    #[test]
    fn only_known_hosts_with_a_token_come_in() {
        let users = vec![user("secret", Role::Admin), user("look", Role::Viewer), user("", Role::Admin)];
        let guard = Guard::new(users, vec!["api.example.dev:6443".into()]);
        let check = |host: &str, authorization: &str| {
            let headers = HeaderMap::from_iter([
                (header::HOST, host.parse().unwrap()),
                (header::AUTHORIZATION, authorization.parse().unwrap()),
            ]);
            let checked = guard.check(&Uri::from_static("/api"), &headers);
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
    fn a_viewer_reads_no_secrets_and_changes_nothing() {
        let may =
            |role: Role, method: Method, path: &str| user("t", role).check(&method, &path.parse().unwrap()).is_ok();
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
