//! Programs: where the binaries that `up` starts are.

use std::path::{Path, PathBuf};

/// A binary is nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} was not found: looked in {}: build it with `cargo build --bin {name}`, or put it beside polyctl or on $PATH", .looked_in.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "))]
pub struct MissingProgram {
    pub name: String,
    pub looked_in: Vec<PathBuf>,
}

/// Finds a binary beside this program, then on $PATH.
///
/// # Errors
/// [`MissingProgram`] with every folder that was looked in.
pub fn find(name: &str) -> Result<PathBuf, MissingProgram> {
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(name, beside.into_iter().chain(std::env::split_paths(&path)))
}

fn find_in(name: &str, folders: impl IntoIterator<Item = PathBuf>) -> Result<PathBuf, MissingProgram> {
    let mut looked_in = Vec::new();
    for folder in folders {
        let candidate = folder.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        if !looked_in.contains(&folder) {
            looked_in.push(folder);
        }
    }
    Err(MissingProgram { name: name.to_owned(), looked_in })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_folder_that_has_it_wins_and_a_miss_names_them_all() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(second.path().join("polyphony-agent"), "").unwrap();
        let folders = || [first.path().to_owned(), second.path().to_owned(), first.path().to_owned()];
        assert_eq!(find_in("polyphony-agent", folders()).unwrap(), second.path().join("polyphony-agent"));
        let missing = find_in("polyphony-controller", folders()).unwrap_err();
        assert_eq!(missing.looked_in.len(), 2);
        assert!(missing.to_string().contains("cargo build --bin polyphony-controller"));
    }
}
