//! Records: Secrets of one type in the system's namespace, by which the door knows who may come: join tokens, the keys of clients, users.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use polyphony_api::SYSTEM_NAMESPACE;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// One sort of them.
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    pub secret_type: &'static str,
    /// Begins the names of their Secrets.
    pub prefix: &'static str,
    /// For people.
    pub plural: &'static str,
}

/// The texts of a record, and its name.
pub struct Record<'a> {
    pub name: &'a str,
    secret: &'a Secret,
}

/// A watch is begun anew after this: where the connection swallows everything, that is when it is noticed.
const WATCH_SECONDS: u32 = 20;

// === impl Sort ===

impl Sort {
    pub fn api(self, client: &Client) -> Api<Secret> {
        Api::namespaced(client.clone(), SYSTEM_NAMESPACE)
    }

    /// Of the Secret of the record `name`.
    pub fn name_of(self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// As it is written.
    pub fn secret<'k>(self, name: &str, texts: impl IntoIterator<Item = (&'k str, String)>) -> Secret {
        let data = texts.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name_of(name)),
                namespace: Some(SYSTEM_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(self.secret_type.to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    /// As it is read; none where a Secret is no record of the sort.
    pub fn record(self, secret: &Secret) -> Option<Record<'_>> {
        let is_ours = secret.type_.as_deref() == Some(self.secret_type);
        let name = secret.metadata.name.as_deref().filter(|_| is_ours)?.strip_prefix(self.prefix)?;
        Some(Record { name, secret })
    }

    /// Writes one.
    ///
    /// # Errors
    /// What the API answers; a conflict where there is one of that name.
    pub async fn create(self, client: &Client, secret: &Secret) -> Result<(), kube::Error> {
        self.api(client).create(&PostParams::default(), secret).await.map(drop)
    }

    /// Writes one, in place of what is there.
    ///
    /// # Errors
    /// What the API answers; a conflict where a Secret of that name is none of the sort.
    pub async fn put(self, client: &Client, secret: &Secret) -> Result<(), kube::Error> {
        let (api, name) = (self.api(client), secret.metadata.name.clone().unwrap_or_default());
        match api.get_opt(&name).await? {
            Some(there) if self.record(&there).is_some() => {
                let mut new = secret.clone();
                new.metadata.resource_version = there.metadata.resource_version;
                api.replace(&name, &PostParams::default(), &new).await.map(drop)
            }
            _ => self.create(client, secret).await,
        }
    }

    /// All Secrets of the type.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn list(self, client: &Client) -> Result<Vec<Secret>, kube::Error> {
        let of_type = ListParams::default().fields(&format!("type={}", self.secret_type));
        self.api(client).list(&of_type).await.map(|listed| listed.items)
    }

    /// Takes one away; whether there was one.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn delete(self, client: &Client, name: &str) -> Result<bool, kube::Error> {
        let (api, name) = (self.api(client), self.name_of(name));
        // Somebody may have another Secret of such a name.
        let Some(secret) = api.get_opt(&name).await?.filter(|secret| self.record(secret).is_some()) else {
            return Ok(false);
        };
        let this_one = Preconditions { uid: secret.metadata.uid, resource_version: None };
        match api.delete(&name, &DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() }).await {
            Ok(_) => Ok(true),
            // It went meanwhile, or another came in its place.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells `book` what `read` makes of those that there are, as they change, until `stop`.
    pub async fn watch<T: PartialEq>(
        self,
        client: Client,
        read: impl Fn(&[Arc<Secret>]) -> T,
        book: watch::Sender<Arc<T>>,
        stop: CancellationToken,
    ) {
        let (store, writer) = reflector::store::<Secret>();
        let of_type = format!("type={}", self.secret_type);
        let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&of_type);
        let events = watcher(self.api(&client), config).default_backoff().reflect(writer);
        let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
        let mut complaint = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => {
                    complaint = None;
                    let now = read(&store.state());
                    book.send_if_modified(|known| {
                        let differs = **known != now;
                        if differs {
                            *known = Arc::new(now);
                        }
                        differs
                    });
                }
                Err(error) => {
                    let error = error.to_string();
                    if complaint.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the {} cannot be watched: those that are known stay", self.plural);
                        complaint = Some(error);
                    }
                }
            }
        }
    }
}

// === impl Record ===

impl Record<'_> {
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(&self.secret.data.as_ref()?.get(key)?.0).ok()
    }

    /// What a text says; none where there is none.
    ///
    /// # Errors
    /// Where it says what cannot be read.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, T::Err> {
        self.text(key).map(str::parse).transpose()
    }
}
