//! Private files: readable and writable by this user alone, and written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::token::random_word;

/// Letters of the name of a file that is being written.
const PART: usize = 16;

/// Writes a file that only this user can read; whole or not at all, whatever happens meanwhile.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A name that nobody can guess, and no file of somebody else's: what lies at it would be written into.
    let part = path.with_extension(format!("part-{}", random_word(PART)));
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    written().inspect_err(|_| {
        // Half of it would keep a full disk full.
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_this_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_private(&path, b"k").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // A folder cannot be replaced by a file.
        fs::create_dir_all(folder.path().join("token/x")).unwrap();
        write_private(&folder.path().join("token"), b"t").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
