//! Discovery: what a controller says of itself on the local network by DNS-SD (RFC 6763). Words only; sends nothing.
//!
//! Whoever is on the network can say the same. What is said only picks an address: an agent trusts a hub by the digest that it was given, or
//! by the roots that it has.

/// The service type of hubs.
pub const SERVICE_TYPE: &str = "_polyphony._tcp.local.";
/// TXT key: the protocol's version, such as `3.0`.
pub const VERSION_KEY: &str = "protocol";
/// TXT key: the digest of the root's key, as `--ca-hash` has it.
pub const CA_HASH_KEY: &str = "ca";
