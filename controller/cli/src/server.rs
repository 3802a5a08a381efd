//! The API server as the verbs see it: raw requests by path, answers as JSON, failures in kubectl's words.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use kube::client::Body;
use kube::core::{Status, WatchEvent};
use kube::{Client, Config};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::failure::{self, Failure};

pub const JSON: &str = "application/json";
/// Asks for columns; a server that has none answers with the objects.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The longest that one answer may take; watches are excepted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A watch is followed no longer than this before the object is looked at afresh.
const RELIST_INTERVAL: Duration = Duration::from_secs(10);
/// Between the end of a watch and the next look.
const RELIST_PAUSE: Duration = Duration::from_millis(100);

/// An API server.
#[derive(Clone)]
pub struct Server {
    client: Client,
    /// `host:port`, for messages.
    address: String,
    /// What to do when nobody answers there.
    hint: String,
    /// What its certificate has to lead to, in DER, where the kubeconfig says so.
    roots: Vec<Vec<u8>>,
}

// === impl Server ===

impl Server {
    /// # Errors
    /// When the configuration's credentials cannot be used.
    pub(crate) fn new(mut config: Config, origin: &str) -> Result<Self, String> {
        let agent = HeaderValue::try_from(user_agent()).map_err(|error| error.to_string())?;
        config.headers.push((USER_AGENT, agent));
        let address =
            config.cluster_url.authority().map_or_else(|| config.cluster_url.to_string(), ToString::to_string);
        let hint = format!("(from kubeconfig {origin}; a control plane on this machine is started with `polyctl up`)");
        let roots = config.root_cert.clone().unwrap_or_default();
        let client = Client::try_from(config).map_err(|error| failure::causes(&error))?;
        Ok(Self { client, address, hint, roots })
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What its certificate has to lead to, in DER, where the kubeconfig says so.
    pub(crate) fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// For what others do with a client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// # Errors
    /// Any [`Failure`] of the request; so too for the methods below.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.get_as(path, JSON).await
    }

