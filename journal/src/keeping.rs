//! Keeping: a log file that grows to a bound, is set aside as its one predecessor, and begins anew.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file is set aside when it has grown to this; with its predecessor it takes twice as much of the disk.
pub const KEPT_BYTES: u64 = 8 << 20;

/// The file that a program writes its journal to.
pub(crate) struct Keeping {
    path: PathBuf,
    file: File,
    limit: u64,
    /// Whether stdout and stderr go there, too, so that words of a panic or a driver are kept, and counted.
    takes_stdio: bool,
}

// === impl Keeping ===

impl Keeping {
    /// Opens the file to append to, and where it takes stdio makes it the stdout and stderr of this program.
    pub(crate) fn open(path: PathBuf, takes_stdio: bool) -> io::Result<Self> {
        let keeping = Self::of(path, KEPT_BYTES, takes_stdio)?;
        keeping.take_stdio();
        Ok(keeping)
    }

    pub(crate) fn of(path: PathBuf, limit: u64, takes_stdio: bool) -> io::Result<Self> {
        let file = append_to(&path)?;
        Ok(Self { path, file, limit, takes_stdio })
    }

    /// The file, with room for a line; an error when it is full and cannot be set aside.
    pub(crate) fn with_room(&mut self) -> io::Result<&File> {
        // Asked anew each time: others may write to the same file.
        if self.file.metadata()?.len() >= self.limit {
            std::fs::rename(&self.path, predecessor(&self.path)).or_else(|error| match error.kind() {
                // Set aside before, when a new one could not be made.
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            self.file = append_to(&self.path)?;
            self.take_stdio();
        }
        Ok(&self.file)
    }

    fn take_stdio(&self) {
        if self.takes_stdio {
            // Where it fails, they go on to where they went.
            let _ = rustix::stdio::dup2_stdout(&self.file);
            let _ = rustix::stdio::dup2_stderr(&self.file);
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn predecessor(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_grows_for_ever_takes_twice_its_bound_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone-1.log");
        let mut keeping = Keeping::of(path.clone(), 1000, false).unwrap();
        for idx in 0..100 {
            let mut file = keeping.with_room().unwrap();
            file.write_all(format!("{idx:099}\n").as_bytes()).unwrap();
        }
        let sizes: Vec<u64> = [path.clone(), predecessor(&path)].map(|path| path.metadata().unwrap().len()).into();
        assert_eq!(sizes, [1000, 1000]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("99\n"), "the newest lines are in the file itself");
    }

    #[test]
    fn a_file_that_cannot_be_set_aside_does_not_grow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone-1.log");
        // A folder of that name that is not empty stays where it is.
        std::fs::create_dir_all(predecessor(&path).join("in-the-way")).unwrap();
        std::fs::write(&path, vec![b'x'; 1000]).unwrap();
        let mut keeping = Keeping::of(path.clone(), 1000, false).unwrap();
        assert!(keeping.with_room().is_err());
        std::fs::remove_dir_all(predecessor(&path)).unwrap();
        assert_eq!(keeping.with_room().unwrap().metadata().unwrap().len(), 0, "and when it can be, it is");
    }
}
