//! Client keys: what apps show at the gateway, as Secrets of the system's namespace, hashed. `polyctl key` makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use polyphony_api::SYSTEM_NAMESPACE;
use polyphony_gateway::{ClientKey, KeyBook};
use polyphony_identity::random_word;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The type of the Secrets.
pub const SECRET_TYPE: &str = "polyphony.dev/client-key";

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
/// A watch is begun anew after this: where the connection swallows everything, that is when it is noticed.
const WATCH_SECONDS: u32 = 20;

/// Makes a key; it is given once, and kept as a hash.
///
/// # Errors
/// What the API answers; a conflict where there is a key of that name.
pub async fn create(client: &Client, terms: &Terms) -> Result<String, kube::Error> {
    let key = ClientKey::of_letters(&random_word(LETTERS));
    secrets(client).create(&PostParams::default(), &secret_of(terms, &ClientKey::hash_of(&key))).await?;
    Ok(key)
}

/// All keys, without the keys.
///
/// # Errors
/// What the API answers.
pub async fn list(client: &Client) -> Result<Vec<ClientKey>, kube::Error> {
    let listed = secrets(client).list(&ListParams::default().fields(&format!("type={SECRET_TYPE}"))).await?;
    Ok(listed.items.iter().filter_map(key_of).collect())
}

/// Takes a key away; whether there was one.
///
/// # Errors
/// What the API answers.
pub async fn delete(client: &Client, name: &str) -> Result<bool, kube::Error> {
    match secrets(client).delete(&name_of(name), &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells `book` of the keys that there are, as they change, until `stop`.
pub async fn watch(client: Client, book: watch::Sender<Arc<KeyBook>>, stop: CancellationToken) {
    let (store, writer) = reflector::store::<Secret>();
    let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("type={SECRET_TYPE}"));
    let events = watcher(secrets(&client), config).default_backoff().reflect(writer);
    let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
    let mut complaint = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => {
                complaint = None;
                let keys = KeyBook::new(store.state().iter().filter_map(|secret| key_of(secret)));
                book.send_if_modified(|current| {
                    let differs = **current != keys;
                    if differs {
                        *current = Arc::new(keys);
                    }
                    differs
                });
            }
            Err(error) => {
                let error = error.to_string();
                if complaint.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the keys of clients cannot be watched: those that are known stay");
                    complaint = Some(error);
                }
            }
        }
    }
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
}

fn name_of(key: &str) -> String {
    format!("client-key-{key}")
}

fn secret_of(terms: &Terms, hash: &str) -> Secret {
    let mut data = BTreeMap::from([(HASH, hash.to_owned()), (MODELS, terms.models.join("\n"))]);
    data.extend(terms.requests_per_minute.map(|limit| (REQUESTS, limit.to_string())));
    data.extend(terms.tokens_per_minute.map(|limit| (TOKENS, limit.to_string())));
    data.extend(terms.expires.map(|expires| (EXPIRES, expires.to_string())));
    let data = data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
    Secret {
        metadata: ObjectMeta {
            name: Some(name_of(&terms.name)),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

/// As a Secret says it; none where it says what cannot be read: no key is better than one of fewer limits.
fn key_of(secret: &Secret) -> Option<ClientKey> {
    if secret.type_.as_deref() != Some(SECRET_TYPE) {
        return None;
    }
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let number = |key: &str| text(key).map(str::parse::<u32>).transpose().ok();
    let expires = text(EXPIRES).map(str::parse::<Timestamp>).transpose().ok()?;
    Some(ClientKey {
        name: secret.name_any().strip_prefix("client-key-")?.to_owned(),
        hash: text(HASH)?.to_owned(),
        models: text(MODELS).unwrap_or_default().lines().map(str::to_owned).collect(),
        requests_per_minute: number(REQUESTS)?,
        tokens_per_minute: number(TOKENS)?,
        expires_at: expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
