//! Model sources: where a model comes from, as `spec.source` has it. Reads text and nothing else: no file, no network.

use std::fmt;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A file, a part of one, a pattern or a folder, by its absolute path.
    File(String),
    /// What lies in Polyphony's own cache folder: a name, and within a folder the file.
    Cache(String),
    /// One file of a web server.
    Https(String),
    /// Files of a repository on a hub.
    Hub(HubSource),
}

/// `hf://owner/name[@revision][:pick]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    pub owner: String,
    pub name: String,
    /// A branch, a tag or a commit; the hub's main branch when there is none.
    pub revision: Option<String>,
    pub pick: Pick,
}

/// Which of a repository's files are the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Nothing is said: what the repository leaves no doubt of, or what is usual.
    Usual,
    /// The GGUF file whose name says this quantisation, such as `Q4_K_M`.
    Quantisation(String),
    /// This file, or all the parts that it is one of.
    File(String),
}

/// Why a text is no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error(
        "spec.source {source_text:?} has no scheme that is known: write hf://owner/name:Q4_K_M, https://host/model.gguf, file:///path/model or cache://name"
    )]
    Scheme { source_text: String },
    #[error("spec.source {source_text:?} names no absolute path: write file:///path/model, with three slashes")]
    Relative { source_text: String },
    #[error(
        "spec.source {source_text:?} names nothing within the cache: write cache://name, or cache://folder/file, without dots as a name"
    )]
    Cache { source_text: String },
    #[error(
        "spec.source {source_text:?} names no file of a host: write https://host/path/model.gguf, without user and fragment"
    )]
    Https { source_text: String },
    #[error(
        "spec.source {source_text:?} is not encrypted, so that anybody on the way could put other weights there: write https://, or fetch the file yourself and write file:///path"
    )]
    Plain { source_text: String },
    #[error(
        "spec.source {source_text:?} names no repository: write hf://owner/name, then @revision and :Q4_K_M or :file where they are needed"
    )]
    Repository { source_text: String },
    #[error("spec.source {source_text:?} has the revision {revision:?}: write a branch, a tag or a commit after @")]
    Revision { source_text: String, revision: String },
    #[error(
        "spec.source {source_text:?} has {pick:?} after the colon: write a quantisation such as Q4_K_M, or a file of the repository"
    )]
    Pick { source_text: String, pick: String },
}

/// Names and revisions of a hub are no longer.
const MAX_NAME: usize = 96;
const MAX_REVISION: usize = 256;
const MAX_PATH: usize = 1024;

// === impl ModelSource ===

impl ModelSource {
    /// # Errors
    /// [`SourceError`] with the text and how to write it.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let source_text = text.to_owned();
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Self::File(path.to_owned())),
                false => Err(SourceError::Relative { source_text }),
            };
        }
        if let Some(name) = text.strip_prefix("cache://") {
            return match is_path_within(name) {
                true => Ok(Self::Cache(name.to_owned())),
                false => Err(SourceError::Cache { source_text }),
            };
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return match is_host_and_path(rest) {
                true => Ok(Self::Https(text.to_owned())),
                false => Err(SourceError::Https { source_text }),
            };
        }
        if text.starts_with("http://") {
            return Err(SourceError::Plain { source_text });
        }
        match text.strip_prefix("hf://") {
            Some(rest) => HubSource::parse(rest, text).map(Self::Hub),
            None => Err(SourceError::Scheme { source_text }),
        }
    }

    /// Whether its files have to be fetched first.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Https(_) | Self::Hub(_))
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file://{path}"),
            Self::Cache(name) => write!(f, "cache://{name}"),
            Self::Https(url) => f.write_str(url),
            Self::Hub(source) => source.fmt(f),
        }
    }
}

// === impl HubSource ===

impl HubSource {
    fn parse(rest: &str, whole: &str) -> Result<Self, SourceError> {
        let source_text = || whole.to_owned();
        // Neither a repository nor a revision of git has a colon.
        let (repository, pick) = match rest.split_once(':') {
            Some((repository, pick)) => (repository, Some(pick)),
            None => (rest, None),
        };
        let (repository, revision) = match repository.split_once('@') {
            Some((repository, revision)) => (repository, Some(revision)),
            None => (repository, None),
        };
        let named = repository.split_once('/').filter(|(owner, name)| is_hub_name(owner) && is_hub_name(name));
        let (owner, name) = named.ok_or_else(|| SourceError::Repository { source_text: source_text() })?;
        if let Some(revision) = revision.filter(|revision| !is_revision(revision)) {
            return Err(SourceError::Revision { source_text: source_text(), revision: revision.to_owned() });
        }
        let pick = match pick {
            None => Pick::Usual,
            Some(file) if is_file_of_model(file) && is_path_within(file) => Pick::File(file.to_owned()),
            Some(word) if is_quantisation(word) => Pick::Quantisation(word.to_owned()),
            Some(other) => return Err(SourceError::Pick { source_text: source_text(), pick: other.to_owned() }),
        };
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.map(str::to_owned), pick })
    }

    /// `owner/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf://{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.pick {
            Pick::Usual => Ok(()),
            Pick::Quantisation(word) | Pick::File(word) => write!(f, ":{word}"),
        }
    }
}

