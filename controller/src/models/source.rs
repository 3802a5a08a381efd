//! Sources: where the files of a Model's source lie on this host, now or once they are fetched. Looks at no disk.

use std::path::{Path, PathBuf};

use polyphony_api::model_source::{self, HubSource};
use polyphony_api::{Model, ModelSource};
use sha2::{Digest, Sha256};

/// Models that people put there.
const MODELS: &str = "models";
/// Models that were fetched, each in a folder of its own.
const DOWNLOADS: &str = "downloads";
/// Digits of a commit or digest in the name of a folder.
const DIGITS: usize = 12;

/// Why a source names no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Text(#[from] model_source::SourceError),
    #[error(
        "spec.source {source_text:?} needs the cache folder, and neither POLYPHONY_CACHE, XDG_CACHE_HOME nor HOME is set: set one for the controller, or use file:///path"
    )]
    NoCache { source_text: String },
    #[error(
        "spec.source {source_text:?} has to be fetched first, which the controller does: wait until the Model is Resolved"
    )]
    Remote { source_text: String },
}

/// Where a Model's files are on this host: where they were verified, or else where its source says.
///
/// # Errors
/// [`SourceError`] with the source and how to write it, also of one that is not fetched yet.
pub fn path_of_model(model: &Model) -> Result<PathBuf, SourceError> {
    if let Some(path) = model.status.as_ref().and_then(|status| status.path.as_ref()) {
        return Ok(path.into());
    }
    let text = &model.spec.source;
    path_of(&ModelSource::parse(text)?, cache_folder().as_deref())?
        .ok_or_else(|| SourceError::Remote { source_text: text.clone() })
}

/// Where the files of a source lie; `None` where they have to be fetched.
pub(super) fn path_of(source: &ModelSource, cache: Option<&Path>) -> Result<Option<PathBuf>, SourceError> {
    match source {
        ModelSource::File(path) => Ok(Some(path.into())),
        ModelSource::Cache(name) => match cache {
            Some(cache) => Ok(Some(in_cache(cache, name))),
            None => Err(SourceError::NoCache { source_text: source.to_string() }),
        },
        ModelSource::Https(_) | ModelSource::Hub(_) => Ok(None),
    }
}

/// What `cache://name` means. What was fetched lies apart, and is known by its name.
pub fn in_cache(cache: &Path, name: &str) -> PathBuf {
    let first = name.split('/').next().unwrap_or_default();
    cache.join(if is_download(first) { DOWNLOADS } else { MODELS }).join(name)
}

/// What a Model of this source has in the cache, as the first name after `cache://`; a source of a hub by its commit.
pub fn cache_name(source: &ModelSource, commit: Option<&str>) -> Option<String> {
    match source {
        ModelSource::File(_) => None,
        ModelSource::Cache(name) => name.split('/').next().map(str::to_owned),
        ModelSource::Https(url) => Some(web_folder(url)),
        ModelSource::Hub(source) => commit.map(|commit| hub_folder(source, commit)),
    }
}

/// Folders of the cache that hold models, by name.
pub fn cache_folders(cache: &Path) -> [PathBuf; 2] {
    [MODELS, DOWNLOADS].map(|name| cache.join(name))
}

/// `owner--name@0123456789ab`: no name of a hub has two dashes.
pub(super) fn hub_folder(source: &HubSource, commit: &str) -> String {
    format!("{}--{}@{}", source.owner, source.name, commit.get(..DIGITS).unwrap_or(commit))
}

/// `host--name@0123456789ab`, of the digest of the whole address.
pub(super) fn web_folder(url: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(64).collect()
    };
    let rest = url.strip_prefix("https://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let file = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let digest = hex::encode(Sha256::digest(url.as_bytes()));
    format!("{}--{}@{}", plain(host).trim_start_matches(['.', '-']), plain(file), &digest[..DIGITS])
}

/// Whether a name of the cache is one that [`hub_folder`] or [`web_folder`] gave.
fn is_download(name: &str) -> bool {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    name.rsplit_once('@')
        .is_some_and(|(rest, digits)| rest.contains("--") && digits.len() == DIGITS && digits.bytes().all(is_digit))
}

/// Polyphony's own cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("POLYPHONY_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("polyphony")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache").join("polyphony")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_names_files_of_this_host_or_says_that_they_are_elsewhere() {
        let path = |text: &str, cache: Option<&str>| {
            path_of(&ModelSource::parse(text).unwrap(), cache.map(Path::new))
                .map(|path| path.map(|it| it.display().to_string()))
        };
        assert_eq!(path("file:///a/b.gguf", None), Ok(Some("/a/b.gguf".into())));
        assert_eq!(path("cache://b.gguf", Some("/c")), Ok(Some("/c/models/b.gguf".into())));
        assert_eq!(
            path("cache://o--n@0123456789ab/m.gguf", Some("/c")),
            Ok(Some("/c/downloads/o--n@0123456789ab/m.gguf".into()))
        );
        assert_eq!(path("cache://a@b.gguf", Some("/c")), Ok(Some("/c/models/a@b.gguf".into())));
        assert!(matches!(path("cache://b.gguf", None), Err(SourceError::NoCache { .. })));
        assert_eq!(path("hf://o/n", None), Ok(None));
    }

    #[test]
    fn what_was_fetched_is_known_by_its_folder() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let name = |text: &str| cache_name(&ModelSource::parse(text).unwrap(), Some(commit)).unwrap();
        assert_eq!(name("hf://o/n.b@main:Q4_0"), "o--n.b@0123456789ab");
        let web = name("https://h.example:8443/a/m_1.gguf?x=/y");
        assert!(web.starts_with("h.example-8443--m-1.gguf@") && is_download(&web), "{web}");
        assert_ne!(web, name("https://h.example:8443/b/m_1.gguf?x=/y"));
        assert_eq!(cache_name(&ModelSource::parse("hf://o/n").unwrap(), None), None);
    }
}
