//! Keys: what clients show to be answered, and what each may. Kept as hashes. Pure; opens no socket.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A client's key, without the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKey {
    /// What it is called by, in metrics and logs.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal digits.
    pub hash: String,
    /// The models that it may ask, by id; all where none is named.
    pub models: Vec<String>,
    pub requests_per_minute: Option<u32>,
    /// Of prompts and answers together.
    pub tokens_per_minute: Option<u32>,
    /// Seconds of Unix.
    pub expires_at: Option<u64>,
}

/// All keys that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyBook {
    keys: Vec<Arc<ClientKey>>,
}

/// The form of keys, by which scanners for leaked ones know them.
const PREFIX: &str = "sk-polyphony-";

// === impl ClientKey ===

impl ClientKey {
    /// The hash that is kept of a key.
    pub fn hash_of(key: &str) -> String {
        hex::encode(Sha256::digest(key.as_bytes()))
    }

    /// A key of those random letters.
    pub fn of_letters(letters: &str) -> String {
        format!("{PREFIX}{letters}")
    }

    /// Whether it may ask a model of that id.
    pub fn may(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|one| one == model)
    }

    pub fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

// === impl KeyBook ===

impl KeyBook {
    pub fn new(keys: impl IntoIterator<Item = ClientKey>) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect() }
    }

    /// The key that was shown. All are looked at, each to its end, so that the time tells nothing.
    pub fn find(&self, shown: &str) -> Option<Arc<ClientKey>> {
        let hash = ClientKey::hash_of(shown);
        let is_it = |key: &ClientKey| {
            let (ours, theirs) = (key.hash.as_bytes(), hash.as_bytes());
            ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
        };
        self.keys.iter().fold(None, |found, key| if is_it(key) { Some(key.clone()) } else { found })
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_found_by_what_was_shown_and_may_what_it_names() {
        let key = |name: &str, models: &[&str]| ClientKey {
            name: name.into(),
            hash: ClientKey::hash_of(&format!("sk-{name}")),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            ..ClientKey::default()
        };
        let book = KeyBook::new([key("app", &["chat"]), key("all", &[])]);
        let found = book.find("sk-app").unwrap();
        assert!(found.name == "app" && found.may("chat") && !found.may("other"));
        assert!(book.find("sk-all").unwrap().may("other"));
        for wrong in ["", "sk-ap", "sk-app ", &found.hash] {
            assert_eq!(book.find(wrong), None, "{wrong}");
        }
        let brief = ClientKey { expires_at: Some(100), ..key("brief", &[]) };
        assert!(!brief.is_expired(99) && brief.is_expired(100));
    }
}
