//! Client keys: what apps show at the gateway, as Secrets of the system's namespace, hashed. `polyctl key` makes them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use polyphony_gateway::{ClientKey, KeyBook};
use polyphony_identity::random_word;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::records::Sort;

/// Their Secrets.
const KEYS: Sort = Sort { secret_type: "polyphony.dev/client-key", prefix: "client-key-", plural: "keys of clients" };

const HASH: &str = "hash";
const MODELS: &str = "models";
const REQUESTS: &str = "requests-per-minute";
const TOKENS: &str = "tokens-per-minute";
const EXPIRES: &str = "expires";

/// What a key may, for who makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    pub models: Vec<String>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub expires: Option<Timestamp>,
}

/// 160 bits.
const LETTERS: usize = 32;
/// Makes a key; it is given once, and kept as a hash.
///
/// # Errors
/// What the API answers; a conflict where there is a key of that name.
pub async fn create(client: &Client, terms: &Terms) -> Result<String, kube::Error> {
    let key = ClientKey::of_letters(&random_word(LETTERS));
    KEYS.create(client, &secret_of(terms, &ClientKey::hash_of(&key))).await?;
    Ok(key)
}

/// All keys, without the keys.
///
/// # Errors
/// What the API answers.
pub async fn list(client: &Client) -> Result<Vec<ClientKey>, kube::Error> {
    Ok(KEYS.list(client).await?.iter().filter_map(key_of).collect())
}

/// Takes a key away; whether there was one.
///
/// # Errors
/// What the API answers.
pub async fn delete(client: &Client, name: &str) -> Result<bool, kube::Error> {
    KEYS.delete(client, name).await
}

/// Tells `book` of the keys that there are, as they change, until `stop`.
pub async fn watch(client: Client, book: watch::Sender<Arc<KeyBook>>, stop: CancellationToken) {
    let read = |secrets: &[Arc<Secret>]| KeyBook::new(secrets.iter().filter_map(|secret| key_of(secret)));
    KEYS.watch(client, read, book, stop).await;
}

fn secret_of(terms: &Terms, hash: &str) -> Secret {
    let mut texts = vec![(HASH, hash.to_owned()), (MODELS, terms.models.join("\n"))];
    texts.extend(terms.requests_per_minute.map(|limit| (REQUESTS, limit.to_string())));
    texts.extend(terms.tokens_per_minute.map(|limit| (TOKENS, limit.to_string())));
    texts.extend(terms.expires.map(|expires| (EXPIRES, expires.to_string())));
    KEYS.secret(&terms.name, texts)
}

/// As a Secret says it; none where it says what cannot be read: no key is better than one of fewer limits.
fn key_of(secret: &Secret) -> Option<ClientKey> {
    let record = KEYS.record(secret)?;
    let expires = record.parsed::<Timestamp>(EXPIRES).ok()?;
    Some(ClientKey {
        name: record.name.to_owned(),
        hash: record.text(HASH)?.to_owned(),
        models: record.text(MODELS).unwrap_or_default().lines().map(str::to_owned).collect(),
        requests_per_minute: record.parsed(REQUESTS).ok()?,
        tokens_per_minute: record.parsed(TOKENS).ok()?,
        expires_at: expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_key_is_kept_without_itself_and_read_back() {
        let terms = Terms {
            name: "app".into(),
            models: vec!["chat".into(), "lab/other".into()],
            requests_per_minute: Some(60),
            tokens_per_minute: None,
            expires: Some(Timestamp::from_second(1_900_000_000).unwrap()),
        };
        let hash = ClientKey::hash_of("sk-polyphony-x");
        let secret = secret_of(&terms, &hash);
        let key = key_of(&secret).unwrap();
        assert_eq!((key.name.as_str(), &key.hash, &key.models), ("app", &hash, &terms.models));
        assert_eq!(
            (key.requests_per_minute, key.tokens_per_minute, key.expires_at),
            (Some(60), None, Some(1_900_000_000))
        );
        // What cannot be read makes no key of fewer limits.
        for (field, text) in [(REQUESTS, "many"), (EXPIRES, "never")] {
            let mut broken = secret.clone();
            broken.data.as_mut().unwrap().insert(field.into(), ByteString(text.into()));
            assert_eq!(key_of(&broken), None, "{field}");
        }
    }
}
