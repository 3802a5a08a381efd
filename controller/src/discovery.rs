//! Discovery: says by mDNS on the local network where phones may join. It says an address, the protocol's version and the digest of the
//! root's key; nobody believes it, since whoever is on the network can say the same.

use std::net::SocketAddr;
use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, ServiceDaemon, ServiceInfo};
use polyphony_identity::Digest;
use polyphony_protocol::discovery::{CA_HASH_KEY, SERVICE_TYPE, VERSION_KEY};
use polyphony_protocol::version;
use tokio_util::sync::CancellationToken;

use crate::flags::Advertise;

/// The goodbye is given up after this.
const GOODBYE: Duration = Duration::from_secs(1);
/// Characters of the machine's name in ours; a DNS label has 63.
const MAX_NAME: usize = 48;

/// A hub that is said on the network until [`Advertisement::keep`] ends.
pub struct Advertisement {
    daemon: ServiceDaemon,
    fullname: String,
}

/// Why the hub cannot be said on the network.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot say by mDNS that the hub listens at {hub}: {source}; start with --advertise never and give agents the address"
)]
pub struct AdvertiseError {
    hub: SocketAddr,
    source: mdns_sd::Error,
}

/// Says where the hub listens when `wish` is so; automatically only beyond loopback, where others can hear and dial.
///
/// # Errors
/// When it is to be said always, and this system has no mDNS for us.
pub fn advertise(wish: Advertise, hub: SocketAddr, ca_hash: &Digest) -> Result<Option<Advertisement>, AdvertiseError> {
    let wanted = match wish {
        Advertise::Always => true,
        Advertise::Auto => !hub.ip().is_loopback(),
        Advertise::Never => false,
    };
    if !wanted {
        return Ok(None);
    }
    match start(hub, ca_hash) {
        Ok(advertisement) => {
            tracing::info!(name = %advertisement.fullname, %hub, "phones on this network find the hub by mDNS");
            Ok(Some(advertisement))
        }
        Err(source) if wish == Advertise::Auto => {
            tracing::warn!("{}", AdvertiseError { hub, source });
            Ok(None)
        }
        Err(source) => Err(AdvertiseError { hub, source }),
    }
}

fn start(hub: SocketAddr, ca_hash: &Digest) -> Result<Advertisement, mdns_sd::Error> {
    let ca_hash = ca_hash.to_string();
    // Two controllers of one machine differ in it; and a host name of our own is none that the system's mDNS defends.
    let digits = ca_hash.trim_start_matches("sha256:");
    let short = &digits[..6];
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine: String = machine.trim().chars().filter(|character| !character.is_control()).take(MAX_NAME).collect();
    let name = if machine.is_empty() { format!("polyphony-{short}") } else { format!("{machine}-{short}") };
    let host = format!("polyphony-{short}.local.");
    let version = version::CURRENT.to_string();
    let properties = [(VERSION_KEY, version.as_str()), (CA_HASH_KEY, ca_hash.as_str())];
    let everywhere = hub.ip().is_unspecified();
    let address = if everywhere { String::new() } else { hub.ip().to_string() };
    let mut service =
        ServiceInfo::new(SERVICE_TYPE, &name, &host, address.as_str(), hub.port(), properties.as_slice())?;
    let interfaces = if everywhere {
        service = service.enable_addr_auto();
        let any_version = hub.is_ipv6();
        IfKind::Predicate(IfPredicate::new(move |interface| {
            !interface.is_loopback() && (any_version || interface.ip().is_ipv4())
        }))
    } else {
        IfKind::Addr(hub.ip())
    };
    let daemon = ServiceDaemon::new()?;
    // Nothing is said where the hub does not listen.
    daemon.disable_interface(IfKind::All)?;
    daemon.enable_interface(interfaces)?;
    let fullname = service.get_fullname().to_owned();
    daemon.register(service)?;
    Ok(Advertisement { daemon, fullname })
}

// === impl Advertisement ===

impl Advertisement {
    /// Keeps it up until `stop`, then says goodbye, so that nobody dials what has gone.
    pub async fn keep(self, stop: CancellationToken) {
        stop.cancelled().await;
        let goodbye = move || {
            if let Ok(done) = self.daemon.unregister(&self.fullname) {
                // Silence is as good as an answer: the daemon ends next.
                let _ = done.recv_timeout(GOODBYE);
            }
            let _ = self.daemon.shutdown();
        };
        let _ = tokio::task::spawn_blocking(goodbye).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hub_on_loopback_is_said_to_nobody_unless_asked() {
        let ca_hash = Digest::of_spki(b"root");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 7700));
        assert!(advertise(Advertise::Auto, loopback, &ca_hash).unwrap().is_none());
        let beyond = SocketAddr::from(([192, 0, 2, 1], 7700));
        assert!(advertise(Advertise::Never, beyond, &ca_hash).unwrap().is_none());
    }
}
