//! Join tokens: an id that may be seen and a secret that may not, as bootstrap tokens of Kubernetes are.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::ring;

/// `ID.SECRET`: whoever shows it may join a device, within what was said when it was made.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token: one is {ID_LENGTH} letters or digits, a dot and {SECRET_LENGTH} more, as `polyctl token create` and `polyctl join-command` print it"
)]
pub struct TokenError;

const ID_LENGTH: usize = 6;
/// 160 bits: nobody finds it by trying, and of its digest nothing can be told.
const SECRET_LENGTH: usize = 32;
/// What no two are taken for each other of (RFC 4648's base32, in lower case).
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

// === impl JoinToken ===

impl JoinToken {
    /// A new one.
    ///
    /// # Panics
    /// When the system gives no randomness.
    pub fn generate() -> Self {
        Self { id: random_word(ID_LENGTH), secret: random_word(SECRET_LENGTH) }
    }

    /// What it is called by; may be seen by all.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is kept of it: SHA-256 of the whole, in hexadecimal digits.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.reveal()))
    }

    /// Whether it is the one of that hash; takes the same time wherever they differ.
    pub fn is_of(&self, hash: &str) -> bool {
        let ours = self.hash();
        ours.len() == hash.len() && ours.bytes().zip(hash.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// All of it, for who is to join.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.trim().split_once('.').ok_or(TokenError)?;
        let is_word = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        match is_word(id, ID_LENGTH) && is_word(secret, SECRET_LENGTH) {
            true => Ok(Self { id: id.to_owned(), secret: secret.to_owned() }),
            false => Err(TokenError),
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.…)", self.id)
    }
}

/// So many random letters and digits, of 5 bits each.
///
/// # Panics
/// When the system gives no randomness.
pub fn random_word(length: usize) -> String {
    let mut bytes = vec![0; length];
    ring::default_provider().secure_random.fill(&mut bytes).expect("the system gives random bytes");
    bytes.into_iter().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_and_never_shown() {
        let token = JoinToken::generate();
        let read: JoinToken = format!(" {}\n", token.reveal()).parse().unwrap();
        assert_eq!(read, token);
        assert!(token.is_of(&token.hash()) && !token.is_of(&JoinToken::generate().hash()) && !token.is_of(""));
        assert!(!format!("{token:?}").contains(&token.secret));
        assert_ne!(JoinToken::generate(), token);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let secret = "a".repeat(SECRET_LENGTH);
        for wrong in
            ["", ".", "abcdef", "abcdef.", "abcdef.short", &format!("ABCDEF.{secret}"), &format!("abcde.{secret}")]
        {
            assert_eq!(wrong.parse::<JoinToken>(), Err(TokenError), "{wrong}");
        }
    }
}
