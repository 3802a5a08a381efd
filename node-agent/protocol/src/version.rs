//! The protocol's version. Neighbours may differ by one minor version, so that phones can be updated one by one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A protocol version; every frame carries its minor number, every hello both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolVersion {
    pub major: u8,
    pub minor: u8,
}

/// What this build speaks.
pub const CURRENT: ProtocolVersion = ProtocolVersion { major: 3, minor: 0 };

impl ProtocolVersion {
    /// Whether the two can talk: equal majors, minors at most one apart.
    pub fn speaks_with(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

/// Why two programs do not talk: who speaks what, and what to do. `we` speak [`CURRENT`].
pub fn refusal(they: &str, theirs: ProtocolVersion, we: &str) -> String {
    format!(
        "{they} speaks protocol {theirs} and {we} {CURRENT}, and they may differ by one minor version: update the older"
    )
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_may_differ_by_one_minor_version() {
        let v = |major, minor| ProtocolVersion { major, minor };
        assert!(v(1, 0).speaks_with(v(1, 1)));
        assert!(!v(1, 0).speaks_with(v(1, 2)));
        assert!(!v(1, 0).speaks_with(v(2, 0)));
    }

    #[test]
    fn builds_that_know_no_certificates_are_refused_by_name() {
        let before = ProtocolVersion { major: 2, minor: 1 };
        assert!(!CURRENT.speaks_with(before));
        let refusal = refusal("phone-1", before, "this hub");
        assert!(refusal.starts_with("phone-1 speaks protocol 2.1 and this hub 3.0,"), "{refusal}");
    }
}
