//! Discovery: hosts that say by mDNS on the local network that phones may join them, and the choice among them.
//!
//! It only listens and asks; an agent never says anything of itself. What is heard is a stranger's word: it is bounded,
//! cleaned for the terminal, and trusted no further than a line that a person reads: what it says of its root only picks an address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use polyphony_identity::Digest;
use polyphony_protocol::discovery::{CA_HASH_KEY, SERVICE_TYPE, VERSION_KEY};

/// Answers beyond these are not kept: no home has as many hosts.
const MAX_HOSTS: usize = 64;
const MAX_NAME: usize = 63;
/// `sha256:` and 64 digits.
const MAX_HASH: usize = 71;

/// A host that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHost {
    /// What it calls itself, unique on the network.
    pub name: String,
    /// Where its hub listens, the likeliest first.
    pub addresses: Vec<SocketAddr>,
    /// The protocol that it speaks, such as `3.0`.
    pub version: String,
    /// The digest of its root, as it says.
    pub ca_hash: String,
}

/// Why mDNS does not work here.
#[derive(Debug, thiserror::Error)]
#[error("cannot look for hosts by mDNS: {0}; give HOST:PORT instead")]
pub struct DiscoveryError(String);

/// Which host is meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    Nobody,
    /// Hosts answered, and none of them says that its root is the one that is meant.
    OtherRoots,
    Only(&'a FoundHost),
    Several(Vec<&'a FoundHost>),
}

/// Asks the network for hosts for as long as `patience`; one that says it has the root of `ca_hash` ends the search at once.
///
/// # Errors
/// When this system has no mDNS for us.
pub async fn browse(patience: Duration, ca_hash: Option<&Digest>) -> Result<Vec<FoundHost>, DiscoveryError> {
    let ca_hash = ca_hash.map(Digest::to_string);
    tokio::task::spawn_blocking(move || browse_until(Instant::now() + patience, ca_hash.as_deref()))
        .await
        .map_err(|error| DiscoveryError(error.to_string()))?
        .map_err(|error| DiscoveryError(error.to_string()))
}

fn browse_until(deadline: Instant, ca_hash: Option<&str>) -> Result<Vec<FoundHost>, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let events = daemon.browse(SERVICE_TYPE)?;
    let mut found = BTreeMap::new();
    while let Ok(event) = events.recv_deadline(deadline) {
        match event {
            ServiceEvent::ServiceResolved(service) if found.len() < MAX_HOSTS => {
                let host = heard(&service);
                let is_meant = ca_hash.is_some_and(|meant| meant == host.ca_hash) && !host.addresses.is_empty();
                found.insert(service.fullname.clone(), host);
                if is_meant {
                    break;
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                found.remove(&name);
            }
            _ => {}
        }
    }
    // The search is over whether or not the daemon says so.
    let _ = daemon.shutdown();
    Ok(found.into_values().filter(|host| !host.addresses.is_empty()).collect())
}

fn heard(service: &ResolvedService) -> FoundHost {
    let word = |key| clean(service.get_property_val_str(key).unwrap_or_default());
    let name = service.fullname.strip_suffix(SERVICE_TYPE).unwrap_or(&service.fullname).trim_end_matches('.');
    let mut addresses: Vec<IpAddr> = service.addresses.iter().map(|address| address.to_ip_addr()).collect();
    // A link-local IPv6 address is of no use without its interface.
    addresses.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6(), *address));
    FoundHost {
        name: clean(name),
        addresses: addresses.into_iter().map(|address| SocketAddr::new(address, service.port)).collect(),
        version: word(VERSION_KEY),
        ca_hash: clean_to(service.get_property_val_str(CA_HASH_KEY).unwrap_or_default(), MAX_HASH),
    }
}

/// A stranger's text, without what would steer a terminal.
fn clean(text: &str) -> String {
    clean_to(text, MAX_NAME)
}

fn clean_to(text: &str, most: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(most).collect()
}

/// Picks the host: the one of the root that is meant, where one is, else the only one.
pub fn choose<'a>(found: &'a [FoundHost], ca_hash: Option<&Digest>) -> Choice<'a> {
    let meant = ca_hash.map(Digest::to_string);
    let fits = |host: &&FoundHost| meant.as_ref().is_none_or(|meant| *meant == host.ca_hash);
    let fitting: Vec<&FoundHost> = found.iter().filter(fits).collect();
    match fitting.as_slice() {
        [] if found.is_empty() => Choice::Nobody,
        [] => Choice::OtherRoots,
        [only] => Choice::Only(only),
        _ => Choice::Several(fitting),
    }
}

impl fmt::Display for FoundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        write!(f, "{}  {}  (protocol {})", self.name, addresses.join(", "), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(of: &str) -> Digest {
        Digest::of_spki(of.as_bytes())
    }

    fn host(name: &str, of: &str) -> FoundHost {
        FoundHost {
            name: name.into(),
            addresses: vec![SocketAddr::from(([10, 0, 0, 1], 7700))],
            version: "3.0".into(),
            ca_hash: root(of).to_string(),
        }
    }

    #[test]
    fn a_root_picks_its_host_and_without_one_only_a_single_host_is_taken() {
        let found = [host("attic", "a"), host("desk", "d")];
        assert_eq!(choose(&found, Some(&root("d"))), Choice::Only(&found[1]));
        assert_eq!(choose(&found, Some(&root("other"))), Choice::OtherRoots);
        assert_eq!(choose(&found, None), Choice::Several(vec![&found[0], &found[1]]));
        assert_eq!(choose(&found[..1], None), Choice::Only(&found[0]));
        assert_eq!(choose(&[], Some(&root("d"))), Choice::Nobody);
    }

    #[test]
    fn a_strangers_name_cannot_steer_the_terminal() {
        assert_eq!(clean("desk\u{1b}[2J\r\n"), "desk[2J");
        assert_eq!(clean(&"x".repeat(500)).len(), MAX_NAME);
    }
}
