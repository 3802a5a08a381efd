//! The hub: its routes, and what its answers mean. Downloads nothing itself.

use polyphony_api::model_source::HubSource;
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{Answer, Ask, Client, causes};
use super::digest::Expected;
use super::error::FetchError;
use super::guard::shown;
use super::listing::Listed;
use crate::secret::Secret;

/// One answer of the hub's API is no longer.
const MAX_ANSWER: usize = 16 << 20;
/// Files of a repository that are looked at.
const MAX_FILES: usize = 100_000;
const MAIN: &str = "main";
const ERROR_CODE: &str = "x-error-code";
const ERROR_MESSAGE: &str = "x-error-message";
/// What is shown of a message.
const MAX_MESSAGE: usize = 300;

/// A repository of a hub, as one Model asks for it.
pub(super) struct Hub<'a> {
    pub client: &'a Client,
    pub endpoint: &'a Url,
    pub token: Option<&'a Secret>,
    pub source: &'a HubSource,
}

/// What a revision stands for.
#[derive(Deserialize)]
struct Revision {
    sha: String,
}

/// An entry of a tree.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    #[serde(default)]
    size: Option<u64>,
}

// === impl Hub ===

impl Hub<'_> {
    /// The commit that the source's revision stands for now.
    ///
    /// # Errors
    /// Any of fetching; what is absent by its name.
    pub(super) async fn commit(&self) -> Result<String, FetchError> {
        let revision = self.source.revision.as_deref().unwrap_or(MAIN);
        let url = self.url(&["api", "models", &self.source.owner, &self.source.name, "revision", revision]);
        let (found, _): (Revision, _) = self.json(&url).await?;
        let is_commit = found.sha.len() == 40 && found.sha.bytes().all(|c| c.is_ascii_hexdigit());
        if !is_commit {
            return Err(FetchError::NoHub { url: shown(&url), why: "`sha` is no commit".to_owned() });
        }
        Ok(found.sha.to_ascii_lowercase())
    }

    /// All files at a commit, from as many pages as there are.
    ///
    /// # Errors
    /// As [`Hub::commit`].
    pub(super) async fn files(&self, commit: &str) -> Result<Vec<Listed>, FetchError> {
        let mut url = self.url(&["api", "models", &self.source.owner, &self.source.name, "tree", commit]);
        url.set_query(Some("recursive=true"));
        let mut files = Vec::new();
        let mut next = Some(url);
        while let Some(url) = next {
            let (page, headers): (Vec<Entry>, _) = self.json(&url).await?;
            let is_empty = page.is_empty();
            files.extend(page.into_iter().filter(|entry| entry.kind == "file").map(Entry::listed));
            if files.len() > MAX_FILES {
                return Err(FetchError::NoHub { url: shown(&url), why: format!("over {MAX_FILES} files are listed") });
            }
            // A page of nothing that leads on would never end.
            next = next_page(&headers, &url).filter(|following| *following != url && !is_empty);
        }
        Ok(files)
    }

    /// Where a file lies.
    pub(super) fn file_url(&self, commit: &str, path: &str) -> Url {
        let before = [self.source.owner.as_str(), &self.source.name, "resolve", commit];
        self.url(&before.into_iter().chain(path.split('/')).collect::<Vec<_>>())
    }

    /// The answer itself, or what its status means.
    pub(super) fn accept(&self, answer: Answer) -> Result<Answer, FetchError> {
        let status = answer.response.status();
        if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer);
        }
        Err(self.refusal(&answer.response, &answer.url))
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            // A revision with slashes is one part, which the address encodes.
            path.pop_if_empty().extend(parts);
        }
        url
    }

    async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, HeaderMap), FetchError> {
        let ask = Ask { method: Method::GET, url: url.clone(), token: self.token, from: 0, if_range: None };
        let answer = self.accept(self.client.send(&ask).await?)?;
        let headers = answer.response.headers().clone();
        let bytes = body(answer.response, url).await?;
        let read = serde_json::from_slice(&bytes);
        let value = read.map_err(|error| FetchError::NoHub { url: shown(url), why: error.to_string() })?;
        Ok((value, headers))
    }

    fn refusal(&self, response: &Response, url: &Url) -> FetchError {
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|text| text.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect::<String>())
        };
        let repository = self.source.repository();
        let (message, status) = (text(ERROR_MESSAGE), response.status());
        match text(ERROR_CODE).as_deref() {
            Some("GatedRepo") => FetchError::Gated { repository, message },
            Some("RepoNotFound") => {
                FetchError::RepoNotFound { endpoint: self.endpoint.origin().ascii_serialization(), repository }
            }
            Some("RevisionNotFound") => {
                let revision = self.source.revision.clone().unwrap_or_else(|| MAIN.to_owned());
                FetchError::RevisionNotFound { repository, revision }
            }
            Some("EntryNotFound") => {
                let file = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default().to_owned();
                FetchError::EntryNotFound { repository, file, found: Vec::new() }
            }
            // A store asks for no token of ours: the address that the hub gave is what it knows.
            _ if url.origin() != self.endpoint.origin() => {
                FetchError::Answer { url: shown(url), status: status.to_string(), message }
            }
            _ => status_error(status, url, self.token.is_some(), message),
        }
    }
}

