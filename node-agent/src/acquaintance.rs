//! Acquaintance: how this phone dials others, and knows who dials it: by the name in a certificate, and by the key that the hub has told.
//!
//! A certificate is good for a day; a key only as long as a Phone records it. So who was deleted is nobody at once.

use std::time::Duration;

use polyphony_identity::{Name, Role, Whom};
use polyphony_wire::{Connection, LinkError, Proof, Wire};

/// This phone among others.
#[derive(Clone)]
pub struct Acquaintance {
    /// Its name.
    pub phone: String,
    /// The domain of the installation's names.
    pub domain: String,
    pub wire: Wire,
}

// === impl Acquaintance ===

impl Acquaintance {
    /// Connects to the phone of that name and key.
    ///
    /// # Errors
    /// When it does not answer there, or somebody else does.
    pub async fn dial(
        &self,
        phone: &str,
        key: &str,
        address: &str,
        deadline: Duration,
    ) -> Result<Connection, LinkError> {
        let whom = Whom::Named(Name::phone(phone, self.domain.as_str()));
        let link = self.wire.dial(address, &whom, deadline).await?;
        match is(&link.peer.proof, phone, key) {
            true => Ok(link),
            false => Err(LinkError::Refused(format!("{phone} there has another key than the host knows it by"))),
        }
    }
}

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
