//! Random names: unique identifiers and the ends of generated names. Nothing secret is made of them.

use std::hash::{BuildHasher, RandomState};

/// Kubernetes' letters for generated names: no vowels, so no words.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random UUID (version 4).
pub fn uid() -> String {
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// Five letters to end a generated name.
pub fn suffix() -> String {
    let mut bits = random();
    let mut text = String::new();
    for _ in 0..5 {
        text.push(char::from(LETTERS[(bits % 27) as usize]));
        bits /= 27;
    }
    text
}

/// 64 bits from the keys that the standard library draws from the system for each hash map.
fn random() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_have_their_shape() {
        let uids: std::collections::BTreeSet<String> = (0..1000).map(|_| uid()).collect();
        assert_eq!(uids.len(), 1000);
        assert!(uids.iter().all(|uid| uid.len() == 36 && &uid[14..15] == "4"));
        assert_eq!(suffix().len(), 5);
    }
}
