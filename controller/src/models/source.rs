//! Sources: where a model is, by the URI in a Model's spec.

use std::path::{Component, Path, PathBuf};

/// A model on this host: a file, a pattern or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(PathBuf);

/// Why a source names no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("spec.source {uri:?} has no scheme that is known: write file:///path/model or cache://name")]
    Scheme { uri: String },
    #[error("spec.source {uri:?} names no absolute path: write file:///path/model, with three slashes")]
    Relative { uri: String },
    #[error("spec.source {uri:?} is no plain name: write cache://name, without folders")]
    NotAName { uri: String },
    #[error(
        "spec.source {uri:?} needs the cache folder, and neither POLYPHONY_CACHE, XDG_CACHE_HOME nor HOME is set: set one for the controller, or use file:///path"
    )]
    NoCache { uri: String },
}

// === impl Source ===

impl Source {
    /// # Errors
    /// [`SourceError`] with the URI and how to write it.
    pub fn parse(uri: &str) -> Result<Self, SourceError> {
        Self::parse_with(uri, cache_folder())
    }

    fn parse_with(uri: &str, cache: Option<PathBuf>) -> Result<Self, SourceError> {
        let owned = || uri.to_owned();
        if let Some(path) = uri.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Self(path.into()))
            } else {
                Err(SourceError::Relative { uri: owned() })
            };
        }
        let Some(name) = uri.strip_prefix("cache://") else {
            return Err(SourceError::Scheme { uri: owned() });
        };
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(file)), None) => {
                let cache = cache.ok_or_else(|| SourceError::NoCache { uri: owned() })?;
                Ok(Self(cache.join("models").join(file)))
            }
            _ => Err(SourceError::NotAName { uri: owned() }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
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
    use super::*;

    #[test]
    fn a_source_names_one_file_or_says_how_to_write_it() {
        let parse = |uri| Source::parse_with(uri, Some("/cache".into()));
        assert_eq!(parse("file:///a/b.gguf"), Ok(Source("/a/b.gguf".into())));
        assert_eq!(parse("cache://b.gguf"), Ok(Source("/cache/models/b.gguf".into())));
        assert!(matches!(parse("file://a/b.gguf"), Err(SourceError::Relative { .. })));
        assert!(matches!(parse("http://a/b.gguf"), Err(SourceError::Scheme { .. })));
        for uri in ["cache://../b.gguf", "cache://a/b.gguf", "cache:///b.gguf", "cache://..", "cache://"] {
            assert!(matches!(parse(uri), Err(SourceError::NotAName { .. })), "{uri}");
        }
        assert!(matches!(Source::parse_with("cache://b.gguf", None), Err(SourceError::NoCache { .. })));
    }
}