// === impl Entry ===

impl Entry {
    fn listed(self) -> Listed {
        let n_bytes = self.lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(self.size);
        let hex = self.lfs.map(|lfs| lfs.oid).or(self.oid).unwrap_or_default();
        Listed { path: self.path, n_bytes, digest: Expected::of_hex(hex.strip_prefix("sha256:").unwrap_or(&hex)) }
    }
}

/// What a status means where nothing more is said.
pub(super) fn status_error(status: StatusCode, url: &Url, has_token: bool, message: Option<String>) -> FetchError {
    let (url, said) = (shown(url), status.to_string());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if has_token => {
            FetchError::TokenRefused { url, status: said, message }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::TokenMissing { url, status: said },
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::NotFound { url, status: said },
        _ => FetchError::Answer { url, status: said, message },
    }
}

async fn body(mut response: Response, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| FetchError::BrokeOff {
            url: shown(url),
            n_bytes: bytes.len() as u64,
            why: causes(&error.without_url()),
        })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(FetchError::NoHub { url: shown(url), why: format!("the answer has over {MAX_ANSWER} bytes") });
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// `Link: <…>; rel="next"` (RFC 8288).
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok()).flat_map(|text| text.split(','));
    links
        .filter_map(|link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
            is_next.then(|| url.join(target).ok()).flatten()
        })
        // The token goes with it: it stays within the hub.
        .find(|next| next.origin() == url.origin())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_page_is_the_one_that_is_called_so_and_of_this_hub() {
        let url: Url = "https://h/api/models/o/n/tree/c?recursive=true".parse().unwrap();
        let next = |link: &str| {
            next_page(&HeaderMap::from_iter([(LINK, link.parse().unwrap())]), &url).map(|url| url.to_string())
        };
        assert_eq!(next("<https://h/x?cursor=a>; rel=\"next\"").as_deref(), Some("https://h/x?cursor=a"));
        assert_eq!(next("</y>; rel=\"prev\", </z>; rel=\"next\"").as_deref(), Some("https://h/z"));
        assert_eq!(next("<https://other/x>; rel=\"next\""), None);
        assert_eq!(next("<https://h/x>; rel=\"last\""), None);
        assert_eq!(next("rubbish"), None);
    }

    #[test]
    fn a_file_in_the_store_has_its_sha256_and_another_its_git_hash() {
        let json = format!(
            r#"[{{"type":"file","oid":"{0}","size":5,"path":"a","lfs":{{"oid":"{1}","size":7,"pointerSize":1}}}},
                {{"type":"file","oid":"{0}","size":5,"path":"b"}}]"#,
            "a".repeat(40),
            "b".repeat(64)
        );
        let listed: Vec<Listed> =
            serde_json::from_str::<Vec<Entry>>(&json).unwrap().into_iter().map(Entry::listed).collect();
        assert_eq!((listed[0].n_bytes, &listed[0].digest), (7, &Some(Expected::Sha256("b".repeat(64)))));
        assert_eq!((listed[1].n_bytes, &listed[1].digest), (5, &Some(Expected::GitBlob("a".repeat(40)))));
    }
}