    /// The same in the representation that `accept` asks for.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Value, Failure> {
        Ok(self.exchange(Method::GET, path, accept, None).await?.1)
    }

    /// The same as a `meta.k8s.io` Table.
    pub async fn get_table(&self, path: &str) -> Result<Value, Failure> {
        self.get_as(path, TABLE).await
    }

    /// The object, or none when there is no such object.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// A list's items.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        match self.get(path).await?["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Server-side apply; the status code tells whether the object is new.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<(StatusCode, Value), Failure> {
        // JSON is YAML.
        self.exchange(Method::PATCH, path, JSON, Some(("application/apply-patch+yaml", object))).await
    }

    /// Changes what `patch` names and leaves the rest (RFC 7386).
    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, Failure> {
        Ok(self.exchange(Method::PATCH, path, JSON, Some(("application/merge-patch+json", patch))).await?.1)
    }

    /// A new object in a collection.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Failure> {
        Ok(self.exchange(Method::POST, path, JSON, Some((JSON, object))).await?.1)
    }

    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, Failure> {
        Ok(self.exchange(Method::DELETE, path, JSON, Some((JSON, options))).await?.1)
    }

    /// The changes of a collection, for as long as the server tells them.
    pub async fn watch(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Value>, Failure>> + use<>, Failure> {
        let request =
            Request::get(path).header(ACCEPT, accept).body(Vec::new()).map_err(|error| self.garbled(&error))?;
        let events = self.client.request_events::<Value>(request).await.map_err(|error| self.failure(error))?;
        let server = self.clone();
        Ok(events.map(move |event| event.map_err(|error| server.failure(error))))
    }

    /// Follows one object of a collection until `decide` makes something of it (none: it does not exist), and gives that;
    /// or none when the deadline comes first. Goes on where the server ends a stream or is started anew.
    ///
    /// # Errors
    /// A [`Failure`] of the first look, or the latest one when the deadline comes while the server is away.
    pub async fn until<T>(
        &self,
        collection: &str,
        name: &str,
        deadline: Instant,
        mut decide: impl FnMut(Option<&Value>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let by_name = format!("metadata.name={name}");
        let mut seen = false;
        loop {
            match self.follow(collection, &by_name, deadline, &mut decide).await {
                Ok(Some(decided)) => return Ok(Some(decided)),
                Ok(None) => seen = true,
                Err(failure) if !seen || !failure.is_transient() || Instant::now() >= deadline => return Err(failure),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(RELIST_PAUSE).await;
        }
    }

    /// One list and the watch after it.
    async fn follow<T>(
        &self,
        collection: &str,
        by_name: &str,
        deadline: Instant,
        decide: &mut impl FnMut(Option<&Value>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let list = self.get(&with_query(collection, &[("fieldSelector", Some(by_name))])).await?;
        if let Some(decided) = decide(list["items"].get(0)) {
            return Ok(Some(decided));
        }
        let version = list["metadata"]["resourceVersion"].as_str();
        let query = [("fieldSelector", Some(by_name)), ("watch", Some("true")), ("resourceVersion", version)];
        let end = tokio::time::Instant::from_std(deadline.min(Instant::now() + RELIST_INTERVAL));
        let Ok(events) = tokio::time::timeout_at(end, self.watch(&with_query(collection, &query), JSON)).await else {
            return Ok(None);
        };
        let mut events = std::pin::pin!(events?);
        while let Ok(Some(event)) = tokio::time::timeout_at(end, events.next()).await {
            let decided = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => decide(Some(&object)),
                WatchEvent::Deleted(_) => decide(None),
                WatchEvent::Bookmark(_) => None,
                WatchEvent::Error(_) => return Ok(None),
            };
            if decided.is_some() {
                return Ok(decided);
            }
        }
        Ok(None)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<(StatusCode, Value), Failure> {
        let mut request = Request::builder().method(method).uri(path).header(ACCEPT, accept);
        let mut body = Vec::new();
        if let Some((content_type, value)) = content {
            request = request.header(CONTENT_TYPE, content_type);
            body = value.to_string().into_bytes();
        }
        let request = request.body(Body::from(body)).map_err(|error| self.garbled(&error))?;
        let answer = async {
            let response = self.client.send(request).await.map_err(|error| self.failure(error))?;
            let status = response.status();
            let bytes = response.into_body().collect_bytes().await.map_err(|error| self.failure(error))?;
            Ok((status, bytes))
        };
        let (status, bytes) = tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| Failure::Silent { server: self.address.clone(), seconds: ANSWER_TIMEOUT.as_secs() })??;
        if status.is_success() {
            return Ok((status, serde_json::from_slice(&bytes).map_err(|error| self.garbled(&error))?));
        }
        let told = serde_json::from_slice::<Status>(&bytes).ok().filter(|status| !status.message.is_empty());
        let told = told.unwrap_or_else(|| {
            Status::failure(String::from_utf8_lossy(&bytes).trim(), status.canonical_reason().unwrap_or(""))
        });
        Err(Failure::Server(Box::new(told.with_code(status.as_u16()))))
    }

    fn garbled(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Garbled { server: self.address.clone(), detail: error.to_string() }
    }

    fn failure(&self, error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => Failure::Server(status),
            error if failure::is_refused(&error) => {
                Failure::Refused { server: self.address.clone(), hint: self.hint.clone() }
            }
            error => Failure::Unreachable { detail: failure::causes(&error), hint: self.hint.clone() },
        }
    }
}

/// `polyctl/v0.1.0 (linux/amd64)`, in the form and with the words of kubectl. A server takes what stands before the slash
/// as the manager of fields where a request names none.
pub(crate) fn user_agent() -> String {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("polyctl/v{} ({system}/{architecture})", env!("CARGO_PKG_VERSION"))
}

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// `path?name=value&…` of those parameters that have a value.
pub fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = path.to_owned();
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(name);
        text.push('=');
        text.extend(utf8_percent_encode(value, QUERY));
    }
    text
}

/// One segment of a path, with what could end it escaped.
pub fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_with_a_value_are_sent_and_escaped() {
        let path =
            with_query("/apis/x", &[("labelSelector", Some("a=b,c in (d)")), ("limit", None), ("dryRun", Some("All"))]);
        assert_eq!(path, "/apis/x?labelSelector=a%3Db%2Cc%20in%20%28d%29&dryRun=All");
        assert_eq!(path_segment("../secrets"), "..%2Fsecrets");
    }

    #[test]
    fn the_program_is_named_as_kubectl_names_itself() {
        let agent = user_agent();
        assert!(agent.starts_with("polyctl/v0.") && agent.ends_with(')') && agent.contains(" ("), "{agent}");
    }
}
