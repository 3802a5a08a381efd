//! Names: one role, and a name in it, in the domain of one installation.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The domain of an installation that names none. `internal` is nobody's (ICANN, 2024): no name server knows these names.
pub const DEFAULT_DOMAIN: &str = "polyphony.internal";

/// What a certificate is good for; each has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The port that phones dial.
    Hub,
    /// Manifests and tensors.
    Weights,
    /// The OpenAI-compatible door.
    Gateway,
    /// The embedded Kubernetes API.
    Api,
    /// A device that runs an agent.
    Phone,
    /// A person or a program that speaks with the API.
    User,
}

/// Who somebody is: `spiffe://DOMAIN/ROLE/NAME`, and to verifiers of host names `NAME.ROLE.DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub role: Role,
    /// A DNS label.
    pub name: String,
    pub domain: String,
}

// === impl Role ===

impl Role {
    pub const ALL: [Self; 6] = [Self::Hub, Self::Weights, Self::Gateway, Self::Api, Self::Phone, Self::User];

    /// As it stands in names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Weights => "weights",
            Self::Gateway => "gateway",
            Self::Api => "api",
            Self::Phone => "phone",
            Self::User => "user",
        }
    }

    /// Whether others dial who has it.
    pub fn is_server(self) -> bool {
        self != Self::User
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

// === impl Name ===

impl Name {
    pub fn new(role: Role, name: impl Into<String>, domain: impl Into<String>) -> Self {
        Self { role, name: name.into(), domain: domain.into() }
    }

    /// A phone of that domain.
    pub fn phone(name: impl Into<String>, domain: impl Into<String>) -> Self {
        Self::new(Role::Phone, name, domain)
    }

    /// The controller in one of its roles.
    pub fn of_controller(role: Role, domain: impl Into<String>) -> Self {
        Self::new(role, "controller", domain)
    }

    /// As a SPIFFE ID.
    pub fn uri(&self) -> String {
        format!("spiffe://{}/{}/{}", self.domain, self.role, self.name)
    }

    /// As verifiers of host names know it.
    pub fn dns(&self) -> String {
        format!("{}.{}.{}", self.name, self.role, self.domain)
    }

    /// Reads a SPIFFE ID of ours; none where it is another's.
    pub fn of_uri(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.splitn(3, '/');
        let (domain, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        let role = Role::ALL.into_iter().find(|one| one.word() == role)?;
        (is_domain(domain) && is_dns_label(name)).then(|| Self::new(role, name, domain))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Whether a text is a DNS label of lower case, as names of phones are: 1 to 63 of a-z, 0-9 and -, with no hyphen at either end.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// Whether a text is a domain that leaves room for a name and a role in front of it. What ends in a number is none: verifiers take that for an address.
pub(crate) fn is_domain(text: &str) -> bool {
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 180 && text.split('.').all(is_dns_label) && !text.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_from_its_uri_and_nothing_else_is_one() {
        for role in Role::ALL {
            let name = Name::new(role, "kitchen-1", "lab.example");
            assert_eq!(Name::of_uri(&name.uri()), Some(name.clone()));
            assert_eq!(name.dns(), format!("kitchen-1.{role}.lab.example"));
        }
        for other in [
            "https://lab.example/phone/a",
            "spiffe://lab.example/phone",
            "spiffe://lab.example/phone/",
            "spiffe://lab.example/phone/a/b",
            "spiffe://lab.example/admin/a",
            "spiffe://lab.example/Phone/a",
            "spiffe:///phone/a",
            "spiffe://lab.example/phone/a.hub",
            "spiffe://lab..example/phone/a",
            "spiffe://lab.00/phone/a",
        ] {
            assert_eq!(Name::of_uri(other), None, "{other}");
        }
    }

    #[test]
    fn a_phones_name_is_a_dns_label() {
        for good in ["phone-1", "a", "0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "Phone", "a.b", "a/b", &"x".repeat(64), "ä"] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }
}
