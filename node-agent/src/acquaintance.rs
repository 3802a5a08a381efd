//! Acquaintance: how this phone dials others, and knows who dials it: by the name in a certificate, and by the key that the hub has told.
//!
//! A certificate is good for a day; a key only as long as a Phone records it. So who was deleted is nobody at once.

use std::time::Duration;

use polyphony_identity::{Name, Role, Whom};
use polyphony_protocol::hub::Way;
use polyphony_wire::{Connection, LinkError, Proof, Wire};

use crate::relay::Relay;

/// This phone among others.
#[derive(Clone)]
pub struct Acquaintance {
    /// Its name.
    pub phone: String,
    /// The domain of the installation's names.
    pub domain: String,
    pub wire: Wire,
    /// The way to phones that cannot be dialled.
    pub relay: Relay,
}

// === impl Acquaintance ===

impl Acquaintance {
    /// Connects to the phone of that name and key, the first of these ways that leads there.
    ///
    /// # Errors
    /// What the first of them ended by, where none does.
    pub async fn reach(
        &self,
        phone: &str,
        key: &str,
        ways: &[Way],
        deadline: Duration,
    ) -> Result<Connection, LinkError> {
        let mut why = None;
        for (n, way) in ways.iter().enumerate() {
            let is_last = n + 1 == ways.len();
            match self.dial(phone, key, way, if is_last { deadline } else { deadline.min(BEFORE_THE_NEXT) }).await {
                Ok(link) => return Ok(link),
                Err(error) if !error.leads_nowhere() => return Err(error),
                Err(error) => {
                    tracing::debug!(peer = %phone, %way, %error, "this way does not lead there");
                    why.get_or_insert(error);
                }
            }
        }
        Err(why.unwrap_or_else(|| LinkError::Refused("it is not connected to the host".to_owned())))
    }

    /// Connects to the phone of that name and key.
    ///
    /// # Errors
    /// When it does not answer there, or somebody else does.
    pub async fn dial(&self, phone: &str, key: &str, way: &Way, deadline: Duration) -> Result<Connection, LinkError> {
        let whom = Whom::Named(Name::phone(phone, self.domain.as_str()));
        let link = match way {
            Way::Direct { address } => self.wire.dial(address, &whom, deadline).await?,
            Way::Relayed => self.wire.dial_over(self.relay.call(phone, deadline).await?, &whom, deadline).await?,
        };
        match is(&link.peer.proof, phone, key) {
            true => Ok(link),
            false => Err(LinkError::Tls(format!("{phone} there has another key than the host knows it by"))),
        }
    }
}

/// A way that leads there does so within this, where there is another one.
const BEFORE_THE_NEXT: Duration = Duration::from_secs(2);

/// Whether the other end is the phone of that name and key. Nobody is, while no key is known.
pub fn is(proof: &Proof, phone: &str, key: &str) -> bool {
    match proof {
        Proof::Plain => true,
        Proof::None => false,
        Proof::Certificate(shown) => {
            shown.name.role == Role::Phone && shown.name.name == phone && shown.key.to_string() == key
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use polyphony_identity::{DEFAULT_DOMAIN, Key, Proven};

    use super::*;

    #[test]
    fn a_phone_is_known_by_name_role_and_key() {
        let key = Key::generate().unwrap().digest();
        let shown = |role| {
            Proof::Certificate(Proven { name: Name::new(role, "a", DEFAULT_DOMAIN), key, not_before: 0, not_after: 1 })
        };
        let known = key.to_string();
        assert!(is(&shown(Role::Phone), "a", &known));
        assert!(!is(&shown(Role::Phone), "b", &known));
        assert!(!is(&shown(Role::User), "a", &known) && !is(&shown(Role::Hub), "a", &known));
        assert!(!is(&shown(Role::Phone), "a", "") && !is(&shown(Role::Phone), "a", "sha256:00"));
        assert!(!is(&Proof::None, "a", &known));
    }
}
