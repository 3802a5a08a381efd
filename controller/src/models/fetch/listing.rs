//! Listings: the files of a repository at a commit, which never change, so that a listing once made is kept beside what was fetched.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Expected;
use super::error::FetchError;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed {
    /// Within the repository, with `/`.
    pub path: String,
    pub n_bytes: u64,
    pub digest: Option<Expected>,
}

/// What is kept of a listing.
#[derive(Serialize, Deserialize)]
struct Kept {
    commit: String,
    files: Vec<Listed>,
}

/// The listing of a commit that is kept in `folder`, where it is whole.
pub(super) fn find(folder: &Path, commit: &str) -> Option<Vec<Listed>> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path(folder)).ok()?).ok()?;
    (kept.commit == commit).then_some(kept.files)
}

/// # Errors
/// When the folder cannot be written to.
pub(super) fn keep(folder: &Path, commit: &str, files: &[Listed]) -> Result<(), FetchError> {
    let path = path(folder);
    let disk = |source| FetchError::disk(&path, source);
    let kept = Kept { commit: commit.to_owned(), files: files.to_vec() };
    let json = serde_json::to_vec(&kept).map_err(|error| disk(error.into()))?;
    let part = path.with_extension("part");
    std::fs::write(&part, json).and_then(|()| std::fs::rename(&part, &path)).map_err(disk)
}

fn path(folder: &Path) -> PathBuf {
    folder.join(".listing.json")
}
