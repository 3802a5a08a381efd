//! Cached models: what lies in Polyphony's own cache folder. A file is a model of one file, a folder one of several. Talks to no server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use polyphony_controller::models::source::{cache_folder, cache_folders};
use polyphony_model::SourceFile;

/// Folders within folders of a repository that are counted.
const MAX_DEPTH: usize = 8;

/// What the model at `path` is called in the cache; `None` where its name is no text.
pub(super) fn name_of(path: &Path, files: &[SourceFile]) -> Option<String> {
    let text = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    match files {
        [only] => text(&only.path),
        // The dots of a path such as `.` are no name.
        _ if path.is_dir() => text(&fs::canonicalize(path).ok()?),
        [first, ..] => {
            let name = text(&first.path)?;
            let stem =
                name.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-')).map(|(stem, _)| stem.to_owned());
            // A file of a folder stands for the folder.
            stem.or_else(|| text(&fs::canonicalize(first.path.parent()?).ok()?))
        }
        [] => None,
    }
}

/// Brings `files` into `folder` under `name`: a single file as it is, several in a folder. Whole or not at all.
///
/// # Errors
/// What kept one of them from being linked, copied or put in its place.
pub(super) fn place(folder: &Path, name: &str, files: &[SourceFile], copies: bool) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let incoming = folder.join(format!(".{name}.{}", std::process::id()));
    let bring = |from: &Path, to: &Path| match !copies && fs::hard_link(from, to).is_ok() {
        true => Ok(()),
        false => fs::copy(from, to).map(|_| ()),
    };
    let brought = match files {
        [only] => bring(&only.path, &incoming),
        _ => fs::create_dir(&incoming)
            .and_then(|()| files.iter().try_for_each(|file| bring(&file.path, &incoming.join(file.name())))),
    };
    let placed = brought.and_then(|()| fs::rename(&incoming, folder.join(name)));
    if placed.is_err() {
        // What is half there helps nobody; the first error is the one to tell.
        let _ = remove(&incoming);
    }
    placed
}

/// Models of the cache on this machine, by name, with their bytes.
pub(super) fn all() -> Vec<(String, u64)> {
    let Some(folder) = cache_folder() else { return Vec::new() };
    let mut found: Vec<(String, u64)> = cache_folders(&folder)
        .iter()
        .flat_map(|folder| entries(folder))
        .filter_map(|(name, entry)| {
            let metadata = fs::metadata(&entry).ok()?;
            let is_model = name.ends_with(".gguf") && metadata.is_file();
            match metadata.is_dir() {
                true => Some((name, bytes_below(&entry, MAX_DEPTH))),
                false => is_model.then_some((name, metadata.len())),
            }
        })
        .collect();
    found.sort();
    found
}

/// Of all files below a folder.
fn bytes_below(folder: &Path, depth: usize) -> u64 {
    let of_entry = |(_, entry): (String, PathBuf)| match fs::symlink_metadata(&entry) {
        Ok(metadata) if metadata.is_dir() && depth > 0 => bytes_below(&entry, depth - 1),
        Ok(_) => fs::metadata(&entry).map_or(0, |metadata| metadata.len()),
        Err(_) => 0,
    };
    entries(folder).map(of_entry).sum()
}

/// Removes the model at `path`, a file or a folder.
///
/// # Errors
/// What kept it there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Everything in a folder whose name is text and not hidden.
fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| !name.starts_with('.'))
}
