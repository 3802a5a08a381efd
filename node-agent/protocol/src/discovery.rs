//! Discovery: what a controller says of itself on the local network by DNS-SD (RFC 6763). Words only; sends nothing.
//!
//! The join token itself is never said: a fingerprint of it lets an agent that holds the token pick the right host.

use sha2::{Digest, Sha256};

/// The service type of hubs.
pub const SERVICE_TYPE: &str = "_polyphony._tcp.local.";
/// TXT key: the protocol's version, such as `2.0`.
pub const VERSION_KEY: &str = "protocol";
/// TXT key: the fingerprint of the join token that this hub takes.
pub const FINGERPRINT_KEY: &str = "token";

/// Bytes of a fingerprint; twice as many hexadecimal digits.
const FINGERPRINT_BYTES: usize = 8;

/// The fingerprint of a join token: 16 hexadecimal digits that say whether two tokens are the same, but not which.
///
/// That holds for tokens as the controller draws them, of 256 random bits; a short word could be found by trying words.
pub fn token_fingerprint(token: &str) -> String {
    let digest = Sha256::new().chain_update("polyphony join token\0").chain_update(token.as_bytes()).finalize();
    hex::encode(&digest[..FINGERPRINT_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_tokens_apart_and_holds_nothing_of_them() {
        let one = token_fingerprint("0123456789abcdef");
        assert_eq!(one, "056a32b26c27be38");
        assert_ne!(one, token_fingerprint("0123456789abcdee"));
    }
}
