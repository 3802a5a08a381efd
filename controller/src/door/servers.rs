//! Servers: the certificates of this process's own ports, made anew before they run out and whenever the authority is another one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use polyphony_identity::{
    Authority, AuthorityError, Clock, Credentials, CredentialsError, Key, KeyError, Name, Papers, Role,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::authority::KeptAuthority;

/// One port's credentials and what they are made of.
pub struct Server {
    role: Role,
    /// Addresses and names beside its own that clients may dial it by.
    hosts: Vec<String>,
    key: Key,
    authority: KeptAuthority,
    pub credentials: Credentials,
}

/// Why a port has no certificate.
#[derive(Debug, thiserror::Error)]
#[error("the {role} has no certificate: {why}")]
pub struct ServerError {
    role: Role,
    why: String,
}

/// How often the end is looked for: a clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a certificate could not be made.
const PAUSE: Duration = Duration::from_secs(5);

// === impl Server ===

impl Server {
    /// A new key and a certificate of it.
    ///
    /// # Errors
    /// When the authority cannot sign.
    pub fn new(authority: &KeptAuthority, role: Role, hosts: Vec<String>) -> Result<Self, ServerError> {
        let failed = |why: String| ServerError { role, why };
        let key = Key::generate().map_err(|error: KeyError| failed(error.to_string()))?;
        let papers = papers(authority, role, &hosts, &key).map_err(|error| failed(error.to_string()))?;
        let credentials = Credentials::new(&key, &papers, Clock::system());
        let credentials = credentials.map_err(|error: CredentialsError| failed(error.to_string()))?;
        Ok(Self { role, hosts, key, authority: authority.clone(), credentials })
    }

    /// Keeps its certificate good until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut changes = self.authority.changes();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The authority is another one than that of the certificate.
        let mut is_behind = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => is_behind = true,
                    Err(_) => return,
                },
                _ = looks.tick() => if !is_behind && !self.credentials.own().is_due(Clock::system().now()) { continue },
            }
            let renewed = papers(&self.authority, self.role, &self.hosts, &self.key).map_err(|error| error.to_string());
            let taken = renewed
                .and_then(|papers| self.credentials.replace(&self.key, &papers).map_err(|error| error.to_string()));
            match taken {
                Ok(()) => is_behind = false,
                Err(why) => {
                    tracing::error!(role = %self.role, %why, "a certificate of this process cannot be renewed, and is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn papers(authority: &KeptAuthority, role: Role, hosts: &[String], key: &Key) -> Result<Papers, AuthorityError> {
    authority.with(|authority: &Authority| {
        authority.certify_server(key, &Name::of_controller(role, authority.domain()), hosts, Clock::system().now())
    })
}

/// What a port at `address` may be dialled by: its address, or all of loopback's, and what a person named. Names that stand for many are left
/// out: a certificate says what it is good for.
pub fn hosts_of(address: SocketAddr, named: &[String]) -> Vec<String> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = address.ip().to_canonical();
    if !own.is_loopback() && !own.is_unspecified() {
        hosts.push(own.to_string());
    }
    let named = named.iter().map(|name| polyphony_doorway::bare(name)).filter(|name| !name.starts_with('.'));
    let is_host = |name: &&str| name.parse::<IpAddr>().is_ok() || name.split('.').all(polyphony_identity::is_dns_label);
    hosts.extend(named.filter(is_host).map(str::to_owned));
    hosts
}