/// As the hub has them: letters, digits and `-_.`, which neither begin nor end it, nor follow each other as `--` or `..`.
fn is_hub_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let at_ends = |c: char| c == '-' || c == '.';
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with(at_ends)
        && !name.ends_with(at_ends)
        && !name.contains("--")
        && !name.contains("..")
}

/// What git takes for a name of a commit, as far as hubs have such.
fn is_revision(revision: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_./+".contains(&c);
    (1..=MAX_REVISION).contains(&revision.len())
        && revision.bytes().all(is_plain)
        && !revision.contains("..")
        && revision.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']))
}

fn is_quantisation(word: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    (1..=MAX_NAME).contains(&word.len()) && word.bytes().all(is_plain) && !word.starts_with(['-', '.'])
}

fn is_file_of_model(path: &str) -> bool {
    let name = path.to_ascii_lowercase();
    name.ends_with(".gguf") || name.ends_with(".safetensors") || name == "config.json"
}

/// A path that leads nowhere but down.
pub fn is_path_within(path: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= MAX_PATH && !path.contains(|c: char| c == '\\' || c.is_control()) && path.split('/').all(is_name)
}

fn is_host_and_path(rest: &str) -> bool {
    let Some((host, path)) = rest.split_once('/') else { return false };
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}#".contains(c);
    let file = path.split('?').next().unwrap_or_default();
    !host.is_empty() && !host.contains('@') && !file.is_empty() && !file.ends_with('/') && rest.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hub_source_says_repository_revision_and_pick() {
        for (text, revision, pick) in [
            ("hf://o/n", None, Pick::Usual),
            ("hf://o/n:Q4_K_M", None, Pick::Quantisation("Q4_K_M".into())),
            ("hf://o/n@v1.0:q8_0", Some("v1.0"), Pick::Quantisation("q8_0".into())),
            ("hf://o/n@refs/pr/3", Some("refs/pr/3"), Pick::Usual),
            ("hf://o/n:sub/m-Q4_0-00001-of-00002.gguf", None, Pick::File("sub/m-Q4_0-00001-of-00002.gguf".into())),
            ("hf://o/n:config.json", None, Pick::File("config.json".into())),
        ] {
            let ModelSource::Hub(source) = ModelSource::parse(text).unwrap() else { panic!("{text}") };
            assert_eq!(
                (source.repository().as_str(), source.revision.as_deref(), &source.pick),
                ("o/n", revision, &pick)
            );
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn every_source_is_written_as_it_was_read() {
        for text in [
            "file:///a/b.gguf",
            "cache://b.gguf",
            "cache://folder/sub/b.gguf",
            "https://h:8443/a/b.gguf?download=true",
            "https://[2001:db8::1]/b.gguf",
        ] {
            assert_eq!(ModelSource::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_nothing_says_how_to_write_it() {
        for (texts, said) in [
            (&["", "x", "ftp://h/a", "HF://o/n", "/a/b.gguf"][..], "no scheme"),
            (&["file://a/b", "file://", "file://../x"], "three slashes"),
            (
                &["cache://", "cache:///a", "cache://..", "cache://a/../b", "cache://a//b", "cache://a\\b"],
                "within the cache",
            ),
            (
                &["https://h", "https:///a", "https://u:p@h/a", "https://h/a/", "https://h/a b", "https://h/a#f"],
                "no file of a host",
            ),
            (&["http://h/a.gguf"], "not encrypted"),
            (
                &["hf://n", "hf://o/n/x", "hf:///n", "hf://o/..", "hf://o/a--b", "hf://-o/n", "hf://o/n.", "hf://ö/n"],
                "no repository",
            ),
            (&["hf://o/n@", "hf://o/n@a..b", "hf://o/n@/a", "hf://o/n@a b", "hf://o/n@-a"], "has the revision"),
            (
                &["hf://o/n:", "hf://o/n:../a.gguf", "hf://o/n:/a.gguf", "hf://o/n:a b", "hf://o/n:a/b"],
                "after the colon",
            ),
        ] {
            for text in texts {
                let error = ModelSource::parse(text).unwrap_err().to_string();
                assert!(error.contains(said), "{text}: {error}");
            }
        }
    }
}
